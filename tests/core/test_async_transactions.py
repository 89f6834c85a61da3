"""Async handlers that share the transaction which records them as done, over the application's own async engine."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.event import listens_for
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.util import await_only

from envoyou_core import (
    ConfigurationError,
    PermanentError,
    RetryPolicy,
    WebhookRequest,
    Webhooks,
    WouldDeadlockError,
)
from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import AsyncTransactionalInbox, HandlerStatus, Settlement, Status, TransactionalInbox
from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox, sync_url
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker.worker import Worker

SECRET = "whsec_test"
DONE = {"handler": HandlerStatus.DONE}
PATIENCE = 20
"""Seconds."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(
    params=[
        "sqlite+aiosqlite",
        *(pytest.param(f"postgresql+{driver}", marks=pytest.mark.service) for driver in ("asyncpg", "psycopg")),
    ]
)
def url(request, tmp_path):
    if request.param.startswith("sqlite"):
        return make_url(f"{request.param}:///{tmp_path}/app.db")
    return make_url(request.getfixturevalue("postgres_url")).set(drivername=request.param)


@pytest.fixture
async def engine(url):
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS effects"))
        await connection.execute(text("CREATE TABLE effects (event_id VARCHAR(255), handler VARCHAR(255))"))
    yield engine
    await engine.dispose()


@pytest.fixture
def effects(engine):
    async def read() -> list[str]:
        async with engine.connect() as connection:
            return sorted(await connection.scalars(text("SELECT handler FROM effects")))

    return read


@pytest.fixture
def inbox(engine, clock):
    inbox = AsyncSqlInbox(engine, name=uuid.uuid4().hex, clock=clock)
    inbox.migrate()
    yield inbox
    inbox.close()


@pytest.fixture
def webhooks(inbox, clock):
    return Webhooks(
        secret=SECRET, inbox=inbox, name=inbox.name, handoff="manual", clock=clock, retry=RetryPolicy(initial_delay=1)
    )


INSERT = text("INSERT INTO effects VALUES (:id, :handler)")


async def write(connection, event, handler):
    await connection.execute(INSERT, {"id": event.id, "handler": handler})


async def accept(webhooks, clock, event=None):
    event = event or sample_event()
    delivery = sign_delivery(event, secret=SECRET, timestamp=int(clock.now))
    response = await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200, response
    return event


def test_it_has_transactions_of_both_kinds(inbox):
    assert isinstance(inbox, AsyncTransactionalInbox)
    assert isinstance(inbox, TransactionalInbox)


async def test_the_work_and_its_record_are_committed_together(webhooks, clock, effects):
    recorded = []

    @webhooks.on("*", name="once")
    async def once(event, connection):
        await write(connection, event, "once")
        recorded.append((webhooks.inbox.get(event.id).progress, await effects()))

    @webhooks.on("*", name="after")
    async def after(event):
        recorded.append((webhooks.inbox.get(event.id).progress, await effects()))

    event = await accept(webhooks, clock)
    assert await webhooks.adrain() == 1
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED
    assert recorded == [({}, []), ({"once": "done"}, ["once"])]


async def test_the_last_handlers_transaction_settles_the_event(webhooks, clock, effects, monkeypatch):
    """Nothing is left to be done after it: a crash there can have it done again no more."""

    @webhooks.on("*", name="only")
    async def only(event, connection):
        await write(connection, event, "only")

    event = await accept(webhooks, clock)
    monkeypatch.setattr(webhooks.inbox, "settle", None)
    monkeypatch.setattr(webhooks.inbox, "record", None)
    assert await webhooks.adrain() == 1
    record = webhooks.inbox.get(event.id)
    assert (record.status, record.attempts, record.progress) == (Status.PROCESSED, 1, {"only": "done"})
    assert await effects() == ["only"]


