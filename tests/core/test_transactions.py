"""Handlers that share the transaction which records them as done: their work there happens exactly once."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from envoyou_core import (
    ConfigurationError,
    PermanentError,
    RetryPolicy,
    TransactionTimeoutError,
    WebhookRequest,
    Webhooks,
    WouldDeadlockError,
)
from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.inbox.deadlines import time_limit
from envoyou_core.inbox.sql import engines, inbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/inbox.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def engine(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS effects"))
        connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255), handler VARCHAR(255))"))
    yield engine
    engine.dispose()


@pytest.fixture
def effects(engine):
    def read() -> list[str]:
        with engine.connect() as connection:
            return sorted(connection.scalars(text("SELECT handler FROM effects")))

    return read


@pytest.fixture
def webhooks(url, engine, clock, request, monkeypatch):
    # A busy machine may need longer than a second. Tests of the limit set their own.
    monkeypatch.setattr("envoyou_core.inbox.sql.inbox.TRANSACTION_LIMIT", 60)
    inbox = SqlInbox(url, name=request.node.name[:64], clock=clock)
    inbox.migrate()
    yield Webhooks(
        secret=SECRET, inbox=inbox, name=inbox.name, handoff="manual", clock=clock, retry=RetryPolicy(initial_delay=1)
    )
    inbox.close()


def write(connection, event, handler):
    connection.execute(text("INSERT INTO effects VALUES (:id, :handler)"), {"id": event.id, "handler": handler})


def accept(webhooks, clock, event=None):
    event = event or sample_event()
    delivery = sign_delivery(event, secret=SECRET, timestamp=int(clock.now))
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200, response
    return event


def test_the_work_and_its_record_are_committed_together(webhooks, clock, effects):
    recorded = []

    @webhooks.on("*", name="once")
    def once(event, connection):
        write(connection, event, "once")
        recorded.append(webhooks.inbox.get(event.id).progress)

    @webhooks.on("*", name="after")
    def after(event):
        recorded.append(webhooks.inbox.get(event.id).progress)

    event = accept(webhooks, clock)
    assert webhooks.drain() == 1
    assert effects() == ["once"]
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED
    assert recorded == [{}, {"once": "done"}]


def test_what_a_failing_handler_did_is_rolled_back_and_done_once_by_the_retry(webhooks, clock, effects):
    @webhooks.on("*", name="flaky")
    def flaky(event, connection, attempt):
        write(connection, event, f"flaky {attempt}")
        if attempt == 1:
            raise ValueError("not yet")

    @webhooks.on("*", name="steady")
    def steady(event, connection):
        write(connection, event, "steady")

    event = accept(webhooks, clock)
    webhooks.drain()
    assert effects() == ["steady"]
    assert webhooks.inbox.get(event.id).status is Status.FAILED
    clock.now += 1
    webhooks.drain()
    assert effects() == ["flaky 2", "steady"]
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED


def test_an_exception_of_a_context_at_its_exit_rolls_back_the_work(webhooks, clock, effects):
    @webhooks.around_handler
    def break_once(event, handler, attempt):
        yield
        if attempt == 1:
            raise ValueError("not yet")

    @webhooks.on("*", name="enclosed")
    def enclosed(event, connection, attempt):
        write(connection, event, f"enclosed {attempt}")

    event = accept(webhooks, clock)
    webhooks.drain()
    assert (webhooks.inbox.get(event.id).status, effects()) == (Status.FAILED, [])
    clock.now += 1
    webhooks.drain()
    assert (webhooks.inbox.get(event.id).status, effects()) == (Status.PROCESSED, ["enclosed 2"])


def test_giving_up_rolls_back_and_leaves_the_others_work(webhooks, clock, effects):
    @webhooks.on("*", name="hopeless")
    def hopeless(event, connection):
        write(connection, event, "hopeless")
        raise PermanentError("never")

    @webhooks.on("*", name="steady")
    def steady(event, connection):
        write(connection, event, "steady")

    event = accept(webhooks, clock)
    webhooks.drain()
    assert effects() == ["steady"]
    assert webhooks.inbox.get(event.id).status is Status.DEAD
    assert webhooks.inbox.get(event.id).progress == {"hopeless": "given_up", "steady": "done"}


def test_a_worker_that_lost_its_lease_undoes_its_work(webhooks, url, clock, effects, caplog):
    """A worker that was suspended for longer than its lease wakes up beside the one that took over."""

    @webhooks.on("*", name="slow")
    def slow(event, connection):
        raise AssertionError("claimed by hand below")

    event = accept(webhooks, clock)
    inbox, other = webhooks.inbox, SqlInbox(url, name=webhooks.name, clock=clock)
    (late,) = inbox.claim(1, lease=60)
    clock.now += 61
    (current,) = other.claim(1, lease=60)
    with pytest.raises(LeaseLostError), inbox.transaction(late, {"slow": "done"}) as connection:
        write(connection, event, "late")
    assert effects() == []
    with other.transaction(current, {"slow": "done"}) as connection:
        write(connection, event, "current")
    assert effects() == ["current"]
    other.close()


def test_a_lease_that_is_lost_meanwhile_ends_the_attempt(webhooks, url, clock, effects, caplog):
    thief = SqlInbox(url, name=webhooks.name, clock=clock)
    ran = []

    @webhooks.on("*", name="robbed")
    def robbed(event):
        clock.now += 3600
        assert len(thief.claim(1, lease=60)) == 1

    @webhooks.on("*", name="next")
    def following(event, connection):
        ran.append(event.id)

    accept(webhooks, clock)
    webhooks.drain()
    assert ran == []
    assert "passed to another worker" in caplog.text
    thief.close()


def test_a_plain_function_that_returns_a_coroutine_is_rolled_back(webhooks, clock, effects):
    async def later():
        """Would be awaited by nobody."""

    @webhooks.on("*", name="mistaken")
    def mistaken(event, connection):
        write(connection, event, "mistaken")
        return later()

    event = accept(webhooks, clock)
    webhooks.drain()
    assert effects() == []
    assert "async def" in webhooks.inbox.get(event.id).last_error


def test_sqlite_takes_the_lock_away_from_a_handler_that_sleeps(tmp_path, monkeypatch):
    """A handler that has written and then waits keeps every writer out; acceptance must outlast it."""
    # On a busy machine the handler may write late, and the answer may come late.
    monkeypatch.setattr(inbox, "TRANSACTION_LIMIT", 4)
    monkeypatch.setattr(engines, "CONNECT_TIMEOUT", 30)
    monkeypatch.setattr("envoyou_core.reception.receiver.ANSWER_BUDGET", 30)
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", retry=RetryPolicy(max_attempts=1))
    webhooks.inbox.open()
    engine = create_engine(f"sqlite:///{tmp_path}/inbox.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (event_id TEXT, handler TEXT)"))
    engine.dispose()
    holding, release = threading.Event(), threading.Event()
    failed = threading.Event()

    @webhooks.on("user.created")
    def sleeps(event, connection):
        write(connection, event, "before")
        holding.set()
        release.wait(30)
        try:
            write(connection, event, "after")
        except DatabaseError:
            failed.set()

    try:
        first = sign_delivery(sample_event(), secret=SECRET)
        assert webhooks.receive(WebhookRequest.from_http("POST", first.headers, first.body)).status == 200
        assert holding.wait(30)
        second = sign_delivery(sample_event("auth.login"), secret=SECRET)
        assert webhooks.receive(WebhookRequest.from_http("POST", second.headers, second.body)).status == 200
        release.set()
        assert failed.wait(30)
    finally:
        release.set()
        webhooks.stop()
    (outcome,) = webhooks.inbox.list(type="user.created")
    assert outcome.status is Status.DEAD
    assert "rolled back" in outcome.last_error
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT handler FROM effects")).all() == []
    engine.dispose()
    webhooks.inbox.close()


def test_handlers_that_wait_for_sqlites_lock_lose_no_attempt_and_keep_nobody_out(tmp_path, monkeypatch, until):
    """Together they hold it for longer than anybody waits for it."""
    monkeypatch.setattr(engines, "CONNECT_TIMEOUT", 2)
    # How long each may take is not what this is about.
    monkeypatch.setattr(inbox, "TRANSACTION_LIMIT", 60)
    webhooks = Webhooks(
        secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", retry=RetryPolicy(max_attempts=1), handoff="manual"
    )
    attempts = []

    @webhooks.on("user.created")
    def slow(event, connection):
        attempts.append(event.id)
        time.sleep(0.4)

    events = [sample_event() for _ in range(6)]
    for event in events:
        webhooks.inbox.add(NewEvent(event)).result(20)
    worker = threading.Thread(target=webhooks.run_worker)
    worker.start()
    try:
        until(lambda: attempts)
        for _ in range(4):
            assert webhooks.inbox.add(NewEvent(sample_event("auth.login"))).result(20) is Added.NEW
        until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == len(events))
    finally:
        webhooks.stop(0)
        worker.join(20)
    assert sorted(attempts) == sorted(event.id for event in events)
    webhooks.inbox.close()


def test_a_time_limit_outlives_a_connection_that_was_closed_meanwhile():
    def over():
        over.times += 1
        ended.set()

    def outlast(connection, *, closes):
        with time_limit(connection, 0.05, over):
            if closes:
                connection.close()
            assert ended.wait(20)

    over.times = 0
    for closes in (True, False):
        ended = threading.Event()
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransactionTimeoutError):
            outlast(connection, closes=closes)
    assert over.times == 2
    # It can be used again.
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


def test_a_connection_is_refused_where_there_is_none_to_give(tmp_path):
    durable = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db")
    with pytest.raises(ConfigurationError, match="async"):

        @durable.on("*")
        async def asynchronous(event, connection): ...

    memory = Webhooks(secret=SECRET, inbox="memory:")
    with pytest.raises(ConfigurationError, match="this inbox has no transactions"):

        @memory.on("*")
        def plain(event, connection): ...


# Calls of the inbox within a handler's transaction


def test_a_handler_may_erase_the_object_of_its_own_event(webhooks, clock, effects):
    @webhooks.on("user.deleted", name="forget")
    def forget(event, connection):
        write(connection, event, "forget")
        assert webhooks.inbox.erase(event.object_id) == 2

    @webhooks.on("user.deleted", name="after")
    def after(event, connection):
        write(connection, event, "after")

    created, deleted = sample_event("user.created"), sample_event("user.deleted")
    assert created.object_id == deleted.object_id
    for event in (created, deleted):
        accept(webhooks, clock, event)
    assert webhooks.drain() == 2
    assert effects() == ["after", "forget"]
    for event, status in ((created, Status.IGNORED), (deleted, Status.PROCESSED)):
        record = webhooks.inbox.get(event.id)
        assert (record.status, record.attempts) == (status, 1 if event is deleted else 0)
        assert (record.scrubbed_at is not None, record.event.data.object) == (True, {})


def test_what_a_handler_changes_in_the_inbox_holds_and_its_next_calls_see_it(webhooks, clock, effects):
    """Every call that changes something, among them those that open several transactions of their own."""
    webhooks.on("other.type")(lambda event: None)
    old = accept(webhooks, clock)
    assert webhooks.drain() == 1
    clock.now += 60
    seen = []

    @webhooks.on("api.quota_exceeded", name="tidy")
    def tidy(event, connection):
        write(connection, event, "before")
        inbox = webhooks.inbox
        assert inbox.requeue(status="ignored") == 1
        seen.append(inbox.get(old.id).status)
        webhooks.pause(type="user.*")
        seen.append(webhooks.paused)
        webhooks.resume(type="user.*")
        seen.append(webhooks.paused)
        assert inbox.scrub(timedelta(0)) == inbox.prune(timedelta(0)) == 0
        assert inbox.prune_watermarks(timedelta(0)) == 0
        write(connection, event, "then")

    accept(webhooks, clock, sample_event("api.quota_exceeded"))
    webhooks.pause(type="user.*")
    # The event that was requeued is settled, too.
    assert webhooks.drain() == 2
    assert seen == [Status.RECEIVED, frozenset({"type:user.*"}), frozenset()]
    assert effects() == ["before", "then"]


ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""Only SQLite has a single write lock."""


