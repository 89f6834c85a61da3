"""The database is away under load: the sender is asked to try again, and work goes on by itself afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reliability.postgres import OwnPostgres, own_postgres
from tests.reliability.sites import SERVERS, CrashingSite, Platform, crashing_site, outcome
from tests.servers.processes import PATIENCE, wait_for

pytestmark = pytest.mark.slow

REFUSALS = 12
"""Deliveries that are answered 503 before the outage ends."""

HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def live_through(site: CrashingSite, begin: Callable[[], object], end: Callable[[], object], label: str) -> None:
    """Have an outage begin and end while events are delivered to `site`, and see that it did no harm."""
    enough, over = threading.Event(), threading.Event()
    # All that is sent within the outage must get in before its five deliveries are used up.
    platform = Platform(site, senders=6, before_the_last=lambda: over.wait(PATIENCE))

    def refusals() -> int:
        return sum(answer.status == 503 for answer in list(platform.answers))

    site.start()
    with ThreadPoolExecutor(1) as background:
        sending = background.submit(platform.deliver_until, enough)
        try:
            wait_for(lambda: len(platform.acknowledged) > 40, lambda: platform.answers)
            begin()
            try:
                wait_for(lambda: refusals() >= REFUSALS, lambda: platform.answers)
            finally:
                end()
                over.set()
            before = len(platform.acknowledged)
            wait_for(lambda: len(platform.acknowledged) > before + 40, lambda: platform.answers[-50:])
        finally:
            enough.set()
        events = sending.result()
    result = outcome(site, platform.acknowledged)
    print(f"\n{label}: {len(platform.answers)} deliveries of {len(events)} events, {refusals()} answered 503: {result}")
    assert {(answer.status, answer.retry_after) for answer in platform.answers} == {(200, None), (503, "1")}
    assert platform.acknowledged == {event.id for event in events}
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.mark.service
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_postgresql_is_away(outage: str, server: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    begin, end = {"stopped": (postgres.stop, postgres.start), "frozen": (postgres.freeze, postgres.thaw)}[outage]
    with crashing_site(SERVERS[server], tmp_path, postgres.create_database()) as site:
        live_through(site, begin, end, f"{server}, PostgreSQL {outage}")


@pytest.mark.parametrize("server", SERVERS)
def test_sqlite_is_locked_by_another_process(server: str, tmp_path: Path) -> None:
    database = tmp_path / "inbox.db"
    with (
        crashing_site(SERVERS[server], tmp_path, f"sqlite:///{database}") as site,
        holder_of_the_lock(database) as (lock, unlock),
    ):
        live_through(site, lock, unlock, f"{server}, SQLite locked")


@pytest.mark.parametrize("server", SERVERS)
def test_the_disk_is_full(server: str, tmp_path: Path) -> None:
    full = tmp_path / "disk-full"
    with crashing_site(SERVERS[server], tmp_path, f"sqlite:///{tmp_path / 'inbox.db'}") as site:
        live_through(site, full.touch, full.unlink, f"{server}, disk full")


@contextmanager
def holder_of_the_lock(database: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Two functions: one takes SQLite's only write lock in another process, one lets go of it."""
    processes: list[subprocess.Popen[bytes]] = []

    def lock() -> None:
        command = [sys.executable, "-c", HOLD_LOCK, str(database)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert processes[0].stdout.readline() == b"locked\n"

    def unlock() -> None:
        processes[0].communicate(timeout=PATIENCE)

    try:
        yield lock, unlock
    finally:
        for process in processes:
            process.kill()
            process.communicate()