async def test_an_exception_of_a_context_at_its_exit_rolls_back_the_work(webhooks, clock, effects):
    @webhooks.around_handler
    async def break_once(event, handler, attempt):
        yield
        if attempt == 1:
            raise ValueError("not yet")

    @webhooks.on("*", name="enclosed")
    async def enclosed(event, connection, attempt):
        await write(connection, event, f"enclosed {attempt}")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert (webhooks.inbox.get(event.id).status, await effects()) == (Status.FAILED, [])
    clock.now += 1
    await webhooks.adrain()
    assert (webhooks.inbox.get(event.id).status, await effects()) == (Status.PROCESSED, ["enclosed 2"])


async def test_what_a_failing_handler_did_is_rolled_back_and_done_once_by_the_retry(webhooks, clock, effects):
    @webhooks.on("*", name="flaky")
    async def flaky(event, connection, attempt):
        await write(connection, event, f"flaky {attempt}")
        if attempt == 1:
            raise ValueError("not yet")

    @webhooks.on("*", name="steady")
    async def steady(event, connection):
        await write(connection, event, "steady")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == ["steady"]
    assert webhooks.inbox.get(event.id).status is Status.FAILED
    clock.now += 1
    await webhooks.adrain()
    assert await effects() == ["flaky 2", "steady"]
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED


async def test_giving_up_rolls_back_and_leaves_the_others_work(webhooks, clock, effects):
    @webhooks.on("*", name="hopeless")
    async def hopeless(event, connection):
        await write(connection, event, "hopeless")
        raise PermanentError("never")

    @webhooks.on("*", name="steady")
    async def steady(event, connection):
        await write(connection, event, "steady")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == ["steady"]
    assert webhooks.inbox.get(event.id).status is Status.DEAD
    assert webhooks.inbox.get(event.id).progress == {"hopeless": "given_up", "steady": "done"}


async def test_sync_handlers_share_transactions_too(webhooks, clock, effects):
    @webhooks.on("*", name="sync")
    def sync(event, connection):
        connection.execute(INSERT, {"id": event.id, "handler": "sync"})

    @webhooks.on("*", name="async")
    async def async_(event, connection):
        await write(connection, event, "async")

    await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == ["async", "sync"]


async def test_a_call_of_the_inbox_fails_at_once_if_it_would_wait_for_its_own_handler(webhooks, inbox, clock, effects):
    """On SQLite. On a server it is committed at once, and the attempt ends as usual."""

    @webhooks.on("user.deleted", name="forget")
    async def forget(event, connection):
        await write(connection, event, "forget")
        if inbox.remote:
            assert await asyncio.to_thread(inbox.erase, event.object_id) == 1
            return
        with pytest.raises(WouldDeadlockError, match="without connection"):
            await asyncio.to_thread(inbox.erase, event.object_id)
        with pytest.raises(WouldDeadlockError):
            inbox.pause("type:*")
        assert inbox.paused() == frozenset()

    @webhooks.on("user.deleted", name="outside")
    def outside(event):
        assert inbox.erase(event.object_id) == (0 if inbox.remote else 1)

    event = await accept(webhooks, clock, sample_event("user.deleted"))
    assert await webhooks.adrain() == 1
    assert await effects() == ["forget"]
    record = inbox.get(event.id)
    assert (record.status, record.event.data.object) == (Status.PROCESSED, {})


@pytest.mark.parametrize(
    "settlement", [None, lambda: Settlement(Status.PROCESSED, 1, DONE)], ids=["records", "settles"]
)
async def test_a_worker_that_lost_its_lease_undoes_its_work(webhooks, inbox, url, clock, effects, settlement):
    event = await accept(webhooks, clock)
    other = SqlInbox(sync_url(url), name=inbox.name, clock=clock)
    (late,) = inbox.claim(1, lease=60)
    clock.now += 61
    (current,) = other.claim(1, lease=60)
    with pytest.raises(LeaseLostError):
        async with inbox.async_transaction(late, DONE, settlement) as given:
            await write(given["connection"], event, "late")
    assert await effects() == []
    async with inbox.async_transaction(current, DONE, settlement) as given:
        await write(given["connection"], event, "current")
    assert await effects() == ["current"]
    other.close()


