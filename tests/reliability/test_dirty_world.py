"""Servers in surroundings that are not clean: deploys, connection limits, serializable transactions, restarts, locks.

Each run prints what was acknowledged, lost, doubled, and dead although no handler failed. A dead event counts as lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.reliability.postgres import OwnPostgres, own_postgres
from tests.reliability.sites import (
    DJANGO_SERVERS,
    LEASE,
    SERVERS,
    CrashingSite,
    InboxTable,
    Platform,
    crashing_site,
    outcome,
    worker_process,
)
from tests.reliability.test_outages import write_lock
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

OF_EACH_FRAMEWORK = SERVERS | dict([*DJANGO_SERVERS.items()][:1])

ENOUGH = 40
"""Events that are acknowledged before and after each disturbance."""


def check_disturbance(site: CrashingSite, disturb: Callable[[Platform], object], label: str) -> None:
    """Call `disturb` while events are delivered to `site`, and check that no event was lost, doubled or given up."""
    enough = threading.Event()
    platform = Platform(site, senders=4, pause=0.01)
    site.start()
    with ThreadPoolExecutor(1) as background:
        sending = background.submit(platform.deliver_until, enough)
        try:
            acknowledge_more(platform)
            disturb(platform)
            acknowledge_more(platform)
        finally:
            enough.set()
        sending.result()
    site.visit()
    result = outcome(site, platform.acknowledged)
    with closing(InboxTable(site)) as inbox:
        dead, taken_over = inbox.dead(), inbox.taken_over()
    print(f"\n{label}: {result}, {len(dead)} dead though no handler failed, {taken_over} taken over")
    assert not dead
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0


def acknowledge_more(platform: Platform) -> None:
    before = len(platform.acknowledged)
    wait_for(lambda: len(platform.acknowledged) >= before + ENOUGH, lambda: platform.answers[-50:])


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.mark.parametrize("server", OF_EACH_FRAMEWORK)
def test_workers_that_know_one_handler_each_come_and_go(server: str, inbox_url: str, tmp_path: Path) -> None:
    with crashing_site(OF_EACH_FRAMEWORK[server], tmp_path, inbox_url) as site:

        def deploy(platform: Platform) -> None:
            # Killed at the end of the block. What has begun must be finished elsewhere.
            with worker_process(site, "plain", HANDLERS="plain"):
                acknowledge_more(platform)
            with worker_process(site, "transactional", HANDLERS="transactional"):
                acknowledge_more(platform)

        check_disturbance(site, deploy, f"{server}, deploys on {inbox_url.partition(':')[0]}")


@pytest.mark.service
@pytest.mark.parametrize("server", OF_EACH_FRAMEWORK)
def test_postgresql_with_few_connections_and_serializable_transactions(
    server: str, postgres: OwnPostgres, tmp_path: Path
) -> None:
    role = postgres.create_role(connections=40)
    database = postgres.create_database(owner=role)
    postgres.execute(f"ALTER ROLE {role} SET default_transaction_isolation = 'serializable'")
    with crashing_site(OF_EACH_FRAMEWORK[server], tmp_path, database) as site:

        def few_connections(platform: Platform) -> None:
            postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 4")
            # From now on the server refuses all but four of them.
            postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
            acknowledge_more(platform)
            postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 40")

        check_disturbance(site, few_connections, f"{server}, serializable, few connections")


@pytest.mark.service
@pytest.mark.parametrize("server", OF_EACH_FRAMEWORK)
def test_postgresql_restarts_under_load(server: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    with crashing_site(OF_EACH_FRAMEWORK[server], tmp_path, postgres.create_database()) as site:

        def restart(_: Platform) -> None:
            postgres.stop()
            # Longer than a lease: what the server holds must not count as a crash.
            time.sleep(2 * LEASE)
            postgres.start()

        check_disturbance(site, restart, f"{server}, PostgreSQL restarts")


@pytest.mark.parametrize("server", OF_EACH_FRAMEWORK)
def test_another_writer_holds_the_lock_of_sqlite(server: str, tmp_path: Path) -> None:
    database = tmp_path / "inbox.db"
    with (
        # A single attempt: if the lock counted as a failure of the handler, the event would be dead.
        crashing_site(
            OF_EACH_FRAMEWORK[server],
            tmp_path,
            f"sqlite:///{database}",
            settings={"ENVOYOU_RETRY_MAX_ATTEMPTS": "1", "TRANSACTIONAL_SECONDS": "0.01"},
        ) as site,
        write_lock(database) as (lock, unlock),
    ):

        def hold_the_lock(platform: Platform) -> None:
            lock()
            try:
                # Until the server itself has waited for the lock in vain.
                wait_for(lambda: any(answer.status == 503 for answer in platform.answers), lambda: platform.answers)
            finally:
                unlock()

        check_disturbance(site, hold_the_lock, f"{server}, SQLite locked by another process")
