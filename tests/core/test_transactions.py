"""Handlers that share the transaction which records them as done: their work there happens exactly once."""

import sqlite3
import threading
import time

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
def webhooks(url, engine, clock, request):
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


def test_sqlite_takes_the_lock_away_from_a_handler_that_sleeps(tmp_path):
    """A handler that has written and then waits keeps every writer out; acceptance must outlast it."""
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