async def test_a_handler_may_take_a_session(webhooks, clock, effects):
    @webhooks.on("*", name="flushes")
    async def flushes(event, session):
        assert isinstance(session, AsyncSession)
        await session.execute(INSERT, {"id": event.id, "handler": "flushes"})

    @webhooks.on("*", name="commits")
    async def commits(event, *, session, connection):
        await session.execute(INSERT, {"id": event.id, "handler": "commits"})
        await session.commit()
        await session.execute(INSERT, {"id": event.id, "handler": "undone"})
        await session.rollback()
        await write(connection, event, "on its connection")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert webhooks.inbox.get(event.id).last_error is None
    assert await effects() == ["commits", "flushes", "on its connection"]


async def test_what_a_session_has_committed_is_undone_with_the_rest(webhooks, clock, effects):
    @webhooks.on("*")
    async def fails(event, session):
        await session.execute(INSERT, {"id": event.id, "handler": "fails"})
        await session.commit()
        raise ValueError("after all")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == []
    assert webhooks.inbox.get(event.id).status is Status.FAILED


async def test_a_handler_cannot_commit_the_transaction_by_itself(webhooks, clock, effects):
    @webhooks.on("*")
    async def commits(event, connection):
        await write(connection, event, "early")
        await connection.rollback()
        await write(connection, event, "late")

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == []
    assert "closed transaction" in webhooks.inbox.get(event.id).last_error


async def test_a_time_limit_undoes_what_was_begun(webhooks, clock, effects):
    @webhooks.on("*", time_limit=0.05)
    async def endless(event, connection):
        await write(connection, event, "endless")
        await asyncio.Event().wait()

    event = await accept(webhooks, clock)
    await webhooks.adrain()
    assert await effects() == []
    assert "HandlerTimeoutError" in webhooks.inbox.get(event.id).last_error


@pytest.mark.parametrize("last", [True, False], ids=["settles", "records"])
async def test_a_cancellation_that_meets_the_commit_waits_for_it(
    webhooks, inbox, clock, effects, monkeypatch, until, last
):
    """Else nobody could say whether the work was done, and what is noted of it might be overwritten."""
    ending, go_on = asyncio.Event(), asyncio.Event()
    end = inbox._end_transaction

    def slow_end(connection, **what):
        end(connection, **what)
        ending.set()
        await_only(go_on.wait())

    monkeypatch.setattr(inbox, "_end_transaction", slow_end)
    ran = []

    @webhooks.on("*", name="handler")
    async def handler(event, connection):
        ran.append("handler")
        await write(connection, event, "handler")

    if not last:

        @webhooks.on("*", name="next")
        async def following(event):
            await asyncio.sleep(0)  # the cancellation takes effect here
            ran.append("next")

    event = await accept(webhooks, clock)
    async with webhooks_worker(webhooks) as worker, asyncio.timeout(PATIENCE):
        await ending.wait()
        worker.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([worker])
        await asyncio.to_thread(until, lambda: inbox.get(event.id).status is not Status.PROCESSING)
    assert await effects() == ["handler"]
    record = inbox.get(event.id)
    assert record.progress == {"handler": "done"}
    assert record.status is (Status.PROCESSED if last else Status.RECEIVED)
    await webhooks.adrain()
    assert ran == (["handler"] if last else ["handler", "next"])
    assert await effects() == ["handler"]


