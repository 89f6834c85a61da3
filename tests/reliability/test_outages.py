"""The database is down under load: deliveries are answered 503, and work resumes automatically afterwards."""

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


def check_outage(site: CrashingSite, begin: Callable[[], object], end: Callable[[], object], label: str) -> None:
    """Begin and end an outage while events are delivered to `site`, and check that no event was lost or doubled."""
    enough, over = threading.Event(), threading.Event()
    # Each event that is sent during the outage must be accepted within its five deliveries.
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
def test_postgresql_is_down(outage: str, server: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    begin, end = {"stopped": (postgres.stop, postgres.start), "frozen": (postgres.freeze, postgres.thaw)}[outage]
    with crashing_site(SERVERS[server], tmp_path, postgres.create_database()) as site:
        check_outage(site, begin, end, f"{server}, PostgreSQL {outage}")


@pytest.mark.parametrize("server", SERVERS)
def test_sqlite_is_locked_by_another_process(server: str, tmp_path: Path) -> None:
    database = tmp_path / "inbox.db"
    with (
        crashing_site(SERVERS[server], tmp_path, f"sqlite:///{database}") as site,
        write_lock(database) as (lock, unlock),
    ):
        check_outage(site, lock, unlock, f"{server}, SQLite locked")


@pytest.mark.parametrize("server", SERVERS)
def test_the_disk_is_full(server: str, tmp_path: Path) -> None:
    full = tmp_path / "disk-full"
    with crashing_site(SERVERS[server], tmp_path, f"sqlite:///{tmp_path / 'inbox.db'}") as site:
        check_outage(site, full.touch, full.unlink, f"{server}, disk full")


@contextmanager
def write_lock(database: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Two functions: one takes the write lock of SQLite in another process, one releases it."""
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
