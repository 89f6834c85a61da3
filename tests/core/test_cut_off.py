"""Attempts that are cancelled or interrupted: no work is lost, and none is done twice."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import create_engine, text

from envoyou_core import RetryPolicy, Webhooks
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.observability import Settled, WorkerFailed
from envoyou_core.testing import sample_event
from envoyou_core.worker.threads import DaemonThreads
from envoyou_core.worker.worker import Worker
from tests.core.conftest import pause_until

PATIENCE = 20
SECRET = "whsec_test"


@asynccontextmanager
async def working(webhooks):
    worker = Worker(webhooks._engine, name=webhooks.name, kind="test", concurrency=2)
    task = asyncio.create_task(worker.run())
    try:
        yield worker, task
    finally:
        task.cancel()
        await asyncio.wait([task])


def accept(webhooks, **fields):
    event = sample_event(**fields)
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    return event


# Stopping


@pytest.fixture
def durable(tmp_path):
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/inbox.db", handoff="manual")
    webhooks.inbox.open()
    engine = create_engine(f"sqlite:///{tmp_path}/inbox.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (event_id TEXT)"))
    webhooks.effects = lambda: _effects(engine)
    yield webhooks
    webhooks.inbox.close()
    engine.dispose()


def _effects(engine):
    with engine.connect() as connection:
        return connection.scalars(text("SELECT event_id FROM effects")).all()


async def test_handler_that_commits_during_a_cancellation_runs_once(durable):
    """The task is cancelled after the thread has finished and before it has received the result."""
    ran = []
    loop = asyncio.get_running_loop()

    @durable.on("*", name="store")
    def store(event, connection):
        # This reaches the loop before the result of the thread does.
        loop.call_soon_threadsafe(cut_off)
        connection.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    def cut_off():
        pause_until(lambda: durable.effects() and not worker._handler_threads._busy)
        task.cancel()

    @durable.on("*", name="later")
    async def later(event):
        await asyncio.sleep(0)  # a cancellation takes effect here
        ran.append(event.id)

    event = accept(durable)
    async with asyncio.timeout(PATIENCE), working(durable) as (worker, task):
        await asyncio.wait([task])
        await asyncio.to_thread(pause_until, lambda: durable.inbox.get(event.id).status is Status.RECEIVED)
    assert durable.inbox.get(event.id).progress == {"store": "done"}
    await durable.adrain()
    assert durable.effects() == [event.id]
    assert ran == [event.id]


async def test_attempt_cancelled_before_its_commit_is_known_is_not_returned(durable, monkeypatch):
    """The answer to the commit was lost, and the worker stops while it checks whether the commit happened."""
    asked, answer = threading.Event(), threading.Event()
    transaction = durable.inbox.transaction

    class CommittedAndLost:
        def __init__(self, *arguments):
            self.transaction = transaction(*arguments)

        def __enter__(self):
            return self.transaction.__enter__()

        def __exit__(self, *error):
            self.transaction.__exit__(*error)
            raise ConnectionError("lost before the answer")

    def slow_get(event_id, *, tenant=None):
        asked.set()
        answer.wait(PATIENCE)
        return get(event_id, tenant=tenant)

    get = durable.inbox.get
    monkeypatch.setattr(durable.inbox, "transaction", CommittedAndLost)

    @durable.on("*", name="store")
    def store(event, connection):
        connection.execute(text("INSERT INTO effects VALUES (:id)"), {"id": event.id})

    @durable.on("*", name="later")
    async def later(event): ...

    event = accept(durable)
    with monkeypatch.context() as slowly:
        slowly.setattr(durable.inbox, "get", slow_get)
        async with asyncio.timeout(PATIENCE), working(durable) as (_, task):
            await asyncio.to_thread(asked.wait, PATIENCE)
            task.cancel()
            await asyncio.sleep(0.01)
            answer.set()
            await asyncio.wait([task])
    record = durable.inbox.get(event.id)
    assert (record.status, record.progress) == (Status.PROCESSING, {"store": "done"})


async def test_unresponsive_database_does_not_keep_a_worker_from_stopping(monkeypatch):
    webhooks = Webhooks(secret=SECRET, name="silent", inbox="memory:", handoff="manual")
    webhooks.on("*")(lambda event: None)
    asked, answer = threading.Event(), threading.Event()
    claim = webhooks.inbox.claim

    def slow_claim(*arguments):
        asked.set()
        answer.wait(2 * PATIENCE)
        return claim(*arguments)

    monkeypatch.setattr(webhooks.inbox, "claim", slow_claim)
    event = accept(webhooks)
    async with working(webhooks) as (worker, task):
        await asyncio.to_thread(asked.wait, PATIENCE)
        worker.stop(0)
        async with asyncio.timeout(PATIENCE):
            await task
    assert webhooks.inbox.get(event.id).status is Status.RECEIVED
    answer.set()
    # The event was claimed after all, and is returned to the inbox.
    pause_until(lambda: not _threads("envoyou-inbox-silent"))
    record = webhooks.inbox.get(event.id)
    assert (record.status, record.crashes) == (Status.RECEIVED, 0)


# Draining


async def test_cancelled_drain_drops_its_claim(make_short):
    webhooks = make_short()
    entered = asyncio.Event()
    ran = []

    @webhooks.on("*")
    async def handler(event):
        ran.append(event.id)
        entered.set()
        if len(ran) == 1:
            await asyncio.Event().wait()

    event = accept(webhooks)
    draining = asyncio.create_task(webhooks.adrain())
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
        draining.cancel()
        await asyncio.wait([draining])
        await asyncio.to_thread(pause_until, _no_lease_is_kept)
    webhooks.time_passes(61)
    assert await webhooks.adrain() == 1
    assert ran == [event.id, event.id]


async def test_cancelled_drain_renews_the_lease_while_its_thread_runs(make_short):
    webhooks = make_short()
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("*")
    def handler(event):
        entered.set()
        release.wait(PATIENCE)

    accept(webhooks)
    draining = asyncio.create_task(webhooks.adrain())
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(entered.wait, PATIENCE)
        draining.cancel()
        await asyncio.wait([draining])
        assert not _no_lease_is_kept()
        release.set()
        await asyncio.to_thread(pause_until, _no_lease_is_kept)


@pytest.fixture
def make_short():
    def make():
        now = [1_700_000_000.0]
        webhooks = Webhooks(secret=SECRET, name="short", inbox="memory:", handoff="manual", clock=lambda: now[0])
        webhooks.time_passes = lambda seconds: now.__setitem__(0, now[0] + seconds)
        return webhooks

    return make


def _no_lease_is_kept():
    return not _threads("envoyou-leases-short")


def _threads(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


# Exceptions that are not derived from `Exception`


class Cancelled(BaseException):
    """A `BaseException`, as the timeouts of gevent and eventlet are."""


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_handler_that_raises_a_base_exception_has_failed(kind):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))
    if kind == "sync":

        @webhooks.on("*")
        def handler(event):
            raise Cancelled

    else:

        @webhooks.on("*")
        async def handler(event):
            raise Cancelled

    told = []
    webhooks.subscribe(lambda notice: told.append(notice) if isinstance(notice, Settled) else None)
    events = [accept(webhooks) for _ in range(5)]
    async with asyncio.timeout(PATIENCE), working(webhooks):
        await asyncio.to_thread(pause_until, lambda: len(told) == len(events))
    assert {webhooks.inbox.get(event.id).status for event in events} == {Status.DEAD}
    assert "Cancelled" in webhooks.inbox.get(events[0].id).last_error


# Threads that cannot be started


class NoThread(threading.Thread):
    """A thread that cannot start: the process has too many, or Python 3.12 is shutting down."""

    refused = ""

    def start(self):
        if self.refused and self.name.startswith(self.refused):
            raise RuntimeError("can't start new thread")
        super().start()


@pytest.fixture
def refuse(monkeypatch):
    """Refuse to start threads whose names have a prefix."""
    monkeypatch.setattr(threading, "Thread", NoThread)

    def refuse(prefix):
        monkeypatch.setattr(NoThread, "refused", prefix)

    return refuse


@pytest.fixture
def working_here():
    webhooks = Webhooks(secret=SECRET, name="threadless", inbox="memory:")
    webhooks.on("*")(lambda event: None)
    webhooks.failures = []
    webhooks.subscribe(lambda notice: webhooks.failures.append(notice) if isinstance(notice, WorkerFailed) else None)
    yield webhooks
    webhooks.stop(timeout=0)


@pytest.mark.parametrize("thread", ["envoyou-worker", "envoyou-leases", "envoyou-settler", "envoyou-handler"])
def test_a_worker_that_could_not_be_started_is_started_with_the_next_event(refuse, thread, working_here, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    refuse(thread)
    first = accept(working_here)
    working_here.wake()
    pause_until(lambda: not _threads("envoyou-worker-threadless"))
    refuse("")
    accept(working_here)
    working_here.wake()
    pause_until(lambda: working_here.inbox.get(first.id).status is Status.PROCESSED)


def test_a_worker_that_has_no_thread_for_the_inbox_tries_again(refuse, working_here):
    refuse("envoyou-inbox-threadless")
    event = accept(working_here)
    working_here.wake()
    pause_until(lambda: working_here.failures)
    refuse("")
    pause_until(lambda: working_here.inbox.get(event.id).status is Status.PROCESSED)


def test_running_threads_take_over_if_no_more_can_be_started(refuse):
    threads = DaemonThreads(4, "few")
    threads.start()
    refuse("few")
    calls = [threads.submit(threading.get_ident) for _ in range(3)]
    assert len({call.result(PATIENCE) for call in calls}) == 1
    threads.close()


def test_submit_raises_if_no_thread_can_be_started(refuse):
    threads = DaemonThreads(4, "none")
    refuse("none")
    with pytest.raises(RuntimeError, match="can't start"):
        threads.submit(print)
    refuse("")
    assert threads.submit(lambda: "works").result(PATIENCE) == "works"
    threads.close()
