"""The database is down and there is a spool: each delivery is answered 200, and afterwards the database has it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.spool.spool import Spool
from tests.reliability.postgres import OwnPostgres, own_postgres
from tests.reliability.sites import (
    ANY_SERVER,
    SERVERS,
    CrashingSite,
    Outcome,
    Platform,
    crashing_site,
    outcome,
    users,
)
from tests.servers.processes import Server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.service]

WITHIN_THE_OUTAGE = 60
"""Deliveries that are answered before the outage ends."""

POINTS = [
    "after events were taken from the spool",
    "after events were moved, before they left the spool",
    "after events left the spool",
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@contextmanager
def spooling_site(server: Server, folder: Path, inbox_url: str, **fields: object) -> Iterator[CrashingSite]:
    """Set up a site with a spool, without starting it."""
    settings = {"ENVOYOU_SPOOL": f"sqlite:///{folder / 'spool.db'}"}
    with crashing_site(server, folder, inbox_url, settings=settings, **fields) as site:
        yield site


def spooled(site: CrashingSite) -> int:
    """Return how many events are in the spool."""
    with closing(Spool(site.settings["ENVOYOU_SPOOL"])) as spool:
        return spool.stats().total


def check_all_are_handled(site: CrashingSite, platform: Platform, sent: int, label: str) -> Outcome:
    """Check that each delivery was answered 200, and that each event was moved to the database and handled."""
    wait_for(lambda: not spooled(site))
    result = outcome(site, platform.acknowledged)
    slowest = max(answer.seconds for answer in platform.answers)
    print(f"\n{label}: {len(platform.answers)} deliveries of {sent} events, the slowest in {slowest:.2f} s: {result}")
    assert {answer.status for answer in platform.answers} == {200}
    assert len(platform.acknowledged) == sent
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0
    return result


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_postgresql_is_down_and_there_is_a_spool(
    outage: str, server: str, postgres: OwnPostgres, tmp_path: Path
) -> None:
    begin, end = {"stopped": (postgres.stop, postgres.start), "frozen": (postgres.freeze, postgres.thaw)}[outage]
    enough = threading.Event()
    with spooling_site(SERVERS[server], tmp_path, postgres.create_database()) as site, ThreadPoolExecutor(1) as senders:
        platform = Platform(site, senders=6, pause=0.02)
        site.start()
        sending = senders.submit(platform.deliver_until, enough)
        try:
            wait_for(lambda: len(platform.acknowledged) > 40, lambda: platform.answers)
            begin()
            try:
                before = platform.acknowledged
                wait_for(lambda: len(platform.acknowledged - before) >= WITHIN_THE_OUTAGE, lambda: platform.answers)
                meanwhile = platform.acknowledged - before
                waiting = spooled(site)
                ends_at = datetime.now(UTC)
            finally:
                end()
            wait_for(lambda: len(platform.acknowledged - before - meanwhile) > 40, lambda: platform.answers[-50:])
        finally:
            enough.set()
        sent = sending.result()
        check_all_are_handled(site, platform, len(sent), f"{server}, PostgreSQL {outage}, {waiting} spooled")
        with closing(SqlInbox(site.inbox_url)) as inbox:
            received_at = {record.event.id: record.received_at for record in inbox.list(limit=100_000)}
    # Except for deliveries that were in progress when the outage began.
    assert waiting >= WITHIN_THE_OUTAGE - 6
    assert len(received_at) == len(sent)
    assert max(received_at[event_id] for event_id in meanwhile) < ends_at


@pytest.mark.parametrize("server", SERVERS)
def test_killed_during_the_outage(server: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    """The site is killed twice, and restarted while the database is still down."""
    with spooling_site(SERVERS[server], tmp_path, postgres.create_database()) as site:
        platform = Platform(site)
        postgres.stop()
        try:
            for _ in range(2):
                site.start()
                platform.deliver_all(users(20))
                site.kill()
            assert spooled(site) == 40
        finally:
            postgres.start()
        site.start()
        site.visit()
        check_all_are_handled(site, platform, 40, f"{server}, killed during the outage")


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_events_are_moved(point: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    with spooling_site(ANY_SERVER, tmp_path, postgres.create_database(), crash_at=point) as site:
        platform = Platform(site)
        site.start()
        postgres.stop()
        try:
            platform.deliver_all(users(40))
            waiting = spooled(site)
        finally:
            postgres.start()
        wait_for(lambda: site.crashed)
        left = spooled(site)
        site.kill()
        site.start()
        site.visit()
        check_all_are_handled(site, platform, 40, f"{point}: {left} of {waiting} left in the spool")
    assert (left == 0) == (point == POINTS[-1])
