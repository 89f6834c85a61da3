"""The process is killed at each step of an event: no event is lost, and no transactional effect is doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import services
from tests.reliability.sites import DJANGO_SERVERS, SERVERS, Platform, crashing_site, outcome, users
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

POINTS = [
    "after verify",
    "in the insert",
    "after commit, before the answer",
    "after the answer",
    "after claim",
    "in a handler",
    "in the handler's transaction, after its record",
    "in the handler's transaction that settles",
    "after handler, before settle",
    "in settle",
]
PLAIN_HANDLER_LAST = {"in the handler's transaction, after its record", "after handler, before settle", "in settle"}
SEVERAL_EVENTS_AT_ONCE = {"after claim", "after handler, before settle", "in settle"}
EVENTS = 40
SERVERS_OF_EACH_INBOX = SERVERS | dict([*DJANGO_SERVERS.items()][:1])


def points_of_each_inbox() -> Iterator[tuple[str, str, str]]:
    """Each point on each database, for the inbox of the core and for that of Django, and with each server.

    The servers of the core's inbox share the databases: one of them is killed at a point on SQLite, the other one at
    the same point on PostgreSQL.
    """
    for number, point in enumerate(POINTS):
        databases = ["sqlite", "postgresql"]
        for server in SERVERS:
            databases.reverse()
            yield point, server, databases[number % 2]
        for server in SERVERS_OF_EACH_INBOX.keys() - SERVERS.keys():
            yield from ((point, server, database) for database in databases)


@pytest.mark.parametrize(("point", "server", "inbox_url"), [*points_of_each_inbox()], indirect=["inbox_url"])
def test_killed_at(point: str, server: str, inbox_url: str, tmp_path: Path) -> None:
    check_killed_at(point, server, inbox_url, tmp_path)


@pytest.mark.skipif("fastapi" not in SERVERS, reason="async handlers run on an ASGI server's loop")
@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg"])
@pytest.mark.parametrize("point", ["in a handler", "in the handler's transaction that settles"])
def test_killed_at_in_a_transaction_on_the_loop(
    point: str, driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The transaction of the handler uses the async engine of the application."""
    with ExitStack() as stack:
        if driver.startswith("sqlite"):
            url = f"sqlite:///{tmp_path / 'inbox.db'}"
        else:
            url = stack.enter_context(services.database(request.getfixturevalue("postgres_server")))
        check_killed_at(point, "fastapi", url, tmp_path, ASYNC_DRIVER=driver)


def check_killed_at(point: str, server: str, inbox_url: str, tmp_path: Path, **settings: str) -> None:
    events = users(EVENTS)
    # All events may be claimed and settled together, so that there is one pass only.
    on_pass = 1 if point in SEVERAL_EVENTS_AT_ONCE else EVENTS // 4
    if point in PLAIN_HANDLER_LAST:
        settings["HANDLERS"] = "transactional plain"
    with crashing_site(
        SERVERS_OF_EACH_INBOX[server], tmp_path, inbox_url, crash_at=point, crash_on_pass=on_pass, settings=settings
    ) as site:
        site.start()

        def restart() -> float:
            wait_for(lambda: site.crashed)
            site.kill()
            site.start()
            return time.monotonic()

        with ThreadPoolExecutor(1) as recovery:
            restarting = recovery.submit(restart)
            acknowledged = Platform(site).deliver_all(events)
            restarted_at = restarting.result()
        site.visit()
        result = outcome(site, acknowledged)
        seconds = time.monotonic() - restarted_at
    print(f"\n{server}, {point}: last effect {seconds:.1f} s after the restart: {result}")
    assert len(acknowledged) == EVENTS
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0