@ON_SQLITE
def test_on_sqlite_it_is_undone_with_the_handler_that_fails(webhooks, clock, effects):
    @webhooks.on("user.deleted", name="forget")
    def forget(event, connection, attempt):
        webhooks.inbox.erase(event.object_id)
        with pytest.raises(ValueError, match="name an event"):
            webhooks.inbox.requeue()
        write(connection, event, f"attempt {attempt}")
        if attempt == 1:
            raise RuntimeError("not yet")

    event = accept(webhooks, clock, sample_event("user.deleted"))
    webhooks.drain()
    record = webhooks.inbox.get(event.id)
    assert (record.status, record.last_error) == (Status.FAILED, "RuntimeError: not yet")
    clock.now += 1
    webhooks.drain()
    record = webhooks.inbox.get(event.id)
    assert (record.status, record.event.data.object) == (Status.PROCESSED, {})
    assert effects() == ["attempt 2"]


@ON_SQLITE
def test_on_sqlite_a_call_that_would_wait_for_its_own_handler_fails_at_once(webhooks, clock, effects):
    errors = []
    beside = SqlInbox(webhooks.inbox.location, name="beside", clock=clock)

    def fails(call):
        with pytest.raises(WouldDeadlockError, match="atomic=False"):
            call()
        errors.append(call)

    @webhooks.on("*", name="busy")
    def busy(event, connection):
        # A thread with the handler's context, as `asyncio.to_thread` starts one.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(copy_context().run, fails, lambda: webhooks.inbox.erase("user_1")).result(20)
            seen = threads.submit(copy_context().run, webhooks.inbox.get, event.id).result(20)
        assert seen.status is Status.PROCESSING
        with pytest.raises(WouldDeadlockError), webhooks.inbox.transaction(None, {}):
            pass
        # Another inbox in the same file has the same lock.
        beside.pause("type:*")
        write(connection, event, "busy")

    event = accept(webhooks, clock)
    assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED
    assert len(errors) == 1
    assert beside.paused() == {"type:*"}
    assert effects() == ["busy"]
    beside.close()


@ON_SQLITE
def test_a_context_that_outlives_its_handler_shares_no_transaction(webhooks, clock):
    contexts = []

    @webhooks.on("*")
    def leaves(event, connection):
        contexts.append(copy_context())

    event = accept(webhooks, clock)
    webhooks.drain()
    assert contexts[0].run(webhooks.inbox.erase, event.object_id) == 1
    assert webhooks.inbox.get(event.id).event.data.object == {}
