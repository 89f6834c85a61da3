"""A database that refuses connections or is locked: no handler is blamed, and no attempt is counted."""

import contextlib
import sqlite3
import time

import psycopg
import pytest
from django.db import InterfaceError, OperationalError, connections
from django.test import override_settings
from sqlalchemy import make_url

from envoyou_core.inbox import NewEvent, Status
from envoyou_core.inbox.database_errors import is_database_failure
from envoyou_core.observability import DatabaseFailed, HandlerFailed, Settled
from envoyou_core.steps import run
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.models import EVENTS
from tests import services
from tests.django.conftest import SECRET
from tests.django.databases import inbox_on, postgres_database, sqlite_database

PATIENCE = 60
ALIAS = "postgres"


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def add(count=1):
    events = [sample_event("shop.opened") for _ in range(count)]
    for event in events:
        webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    return events


@pytest.fixture
def role(postgres_server):
    """The name of a role that may have few connections."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        name = f"envoyou_{time.time_ns()}"
        connection.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 5")
        yield name
        connection.execute(f"DROP ROLE {name}")


@pytest.fixture
def crowded(role, postgres_server, django_db_setup, django_db_blocker):
    """The inbox in a PostgreSQL database of that role, which has a table `effects`."""
    with (
        services.database(postgres_server) as url,
        django_db_blocker.unblock(),
        postgres_database(ALIAS, url, "envoyou_django"),
        inbox_on(ALIAS),
        override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "RETRY_MAX_ATTEMPTS": 1, "CONCURRENCY": 8}),
    ):
        plain_url = make_url(url).set(drivername="postgresql").render_as_string(False)
        with psycopg.connect(plain_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE effects (event_id TEXT)")
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
            connections[ALIAS].close()
            connections.settings[ALIAS]["USER"] = role
            yield connection
            webhooks.stop()
            webhooks.inbox.close()
            connections[ALIAS].close()


def test_handlers_that_get_no_connection_lose_no_attempt(crowded, caplog):
    notices = []
    webhooks.subscribe(notices.append)

    @webhooks.on("shop.opened", name="pays")
    def pays(event):
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("INSERT INTO effects VALUES (%s)", [event.id])
            cursor.execute("SELECT pg_sleep(0.05)")

    events = add(24)
    connections[ALIAS].close()
    webhooks.start()
    wait_until(lambda: statuses(crowded) <= {"processed", "dead"})
    assert statuses(crowded) == {"processed"}
    assert sorted(id for (id,) in crowded.execute("SELECT event_id FROM effects")) == sorted(e.id for e in events)
    assert any(isinstance(notice, DatabaseFailed) for notice in notices)
    assert not any(isinstance(notice, HandlerFailed) for notice in notices)
    assert "handler pays failed" not in caplog.text


def statuses(connection):
    return {status for (status,) in connection.execute(f"SELECT DISTINCT status FROM {EVENTS}")}


def test_a_locked_sqlite_file_costs_no_attempt(tmp_path, django_db_blocker, clock, monkeypatch):
    monkeypatch.setitem(connections.settings["contract"], "OPTIONS", {"timeout": 0})
    settings = {"WEBHOOK_SECRET": SECRET, "RETRY_MAX_ATTEMPTS": 1, "CLOCK": clock, "HANDOFF": "manual"}
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "project.db"),
        inbox_on("contract"),
        override_settings(ENVOYOU=settings),
    ):
        notices = []
        webhooks.subscribe(notices.append)
        calls = []
        webhooks.on("shop.opened", name="pays")(calls.append)
        (event,) = add()
        engine = webhooks.setup()._engine
        (claim,) = engine.claim(1)
        attempt = engine.new_attempt(claim)
        with contextlib.closing(sqlite3.connect(tmp_path / "project.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            run(engine.run_handlers(attempt))
        assert engine.settle(claim, attempt.settlement)
        assert (webhooks.inbox.get(event.id).status, calls) == (Status.RECEIVED, [])
        assert [type(notice) for notice in notices] == [DatabaseFailed]
        clock.advance(1)
        assert webhooks.drain() == 1
        assert [notice.status for notice in notices if isinstance(notice, Settled)] == [Status.PROCESSED]


@pytest.mark.parametrize(("statement", "is_failure"), [("BEGIN IMMEDIATE", True), ("SELECT * FROM missing", False)])
def test_an_error_of_django_counts_if_that_of_the_driver_does(tmp_path, statement, is_failure):
    path = tmp_path / "file.db"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as waiter,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            waiter.execute(statement)
    error = OperationalError(str(caught.value))
    error.__cause__ = caught.value
    assert is_database_failure(error, in_inbox=True) is is_failure


def test_djangos_own_error_of_a_closed_connection_counts():
    assert is_database_failure(InterfaceError("connection already closed"))
    assert not is_database_failure(InterfaceError("the cursor is closed"))
