"""Durable acknowledgements per second in Django: group commit, compared with one `create()` for each request.

Both candidates verify each delivery and store its row with the model; each thread keeps its connection.
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
from tests.services import database as postgres_server_database

__all__ = ["comparisons"]

LOCK_TIMEOUT = 60
"""Seconds that `create()` waits for SQLite's write lock, for which all threads compete."""

WAL = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}

Database = Callable[[], Any]
"""A context manager in which the inbox is in an empty database."""


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    _set_up_django()
    return [
        Comparison(
            f"durable acknowledgements per second in Django, {run.requests} concurrent, {name}",
            {
                "create(), single commits": partial(create_each, run, database),
                "group commit": partial(group_commits, run, database),
            },
            [Ratio("group commit", "create(), single commits")],
        )
        for name, database in _databases(run)
    ]


def create_each(run: Run, database: Database) -> Round:
    """Verify each delivery and create its row."""
    from envoyou_django.inbox.inbox import OrmInbox
    from envoyou_django.models import ProcessedEvent
    from envoyou_django.runtime import DjangoWebhooks

    with database():
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


def group_commits(run: Run, database: Database) -> Round:
    """Receive each delivery as a web process does."""
    from envoyou_django.inbox.inbox import OrmInbox
    from envoyou_django.runtime import DjangoWebhooks

    with database():
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

    def acknowledge_share(first: int) -> bool:
        try:
            return all(acknowledge(request) for request in requests[first :: run.requests])
        finally:
            connections.close_all()

    with ThreadPoolExecutor(run.requests) as pool:
        started = time.perf_counter()
        acknowledged = all(pool.map(acknowledge_share, range(run.requests)))
        elapsed = time.perf_counter() - started
    stored: int = webhooks.inbox.stats(exact=True).total
    if not acknowledged or stored != run.events:
        raise MeasurementError("not every delivery was acknowledged and stored")
    return Round(done=stored, rate=run.events / elapsed)


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


def _databases(run: Run) -> Iterator[tuple[str, Database]]:
    yield "SQLite with the defaults of Django", partial(_on_sqlite, {})
    yield "SQLite in WAL mode", partial(_on_sqlite, WAL)
    if run.postgres is not None:
        yield "PostgreSQL", partial(_on_postgres, run.postgres)


@contextmanager
def _on_sqlite(options: dict[str, object]) -> Iterator[None]:
    from tests.django.databases import sqlite_database

    with (
        tempfile.TemporaryDirectory() as folder,
        _persistent("default", {"timeout": LOCK_TIMEOUT, **options}),
        sqlite_database("default", Path(folder, "project.db"), "envoyou_django"),
    ):
        yield


@contextmanager
def _on_postgres(server: str) -> Iterator[None]:
    from tests.django.databases import inbox_on, postgres_database

    with (
        postgres_server_database(server) as url,
        _persistent("postgres", {}),
        postgres_database("postgres", url, "envoyou_django"),
        inbox_on("postgres"),
    ):
        yield


@contextmanager
def _persistent(alias: str, options: dict[str, object]) -> Iterator[None]:
    """Set the options of the database and keep its connections open as long as their threads live."""
    from django.db import connections

    configuration = connections.settings[alias]
    before = dict(configuration)
    configuration.update(OPTIONS=options, CONN_MAX_AGE=None)
    try:
        yield
    finally:
        configuration.update(before)
