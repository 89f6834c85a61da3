"""Sites under load that crash, senders that retry as the platform does, and the one invariant of it all."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from envoyou_core import Event
from envoyou_core.inbox import FINISHED, Status
from envoyou_core.inbox.sql import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from tests.servers.processes import PATH, SECRET, Server, Site, gunicorn, uvicorn, wait_for

APPS = Path(__file__).parent / "apps"
SENDER_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each of the platform's five attempts to deliver."""

SERVERS = {
    "flask": gunicorn("flask_app:app", "--worker-class=gthread", "--threads=4"),
    "fastapi": uvicorn("fastapi_app:app"),
}


@dataclass(slots=True)
class CrashingSite(Site):
    """A site over any inbox, whose process ends at a named point."""

    inbox_url: str = ""
    crash_at: str = ""
    crash_on_pass: int = 1
    settings: dict[str, str] = field(default_factory=dict)

    def _surroundings(self) -> dict[str, Any]:
        ours = {
            "EFFECTS_FOLDER": str(self.folder),
            "ENVOYOU_WEBHOOK_SECRET": SECRET,
            "ENVOYOU_INBOX": self.inbox_url,
            "ENVOYOU_LEASE": "1",
            "CRASH_AT": self.crash_at,
            "CRASH_ON_PASS": str(self.crash_on_pass),
            **self.settings,
        }
        return {"cwd": APPS, "env": {**os.environ, **ours}}

    @property
    def crashed(self) -> bool:
        """Whether the crash point has fired."""
        return (self.folder / "crashed").exists()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: the sender's own log against the database.

    Attributes:
        acknowledged: the ids of the events that were answered 200.
        lost: those of them that were not processed; a dead one counts as lost.
        doubled: rows of the transactional effect beyond one for each event.
        unfinished: events still in processing or waiting when all should have been done.
        repeated: how often a plain handler ran again.
    """

    acknowledged: frozenset[str]
    lost: frozenset[str]
    doubled: int
    unfinished: int
    repeated: int

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.lost)} lost, {self.doubled} doubled, "
            f"{self.unfinished} unfinished, {self.repeated} plain handler runs repeated"
        )


@contextmanager
def crashing_site(server: Server, folder: Path, inbox_url: str, **fields: Any) -> Iterator[CrashingSite]:
    """A site that was set up but not started, until the block ends."""
    inbox = SqlInbox(inbox_url)
    inbox.migrate()
    inbox.close()
    engine = create_engine(inbox_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255))"))
    engine.dispose()
    site = CrashingSite(server, folder, inbox_url=inbox_url, **fields)
    try:
        yield site
    finally:
        site.close()


def send(site: Site, events: Sequence[Event], *, senders: int = 4) -> frozenset[str]:
    """Deliver `events`, each until it is answered 200, as the platform does; returns the ids of those that were."""

    def deliver(event: Event) -> str | None:
        for delay in SENDER_DELAYS:
            time.sleep(delay)
            if post(site, event) == 200:
                return event.id
        return None

    with ThreadPoolExecutor(senders) as pool:
        return frozenset(event_id for event_id in pool.map(deliver, events) if event_id is not None)


def post(site: Site, event: Event) -> int | None:
    """One delivery: the status that was read, or `None` where the connection broke first."""
    delivery = sign_delivery(event, secret=SECRET)
    connection = http.client.HTTPConnection(*site.address, timeout=10)
    try:
        connection.request("POST", PATH, delivery.body, delivery.headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def users(count: int) -> list[Event]:
    return [sample_event("user.created") for _ in range(count)]


def outcome(site: CrashingSite, acknowledged: frozenset[str]) -> Outcome:
    """Wait until nothing is left to do, then hold the sender's log against the database."""
    inbox = SqlInbox(site.inbox_url)
    engine = create_engine(site.inbox_url)
    try:
        wait_for(
            lambda: sum(count for status, count in inbox.stats().by_status.items() if status not in FINISHED) == 0,
            lambda: inbox.stats(),
        )
        stats = inbox.stats()
        processed = {record.event.id for record in inbox.list(status=Status.PROCESSED, limit=100_000)}
        with engine.connect() as connection:
            rows = connection.scalars(text("SELECT event_id FROM effects")).all()
    finally:
        engine.dispose()
        inbox.close()
    file = site.folder / "effects"
    lines = file.read_text().split() if file.exists() else []
    return Outcome(
        acknowledged=acknowledged,
        lost=acknowledged - processed | acknowledged - set(rows) | acknowledged - set(lines),
        doubled=len(rows) - len(set(rows)),
        unfinished=sum(count for status, count in stats.by_status.items() if status not in FINISHED),
        repeated=len(lines) - len(set(lines)),
    )
