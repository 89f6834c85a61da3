"""Durable acknowledgements a second in Django: commits that concurrent requests share, against one `create()` each.

Both sides verify each delivery and store its row by the model; each thread of either keeps its connection.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from benchmarks.acknowledgements import SECRET, deliveries
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core import WebhookRequest
from tests.services import database

__all__ = ["comparisons"]

PATIENCE = 60
"""Seconds that `create()` waits for SQLite's lock, which all its threads want."""

WAL = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}

Place = Callable[[], Any]
"""A context within which the inbox is in an empty database of its own."""


def comparisons(run: Run) -> list[Comparison]:
    """See docs/performance.md."""
    _set_up_django()
    return [
        Comparison(
            f"durable acknowledgements a second in Django, {run.requests} at once, {name}",
            {
                "create(), one commit each": partial(create_each, run, place),
                "shared commits": partial(share_commits, run, place),
            },
            [Ratio("shared commits", "create(), one commit each")],
        )
        for name, place in _places(run)
    ]


def create_each(run: Run, place: Place) -> Round:
    """Verify each delivery and create its row."""
    from envoyou_django.inbox.inbox import OrmInbox
    from envoyou_django.models import ProcessedEvent
    from envoyou_django.project import DjangoWebhooks

    with place():
        webhooks = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff="manual")

        def acknowledge(request: WebhookRequest) -> bool:
            event = webhooks.verify(request)
            now = datetime.now(UTC)
            ProcessedEvent.objects.create(
                name="default",
                tenant="",
                event_id=event.id,
                type=event.type,
                created=event.created,
                webhook_id=event.webhook_id,
                body=event.body,
                status="received",
                attempts=0,
                crashes=0,
                progress={},
                received_at=now,
                due_at=now,
                object_key=event.object_id or "",
            )
            return True

        return _measure(run, acknowledge, webhooks)


def share_commits(run: Run, place: Place) -> Round:
    """Receive each delivery as a process that serves does."""
    from envoyou_django.inbox.inbox import OrmInbox
    from envoyou_django.project import DjangoWebhooks

    with place():
        inbox = OrmInbox()
        inbox.shares_commits = True
        webhooks = DjangoWebhooks(secret=SECRET, inbox=inbox, handoff="manual")
        try:
            return _measure(run, lambda request: webhooks.receive(request).status == 200, webhooks)
        finally:
            inbox.close()


def _measure(run: Run, acknowledge: Callable[[WebhookRequest], bool], webhooks: Any) -> Round:
    from django.db import connections

    requests = deliveries(run.events)

    def acknowledge_some(first: int) -> bool:
        try:
            return all(acknowledge(request) for request in requests[first :: run.requests])
        finally:
            connections.close_all()

    with ThreadPoolExecutor(run.requests) as pool:
        began = time.perf_counter()
        acknowledged = all(pool.map(acknowledge_some, range(run.requests)))
        took = time.perf_counter() - began
    stored: int = webhooks.inbox.stats(exact=True).total
    if not acknowledged or stored != run.events:
        raise MeasurementError("not every delivery was acknowledged and stored")
    return Round(done=stored, rate=run.events / took)


def _set_up_django() -> None:
    if settings.configured:
        return
    settings.configure(
        INSTALLED_APPS=["envoyou_django"],
        USE_TZ=True,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3"},
            "postgres": {"ENGINE": "django.db.backends.postgresql"},
        },
        DATABASE_ROUTERS=["tests.django.databases.Router"],
        SILENCED_SYSTEM_CHECKS=["models.W037"],
    )
    django.setup()


def _places(run: Run) -> Iterator[tuple[str, Place]]:
    yield "SQLite as Django sets it up", partial(_on_sqlite, {})
    yield "SQLite in WAL mode", partial(_on_sqlite, WAL)
    if run.postgres is not None:
        yield "PostgreSQL", partial(_on_postgres, run.postgres)


@contextmanager
def _on_sqlite(options: dict[str, object]) -> Iterator[None]:
    from tests.django.databases import sqlite_database

    with (
        tempfile.TemporaryDirectory() as folder,
        _kept("default", {"timeout": PATIENCE, **options}),
        sqlite_database("default", Path(folder, "project.db"), "envoyou_django"),
    ):
        yield


@contextmanager
def _on_postgres(server: str) -> Iterator[None]:
    from tests.django.databases import inbox_on, postgres_database

    with (
        database(server) as url,
        _kept("postgres", {}),
        postgres_database("postgres", url, "envoyou_django"),
        inbox_on("postgres"),
    ):
        yield


@contextmanager
def _kept(alias: str, options: dict[str, object]) -> Iterator[None]:
    """The database with these options, its connections kept for as long as their threads live."""
    from django.db import connections

    of_alias = connections.settings[alias]
    before = dict(of_alias)
    of_alias.update(OPTIONS=options, CONN_MAX_AGE=None)
    try:
        yield
    finally:
        of_alias.update(before)
