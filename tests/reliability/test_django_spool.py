"""Django with a spool: while the database is down, each delivery is accepted; afterwards, each is handled once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from envoyou_core.spool.spool import Spool
from tests.adapters import chosen
from tests.reliability.postgres import OwnPostgres, own_postgres
from tests.reliability.sites import CrashingSite, Platform
from tests.servers.processes import Server, gunicorn, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.skipif("django" not in chosen(), reason="this run does not test Django"),
]

WITHIN_THE_OUTAGE = 30
"""Deliveries that are answered before the outage ends."""

SERVER: Server = gunicorn("django_app:application", "--worker-class=gthread", "--threads=4", setup=["django_app"])


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@contextmanager
def running_site(folder: Path, database: str) -> Iterator[CrashingSite]:
    settings = {"ENVOYOU_SPOOL": f"sqlite:///{folder / 'spool.db'}"}
    site = CrashingSite(SERVER, folder, inbox_url=database, settings=settings)
    site.set_up()
    run(database, "CREATE TABLE effects (event_id VARCHAR(255))")
    site.start()
    try:
        yield site
    finally:
        site.close()


def run(database: str, statement: str) -> list[tuple[str, ...]]:
    engine = create_engine(database)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def spooled(site: CrashingSite) -> int:
    with closing(Spool(site.settings["ENVOYOU_SPOOL"])) as spool:
        return spool.stats().total


@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_the_database_of_the_project_is_down(outage: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    begin, end = {"stopped": (postgres.stop, postgres.start), "frozen": (postgres.freeze, postgres.thaw)}[outage]
    database = postgres.create_database()
    enough = threading.Event()
    with running_site(tmp_path, database) as site, ThreadPoolExecutor(1) as senders:
        platform = Platform(site, senders=4, pause=0.02)
        sending = senders.submit(platform.deliver_until, enough)
        try:
            wait_for(lambda: len(platform.acknowledged) > 20, lambda: platform.answers)
            begin()
            try:
                before = len(platform.acknowledged)
                wait_for(
                    lambda: len(platform.acknowledged) >= before + WITHIN_THE_OUTAGE, lambda: platform.answers[-20:]
                )
                waiting = spooled(site)
            finally:
                end()
            wait_for(lambda: not spooled(site), lambda: platform.answers[-20:])
        finally:
            enough.set()
        sent = {event.id for event in sending.result()}
        # Events that were accepted after that may have been spooled as well.
        wait_for(lambda: not spooled(site))
        unfinished = "SELECT event_id FROM envoyou_processed_event WHERE status <> 'processed'"
        wait_for(lambda: not run(database, unfinished), lambda: run(database, unfinished))
        stored = [event_id for (event_id,) in run(database, "SELECT event_id FROM envoyou_processed_event")]
        effects = Counter(event_id for (event_id,) in run(database, "SELECT event_id FROM effects"))
    slowest = max(answer.seconds for answer in platform.answers)
    print(
        f"\ndjango, PostgreSQL {outage}: {len(sent)} events, {waiting} spooled, the slowest answer in {slowest:.2f} s"
    )
    assert {answer.status for answer in platform.answers} == {200}
    assert sorted(stored) == sorted(sent)
    assert effects == Counter(dict.fromkeys(sent, 1))
    # Except for deliveries that were in progress when the outage began.
    assert waiting >= WITHIN_THE_OUTAGE - 4