@asynccontextmanager
async def webhooks_worker(webhooks):
    worker = Worker(webhooks._engine, name=webhooks.name, kind="test", concurrency=1)
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_sqlite_takes_the_lock_away_from_a_handler_that_waits(tmp_path, clock, until):
    """Acceptance must outlast it."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    webhooks = Webhooks(secret=SECRET, inbox=AsyncSqlInbox(engine), clock=clock, retry=RetryPolicy(max_attempts=1))
    holding = asyncio.Event()

    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE effects (event_id TEXT, handler TEXT)"))

    @webhooks.on("user.created")
    async def waits(event, connection):
        await write(connection, event, "before")
        holding.set()
        await asyncio.Event().wait()

    async with webhooks.lifespan(), asyncio.timeout(PATIENCE):
        event = await accept(webhooks, clock)
        await holding.wait()
        await accept(webhooks, clock, sample_event("auth.login"))
        await asyncio.to_thread(until, lambda: webhooks.inbox.get(event.id).status is Status.DEAD)
    assert "rolled back" in webhooks.inbox.get(event.id).last_error
    async with engine.connect() as connection:
        assert (await connection.scalars(text("SELECT handler FROM effects"))).all() == []
    webhooks.inbox.close()
    await engine.dispose()


@pytest.mark.parametrize("by_itself", [False, True], ids=["", "as the engine would by itself"])
async def test_on_sqlite_one_transaction_sees_what_the_other_has_written(tmp_path, clock, by_itself):
    """It begins as a writer: what it has read cannot have changed when it writes."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    if by_itself:
        listens_for(engine.sync_engine, "begin")(lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    webhooks = Webhooks(secret=SECRET, inbox=AsyncSqlInbox(engine), handoff="manual", clock=clock)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE effects (event_id TEXT, handler TEXT)"))
    for _ in range(2):
        await accept(webhooks, clock)
    seen = []

    async def count_and_write(claim):
        async with webhooks.inbox.async_transaction(claim, DONE) as given:
            connection = given["connection"]
            seen.append(await connection.scalar(text("SELECT count(*) FROM effects")))
            await asyncio.sleep(0.05)
            await write(connection, claim.event, "counts")

    await asyncio.gather(*map(count_and_write, webhooks.inbox.claim(2, 60)))
    assert seen == [0, 1]
    webhooks.inbox.close()
    await engine.dispose()


# What is refused


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite+aiosqlite:///app.db", "sqlite:///app.db"),
        ("postgresql+asyncpg://me:secret@db:5433/app", "postgresql+psycopg://me:secret@db:5433/app"),
        ("postgresql+asyncpg://db/app?ssl=require", "postgresql+psycopg://db/app?sslmode=require"),
        ("postgresql+asyncpg://me@/app?host=/run/postgresql", "postgresql+psycopg://me@/app?host=/run/postgresql"),
        ("postgresql+psycopg://db/app?sslmode=require", "postgresql+psycopg://db/app?sslmode=require"),
        ("postgresql+psycopg_async://db/app", "postgresql+psycopg://db/app"),
        (
            "postgresql+asyncpg://db/app?prepared_statement_cache_size=0&sslmode=require",
            "postgresql+psycopg://db/app?sslmode=require",
        ),
        ("sqlite+aiosqlite:///app.db?timeout=5", "sqlite:///app.db?timeout=5"),
        ("mariadb+aiomysql://db/app", "mariadb+pymysql://db/app"),
        ("mysql+aiomysql://db/app?charset=utf8mb4", "mariadb+pymysql://db/app?charset=utf8mb4"),
    ],
)
def test_the_inbox_finds_the_engines_database(url, expected):
    assert sync_url(make_url(url)) == make_url(expected)


def test_options_that_only_the_engines_driver_understands_are_not_guessed_at(clock):
    engine = create_async_engine("postgresql+asyncpg://db/app?command_timeout=5")
    with pytest.raises(ConfigurationError, match=r"command_timeout.*url='postgresql"):
        AsyncSqlInbox(engine)
    AsyncSqlInbox(engine, url="postgresql+psycopg://db/app").close()


def test_a_url_for_an_async_driver_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ConfigurationError, match=r"aiosqlite is async.*AsyncSqlInbox"):
        Webhooks(secret=SECRET, inbox=f"sqlite+aiosqlite:///{tmp_path}/app.db")


def test_a_session_that_the_inbox_does_not_have_must_be_provided(tmp_path, inbox, webhooks):
    durable = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db")

    @durable.on("*")
    async def asynchronous(event, session): ...

    webhooks.on("*", name="plain")(lambda event, session: None)
    for receiver in (durable, webhooks):
        with pytest.raises(ConfigurationError, match=r"'session', which nothing provides.*AsyncSqlInbox"):
            receiver.drain()
        receiver.provide("session", lambda: "a session")
        assert receiver.drain() == 0
    durable.inbox.close()
