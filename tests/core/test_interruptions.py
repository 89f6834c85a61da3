"""Attempts that the database interrupts: they are not counted, and the handler is not blamed."""

import itertools
import logging

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from envoyou_core import RetryPolicy, Webhooks
from envoyou_core.inbox import HandlerStatus, NewEvent, Status
from envoyou_core.inbox.async_sql import AsyncSqlInbox
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import DatabaseFailed, HandlerFailed, Settled
from envoyou_core.steps import run
from envoyou_core.testing import sample_event
from envoyou_core.worker.backoff import MAX_DELAY, OutageBackoff
from tests.core.test_engine import App, TransactionalInbox

PATIENCE = 20
ONCE = RetryPolicy(max_attempts=1)


def lost():
    return OperationalError("SELECT 1", {}, Exception("the connection was lost"), connection_invalidated=True)


class FailingInbox(TransactionalInbox):
    """Its transactions cannot be opened until `is_down` is false."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.is_down = True

    def responds(self):
        return not self.is_down

    def transaction(self, claim, progress, settlement=None):
        if self.is_down:
            raise lost()
        return super().transaction(claim, progress, settlement)


@pytest.fixture(params=["drain", "adrain", "worker in a thread", "worker on a loop"])
def make_app(request, clock):
    return lambda inbox, **settings: App(request.param, clock, inbox=inbox, **settings)


def test_an_outage_costs_no_attempt_and_keeps_the_progress(make_app, clock, caplog):
    app = make_app(FailingInbox(clock=clock), retry=ONCE)
    calls = []
    app.on("*", name="plain")(lambda event: calls.append("plain"))

    @app.on("*", name="shares")
    def shares(event, connection):
        calls.append("shares")

    app.add()
    for _ in range(8):
        app.work()
        record = app.record()
        assert (record.status, record.attempts, record.history) == (Status.RECEIVED, 0, ())
        assert record.progress == {"plain": HandlerStatus.DONE}
        assert "the connection was lost" in record.last_error
        clock.advance(MAX_DELAY)
    assert app.notices_of(Settled) == app.notices_of(HandlerFailed) == []
    assert "handler shares failed" not in caplog.text
    assert {(notice.handler, notice.interruption) for notice in app.notices_of(DatabaseFailed)} == {("shares", None)}
    app.inbox.is_down = False
    app.work()
    assert calls == ["plain", "shares"]
    assert (app.status(), app.record().attempts, app.record().last_error) == (Status.PROCESSED, 1, None)


def test_interruptions_have_a_limit_of_their_own_and_then_fail(make_app, clock):
    """A handler that loses its connection each time must not run for ever."""
    app = make_app(MemoryInbox(clock=clock), retry=RetryPolicy(max_attempts=2, max_interruptions=3, initial_delay=0))
    calls = []

    @app.on("*", name="loses")
    def loses(event, attempt):
        calls.append(attempt)
        raise lost()

    app.add()
    delays = []
    while app.status() is not Status.DEAD:
        app.work()
        if app.record().next_attempt_at is not None:
            delays.append((app.record().next_attempt_at - clock.moment()).total_seconds())
        clock.advance(MAX_DELAY)
    assert calls == [1, 1, 1, 1, 2]
    assert delays[:3] == [1, 2, 4]
    assert [attempt.status for attempt in app.record().history] == ["interrupted"] * 3 + ["failed", "dead"]
    assert [notice.interruption for notice in app.notices_of(DatabaseFailed)] == [1, 2, 3]
    assert app.record().crashes == 0
    app.inbox.requeue("evt_1")
    app.work()
    assert app.notices_of(DatabaseFailed)[-1].interruption == 1


def test_an_attempt_with_a_failed_handler_is_not_counted_either(make_app, clock):
    app = make_app(FailingInbox(clock=clock), retry=ONCE)

    @app.on("*", name="fails")
    def fails(event):
        raise ValueError("no")

    app.on("*", name="shares")(lambda event, connection: None)
    app.add()
    app.work()
    assert (app.status(), app.record().attempts) == (Status.RECEIVED, 0)
    app.inbox.is_down = False
    clock.advance(MAX_DELAY)
    app.work()
    assert (app.status(), app.record().progress) == (Status.DEAD, {"shares": HandlerStatus.DONE})


def test_a_transaction_that_cannot_be_opened_for_another_reason_is_limited(make_app, clock):
    inbox = FailingInbox(clock=clock)
    inbox.responds = lambda: True
    inbox.transaction = lambda *_: (_ for _ in ()).throw(ZeroDivisionError())
    app = make_app(inbox, retry=RetryPolicy(max_attempts=1, max_interruptions=1))
    app.on("*", name="shares")(lambda event, connection: None)
    app.add()
    app.work()
    assert app.status() is Status.RECEIVED
    clock.advance(MAX_DELAY)
    app.work()
    assert app.status() is Status.DEAD


# Databases


@pytest.fixture(params=["postgresql", "mariadb"])
def server_inbox(request, clock, sql_inboxes):
    name = "postgres_inbox_url" if request.param == "postgresql" else "mariadb_inbox_url"
    return sql_inboxes(request.getfixturevalue(name), clock)


def manual(inbox, clock, **policy):
    retry = RetryPolicy(max_attempts=1, initial_delay=0, **policy)
    return Webhooks(secret="s", inbox=inbox, handoff="manual", clock=clock, retry=retry)


def add(inbox):
    event = sample_event()
    inbox.add(NewEvent(event)).result(PATIENCE)
    return event


def test_a_handler_whose_connection_is_lost_is_interrupted(server_inbox, clock, caplog):
    webhooks = manual(server_inbox, clock)
    end = "KILL CONNECTION_ID()"
    if server_inbox._dialect == "postgresql":
        end = "SELECT pg_terminate_backend(pg_backend_pid())"
    attempts = itertools.count()

    @webhooks.on("*", name="loses")
    def loses(event, connection):
        if next(attempts) == 0:
            connection.exec_driver_sql(end)

    event = add(server_inbox)
    with caplog.at_level(logging.INFO, logger="envoyou"):
        assert webhooks.drain() == 0
    assert "handler loses failed" not in caplog.text
    assert server_inbox.location in caplog.text
    assert server_inbox.get(event.id).attempts == 0
    clock.advance(1)
    assert webhooks.drain() == 1
    assert server_inbox.get(event.id).status is Status.PROCESSED


def test_an_integrity_error_at_the_commit_is_the_handlers_failure(postgres_inbox_url, clock, sql_inboxes):
    inbox = sql_inboxes(postgres_inbox_url, clock)
    webhooks = manual(inbox, clock)
    with inbox._engine.begin() as connection:
        connection.execute(text("CREATE TABLE words (word TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED)"))

    @webhooks.on("*", name="repeats")
    def repeats(event, connection):
        connection.execute(text("INSERT INTO words VALUES ('a'), ('a')"))

    event = add(inbox)
    assert webhooks.drain() == 1
    assert inbox.get(event.id).status is Status.DEAD
    assert "IntegrityError" in inbox.get(event.id).last_error


def test_a_swallowed_error_that_aborts_the_transaction_is_the_handlers_failure(postgres_inbox_url, clock, sql_inboxes):
    inbox = sql_inboxes(postgres_inbox_url, clock)
    webhooks = manual(inbox, clock)

    @webhooks.on("*", name="swallows")
    def swallows(event, connection):
        with pytest.raises(Exception, match="division by zero"):
            connection.execute(text("SELECT 1 / 0"))

    event = add(inbox)
    assert webhooks.drain() == 1
    assert inbox.get(event.id).status is Status.DEAD


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_serialization_failure_interrupts(postgres_inbox_url, clock, driver):
    statement = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"
    attempts = itertools.count()
    # Each drain has an event loop of its own, which connections must not outlive.
    engine = create_async_engine(postgres_inbox_url, poolclass=NullPool)
    inbox = SqlInbox(postgres_inbox_url, clock=clock) if driver == "sync" else AsyncSqlInbox(engine, clock=clock)
    webhooks = manual(inbox, clock)

    if driver == "sync":

        @webhooks.on("*", name="conflicts")
        def conflicts(event, connection):
            if next(attempts) == 0:
                connection.exec_driver_sql(statement)

    else:

        @webhooks.on("*", name="conflicts")
        async def conflicts_on_the_loop(event, connection):
            if next(attempts) == 0:
                await connection.exec_driver_sql(statement)

    event = add(inbox)
    assert webhooks.drain() == 0
    assert [attempt.status for attempt in inbox.get(event.id).history] == ["interrupted"]
    clock.advance(1)
    assert webhooks.drain() == 1
    assert inbox.get(event.id).status is Status.PROCESSED
    inbox.close()


def test_a_locked_sqlite_file_costs_no_attempt(tmp_path, clock, sql_inboxes):
    inbox = sql_inboxes(f"sqlite:///{tmp_path}/inbox.db?timeout=0", clock)
    webhooks = manual(inbox, clock)
    webhooks.on("*", name="writes")(lambda event, connection: None)
    event = add(inbox)
    engine = webhooks._engine
    (claim,) = engine.claim(1)
    attempt = engine.new_attempt(claim)
    other = SqlInbox(f"sqlite:///{tmp_path}/inbox.db")
    with other._engine.begin():
        run(engine.run_handlers(attempt))
    other.close()
    assert engine.settle(claim, attempt.settlement)
    assert (inbox.get(event.id).status, inbox.get(event.id).attempts) == (Status.RECEIVED, 0)
    assert inbox.get(event.id).last_error.endswith("database is locked")
    clock.advance(1)
    assert webhooks.drain() == 1


# The delay of an outage


def test_the_delay_grows_with_the_length_of_the_outage_and_not_with_the_number_of_events():
    now = [0.0]
    backoff = OutageBackoff(clock=lambda: now[0])
    assert [backoff.next() for _ in range(5)] == [1.0] * 5
    delays = []
    for _ in range(9):
        now[0] += backoff.next()
        delays.append(backoff.next())
    assert delays == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
    backoff.reset()
    assert backoff.next() == 1.0
