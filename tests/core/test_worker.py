"""The worker inside the application's process: on its event loop or in a thread."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from contextvars import ContextVar

import pytest

from envoyou_core import ConfigurationError, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import ANY, NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.rows import EPOCH
from envoyou_core.observability import HandlerOverdue, NoHandlers, WorkerFailed, WorkerStarted, WorkerStopped
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import backoff, maintenance, prefetch
from envoyou_core.worker import worker as worker_module
from envoyou_core.worker.threads import DaemonThreads
from tests.core.conftest import pause_until

PATIENCE = 20
SECRET = "whsec_test"
LEFT_BEHIND = ContextVar("left_behind", default="nothing")


@pytest.fixture
def make_webhooks():
    made = []

    def make(inbox="memory:", **settings):
        webhooks = Webhooks(secret=SECRET, inbox=inbox, **settings)
        webhooks.notices = []
        webhooks.subscribe(webhooks.notices.append)
        made.append(webhooks)
        return webhooks

    yield make
    for webhooks in made:
        webhooks.stop(timeout=0)


@pytest.fixture
def webhooks(make_webhooks):
    return make_webhooks()


def add(webhooks, id="evt_1", type="user.created"):
    webhooks.inbox.add(NewEvent(sample_event(type, id=id))).result(PATIENCE)


def request(id="evt_1"):
    delivery = sign_delivery(sample_event(id=id), secret=SECRET)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


def status(webhooks, id="evt_1"):
    return webhooks.inbox.get(id).status


def notices_of(webhooks, kind):
    return [notice for notice in webhooks.notices if isinstance(notice, kind)]


def threads_named(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


async def async_until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.005)


# Starting


def test_it_starts_with_the_first_event_that_is_accepted(webhooks):
    done = threading.Event()
    webhooks.on("*")(lambda event: done.set())
    assert notices_of(webhooks, WorkerStarted) == []
    assert webhooks.receive(request()).status == 200
    assert done.wait(PATIENCE)
    assert [(notice.kind, notice.inbox) for notice in notices_of(webhooks, WorkerStarted)] == [("thread", "memory:")]


def test_accepting_on_a_loop_starts_it_on_that_loop(webhooks):
    threads = []

    @webhooks.on("*")
    async def handler(event):
        threads.append(threading.get_ident())

    async def main():
        assert (await webhooks.areceive(request())).status == 200
        await async_until(lambda: threads)
        await webhooks._handoff.astop()

    asyncio.run(main())
    assert threads == [threading.get_ident()]
    assert [(notice.kind, notice.inbox) for notice in notices_of(webhooks, WorkerStarted)] == [
        ("event loop", "memory:")
    ]


def test_a_lifespan_starts_it_and_sync_handlers_stay_off_the_loop(webhooks):
    threads = []
    webhooks.on("*")(lambda event: threads.append(threading.get_ident()))

    async def main():
        add(webhooks)
        async with webhooks.lifespan():
            await async_until(lambda: threads)

    asyncio.run(main())
    assert threads != [threading.get_ident()]
    assert status(webhooks) is Status.PROCESSED


def test_starting_is_idempotent(webhooks):
    webhooks.on("*")(lambda event: None)
    for _ in range(3):
        webhooks.start()
        webhooks.wake()
    assert len(notices_of(webhooks, WorkerStarted)) <= 1
    pause_until(lambda: notices_of(webhooks, WorkerStarted))
    assert len(threads_named("envoyou-worker-default")) == 1


def test_many_threads_at_once_start_one_worker(webhooks):
    webhooks.on("*")(lambda event: None)
    start = threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (start.wait(PATIENCE), webhooks.start())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    add(webhooks)
    webhooks.wake()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert len(notices_of(webhooks, WorkerStarted)) == 1


def test_constructing_webhooks_starts_no_thread():
    # Not their number: a thread of an earlier test may end meanwhile.
    before = set(threading.enumerate())
    webhooks = Webhooks(secret=SECRET, inbox="memory:")
    webhooks.on("*")(lambda event: None)
    webhooks.stop()
    assert set(threading.enumerate()) <= before


def test_without_handlers_events_are_stored_and_that_is_reported_once(webhooks, monkeypatch):
    polls = []
    poll = worker_module.Worker._poll

    def counted_poll(*arguments):
        answer = poll(*arguments)
        polls.append(answer)
        return answer

    monkeypatch.setattr(worker_module.Worker, "_poll", counted_poll)
    for id in ("evt_1", "evt_2"):
        assert webhooks.receive(request(id)).status == 200
    before = len(polls)
    pause_until(lambda: len(polls) > before + 1)
    webhooks.stop()
    assert notices_of(webhooks, NoHandlers) == [NoHandlers("default")]
    assert status(webhooks, "evt_1") is status(webhooks, "evt_2") is Status.RECEIVED


def test_handlers_that_are_registered_after_the_start_are_used(webhooks):
    done = []

    async def main():
        async with webhooks.lifespan():
            assert (await webhooks.areceive(request())).status == 200
            await async_until(lambda: notices_of(webhooks, NoHandlers))
            webhooks.on("*")(lambda event: done.append(event.id))
            await async_until(lambda: done)

    asyncio.run(main())
    assert done == ["evt_1"]


def test_a_worker_process_does_not_start_without_handlers(webhooks):
    with pytest.raises(ConfigurationError, match="no handler is registered for 'default'"):
        webhooks.run_worker()
    assert notices_of(webhooks, WorkerStarted) == []


def test_with_a_manual_handoff_nothing_starts(make_webhooks):
    webhooks = make_webhooks(handoff="manual")
    webhooks.on("*")(lambda event: None)
    webhooks.start()
    webhooks.wake()
    assert webhooks.receive(request()).status == 200

    async def main():
        async with webhooks.lifespan():
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert notices_of(webhooks, WorkerStarted) == []
    assert status(webhooks) is Status.RECEIVED


def test_worker_handles_events_left_by_an_earlier_process(make_webhooks, sqlite_url):
    earlier = make_webhooks(sqlite_url, handoff="manual")
    add(earlier)
    earlier.inbox.close()
    later = make_webhooks(sqlite_url)
    done = threading.Event()
    later.on("*")(lambda event: done.set())
    later.start()
    assert done.wait(PATIENCE)
    pause_until(lambda: status(later) is Status.PROCESSED)
    later.stop()
    later.inbox.close()


def test_worker_polls_for_events_of_other_processes(webhooks):
    done = threading.Event()
    webhooks.on("*")(lambda event: done.set())
    webhooks.start()
    pause_until(lambda: notices_of(webhooks, WorkerStarted))
    add(webhooks)
    assert done.wait(PATIENCE)


def test_it_is_woken_by_an_accepted_event(webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 3600.0)
    done = [threading.Event(), threading.Event()]
    webhooks.on("*")(lambda event: done[int(event.id)].set())
    for number in range(2):
        assert webhooks.receive(request(str(number))).status == 200
        assert done[number].wait(PATIENCE)
        pause_until(lambda number=number: status(webhooks, str(number)) is Status.PROCESSED)


def test_a_retry_comes_by_itself_when_it_is_due(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 3600.0)
    webhooks = make_webhooks(retry=RetryPolicy(initial_delay=0.05))
    times = []

    @webhooks.on("*")
    def handler(event, attempt):
        times.append(time.monotonic())
        if attempt < 3:
            raise ValueError

    add(webhooks)
    webhooks.start()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert len(times) == 3
    assert times[1] - times[0] >= 0.045
    assert times[2] - times[1] >= 0.09


# Several at once


def test_concurrency_limits_the_events_in_flight(make_webhooks):
    webhooks = make_webhooks(concurrency=3)
    release = threading.Event()
    lock = threading.Lock()
    running, most = [], []

    @webhooks.on("*")
    def handler(event):
        with lock:
            running.append(event.id)
            most.append(len(running))
        release.wait(PATIENCE)
        with lock:
            running.remove(event.id)

    for number in range(10):
        add(webhooks, f"evt_{number}")
    webhooks.start()
    pause_until(lambda: len(running) == 3)
    assert webhooks.inbox.stats().by_status[Status.PROCESSING] == 3
    release.set()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 10)
    assert max(most) == 3


def test_poison_suspects_run_one_at_a_time(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 0.01)
    webhooks = make_webhooks()
    running, most = set(), []

    @webhooks.on("*")
    def handler(event):
        running.add(event.id)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(event.id)

    suspects = [f"evt_{number}" for number in range(4)]
    for id in suspects:
        add(webhooks, id)
    for _ in range(2):
        # The lease expires at once, as if the process had died.
        assert len(webhooks.inbox.claim(10, lease=0)) == 4
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 4)
    assert max(most) == 1
    assert {webhooks.inbox.get(id).crashes for id in suspects} == {2}


def test_a_free_slot_is_filled_at_once(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 3600.0)
    webhooks = make_webhooks(concurrency=1)
    webhooks.on("*")(lambda event: None)
    for number in range(20):
        add(webhooks, f"evt_{number}")
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 20)


def test_handlers_that_block_do_not_keep_others_from_being_settled(make_webhooks):
    webhooks = make_webhooks(concurrency=3)
    release = threading.Event()

    @webhooks.on("user.deleted")
    def blocks(event):
        release.wait(PATIENCE)

    @webhooks.on("user.created")
    async def quick(event): ...

    add(webhooks, "evt_a", "user.deleted")
    add(webhooks, "evt_b", "user.deleted")
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSING] == 2)
    for number in range(3):
        add(webhooks, f"evt_{number}")
        webhooks.wake()
        pause_until(lambda number=number: status(webhooks, f"evt_{number}") is Status.PROCESSED)
    assert status(webhooks, "evt_a") is Status.PROCESSING
    release.set()
    pause_until(lambda: status(webhooks, "evt_a") is status(webhooks, "evt_b") is Status.PROCESSED)


@pytest.mark.parametrize("kind", ["sync", "async", "blocks the loop"])
def test_lease_is_renewed_while_a_handler_runs(make_webhooks, kind):
    webhooks = make_webhooks(lease=1.0)
    renewals = []
    renewed = threading.Event()
    renew = webhooks.inbox.renew

    def listen(claims, lease):
        renew(claims, lease)
        renewals.append([claim.event.id for claim in claims])
        if len(renewals) == 4:
            renewed.set()

    webhooks.inbox.renew = listen
    runs = []

    if kind == "async":

        @webhooks.on("*")
        async def handler(event):
            runs.append(event.id)
            await async_until(renewed.is_set)

    else:

        def wait(event):
            runs.append(event.id)
            assert renewed.wait(PATIENCE)

        async def wait_on_the_loop(event):
            wait(event)

        webhooks.on("*", name="h")(wait if kind == "sync" else wait_on_the_loop)

    add(webhooks)
    webhooks.start()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert runs == ["evt_1"]
    assert renewals[:4] == [["evt_1"]] * 4
    assert webhooks.inbox.get("evt_1").crashes == 0


def test_leases_of_queued_events_are_renewed(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", PATIENCE)
    # Prefetch even if the first event takes long on a busy machine.
    monkeypatch.setattr(prefetch, "LOOK_AHEAD", PATIENCE)
    webhooks = make_webhooks(concurrency=1, lease=1)
    entered, release = threading.Event(), threading.Event()
    webhooks.on("user.created")(lambda event: None)
    webhooks.on("user.deleted", name="slow")(lambda event: (entered.set(), release.wait(PATIENCE)))
    for number in range(10):
        add(webhooks, f"evt_{number}", "user.deleted" if number == 1 else "user.created")
    webhooks.start()
    assert entered.wait(PATIENCE)
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSING] == 9)
    due = {record.event.id: record.next_attempt_at for record in webhooks.inbox.list(status="processing")}
    pause_until(
        lambda: all(
            record.next_attempt_at > due[record.event.id] for record in webhooks.inbox.list(status="processing")
        )
    )
    release.set()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 10)
    # A worker that took over its own events would take the crash back, but leave it in the history.
    records = [webhooks.inbox.get(f"evt_{number}") for number in range(10)]
    assert [[attempt.status for attempt in record.history] for record in records] == [[Status.PROCESSED]] * 10


def test_failed_renewal_is_reported_and_retried(make_webhooks):
    webhooks = make_webhooks(lease=1.0)
    tries = []
    renewed = threading.Event()
    renew = webhooks.inbox.renew

    def fail_once(claims, lease):
        tries.append(True)
        if len(tries) == 1:
            raise OSError("the database is away")
        renew(claims, lease)
        renewed.set()

    webhooks.inbox.renew = fail_once
    webhooks.on("*", name="h")(lambda event: None if renewed.wait(PATIENCE) else 1 / 0)
    add(webhooks)
    webhooks.start()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    [notice] = notices_of(webhooks, WorkerFailed)
    assert notice.detail == "OSError: the database is away"


# Outages of the inbox


class BrokenInbox(MemoryInbox):
    """An inbox with an outage: the methods in `broken` raise."""

    def __init__(self):
        super().__init__()
        self.broken = set()
        self.asked = 0

    def fail(self, method):
        if method in self.broken:
            self.asked += 1
            raise OSError("the database is away")

    def seconds_until_due(self):
        self.fail("look")
        return super().seconds_until_due()

    def claim(self, limit, lease, selection=ANY):
        self.fail("claim")
        return super().claim(limit, lease, selection)

    def settle_all(self, settlements):
        self.fail("settle")
        return super().settle_all(settlements)


@pytest.mark.parametrize("method", ["look", "claim"])
def test_outage_of_the_inbox_is_reported_and_survived(make_webhooks, monkeypatch, method):
    monkeypatch.setattr(backoff, "FIRST_RETRY", 0.01)
    inbox = BrokenInbox()
    inbox.broken = {method}
    webhooks = make_webhooks(inbox)
    webhooks.on("*")(lambda event: None)
    add(webhooks)
    webhooks.start()
    pause_until(lambda: len(notices_of(webhooks, WorkerFailed)) >= 3)
    pauses = [notice.retry_in for notice in notices_of(webhooks, WorkerFailed)][:3]
    assert pauses == [0.01, 0.02, 0.04]
    assert notices_of(webhooks, WorkerFailed)[0].detail == "OSError: the database is away"
    inbox.broken.clear()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)


def test_failed_settlement_is_retried_without_running_the_handlers_again(make_webhooks, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_RETRY", 0.01)
    inbox = BrokenInbox()
    inbox.broken = {"settle"}
    webhooks = make_webhooks(inbox)
    runs = []
    webhooks.on("*")(lambda event: runs.append(event.id))
    add(webhooks)
    webhooks.start()
    pause_until(lambda: len(notices_of(webhooks, WorkerFailed)) >= 3)
    assert status(webhooks) is Status.PROCESSING
    inbox.broken.clear()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert runs == ["evt_1"]
    assert webhooks.inbox.get("evt_1").crashes == 0


def test_attempt_that_cannot_be_settled_runs_again_when_its_lease_expires(make_webhooks, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_RETRY", 2.0)
    inbox = BrokenInbox()
    inbox.broken = {"settle"}
    webhooks = make_webhooks(inbox, lease=1)
    runs = []
    webhooks.on("*")(lambda event: runs.append(event.id))
    add(webhooks)
    webhooks.start()
    # The shared commit has failed, and the retry too.
    pause_until(lambda: len(notices_of(webhooks, WorkerFailed)) == 2)
    assert status(webhooks) is Status.PROCESSING
    inbox.broken.clear()
    inbox._rows["", "evt_1"].due_at = EPOCH
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert runs == ["evt_1", "evt_1"]
    assert webhooks.inbox.get("evt_1").crashes == 1


def test_context_variables_do_not_leak_from_one_event_to_the_next(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    found = []

    @webhooks.on("*")
    def handle(event):
        found.append(LEFT_BEHIND.get())
        LEFT_BEHIND.set(event.id)

    for number in range(3):
        add(webhooks, f"evt_{number}")
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 3)
    assert found == ["nothing"] * 3


def test_async_and_sync_handlers_share_the_slots(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    handled, loops = [], set()

    @webhooks.on("user.created", name="in a thread")
    def handle_in_a_thread(event):
        handled.append(event.id)

    @webhooks.on("user.updated", name="on the loop")
    async def handle_on_the_loop(event):
        loops.add(asyncio.get_running_loop())
        handled.append(event.id)

    for number in range(12):
        add(webhooks, f"evt_{number:02}", "user.created" if number % 3 else "user.updated")
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 12)
    assert handled == sorted(handled)
    assert len(loops) == 1


def test_failed_record_is_retried_without_running_the_handler_again(make_webhooks, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_RETRY", 0.01)
    failing = iter([True, True])

    class AwayForAMoment(MemoryInbox):
        def record(self, claim, progress):
            if next(failing, False):
                raise OSError("away")
            return super().record(claim, progress)

    webhooks = make_webhooks(AwayForAMoment())
    handled = []
    for name in ("first", "second"):
        webhooks.on("*", name=name)(lambda event, name=name: handled.append(name))
    add(webhooks)
    webhooks.start()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert handled == ["first", "second"]
    assert len(notices_of(webhooks, WorkerFailed)) == 2


def test_attempts_that_end_at_the_same_time_are_settled_by_one_commit(make_webhooks):
    gate, waiting = threading.Event(), threading.Semaphore(0)
    batches = []

    class SlowInbox(MemoryInbox):
        def settle_all(self, settlements):
            waiting.release()
            assert gate.wait(PATIENCE)
            batches.append(len(settlements))
            return super().settle_all(settlements)

    webhooks = make_webhooks(SlowInbox(), concurrency=4)
    webhooks.on("*")(lambda event: None)
    for number in range(30):
        add(webhooks, f"evt_{number}")
    webhooks.start()
    assert waiting.acquire(timeout=PATIENCE)
    # A settling attempt holds no slot, so the others run meanwhile.
    pause_until(lambda: webhooks._handoff._worker._in_flight.settling == 30)
    gate.set()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 30)
    assert sum(batches) == 30
    assert len(batches) <= 3


def test_a_sync_handler_past_its_time_limit_is_reported_once_and_its_result_counts(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    release = threading.Event()
    webhooks.on("*", time_limit=0.05)(lambda event: release.wait(PATIENCE))
    add(webhooks)
    webhooks.start()
    pause_until(lambda: notices_of(webhooks, HandlerOverdue))
    assert status(webhooks) is Status.PROCESSING
    release.set()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    [notice] = notices_of(webhooks, HandlerOverdue)
    assert (notice.event_id, notice.event_type, notice.seconds) == ("evt_1", "user.created", 0.05)


def test_a_worker_in_an_application_stays_though_all_its_slots_are_overdue(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    release = threading.Event()
    webhooks.on("user.created", time_limit=0.01)(lambda event: release.wait(PATIENCE))
    webhooks.on("user.deleted", name="other")(lambda event: None)
    add(webhooks)
    webhooks.start()
    pause_until(lambda: notices_of(webhooks, HandlerOverdue))
    add(webhooks, "evt_2", "user.deleted")
    release.set()
    pause_until(lambda: status(webhooks, "evt_2") is Status.PROCESSED)
    assert notices_of(webhooks, WorkerStopped) == []


def test_maintenance_runs_periodically(make_webhooks, monkeypatch):
    monkeypatch.setattr(maintenance, "FIRST_MAINTENANCE", 0.01)
    monkeypatch.setattr(maintenance, "MAINTENANCE_INTERVAL", 0.01)
    now = [1_700_000_000.0]
    webhooks = make_webhooks(clock=lambda: now[0])
    webhooks.on("*")(lambda event: None)
    add(webhooks)
    webhooks.start()
    pause_until(lambda: status(webhooks) is Status.PROCESSED)
    assert webhooks.inbox.get("evt_1").scrubbed_at is None
    now[0] += 31 * 86_400
    pause_until(lambda: webhooks.inbox.get("evt_1").scrubbed_at is not None)
    now[0] += 60 * 86_400
    pause_until(lambda: webhooks.inbox.get("evt_1") is None)


def test_failed_maintenance_is_reported_and_retried(make_webhooks, monkeypatch):
    monkeypatch.setattr(maintenance, "FIRST_MAINTENANCE", 0.01)
    monkeypatch.setattr(maintenance, "MAINTENANCE_INTERVAL", 0.01)

    class Failing(MemoryInbox):
        def prune(self, *arguments):
            raise OSError("the database is away")

    webhooks = make_webhooks(Failing())
    webhooks.on("*")(lambda event: None)
    webhooks.start()
    pause_until(lambda: len(notices_of(webhooks, WorkerFailed)) >= 2)
    assert notices_of(webhooks, WorkerFailed)[0].detail == "OSError: the database is away"


# Stopping


def test_stopping_finishes_running_attempts_and_claims_nothing_more(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("*")
    def handler(event):
        entered.set()
        release.wait(PATIENCE)

    add(webhooks, "evt_1")
    add(webhooks, "evt_2")
    webhooks.start()
    assert entered.wait(PATIENCE)
    worker = webhooks._handoff._worker
    stopping = threading.Thread(target=webhooks.stop)
    stopping.start()
    pause_until(lambda: worker._signals.stopping)
    release.set()
    stopping.join(PATIENCE)
    assert status(webhooks, "evt_1") is Status.PROCESSED
    assert status(webhooks, "evt_2") is Status.RECEIVED
    assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 0)]
    pause_until(lambda: not threads_named("envoyou-handler") and not threads_named("envoyou-inbox-default"))


def test_stopping_returns_an_endless_async_handlers_event_to_the_inbox(webhooks):
    entered = threading.Event()
    cancelled = []

    @webhooks.on("*")
    async def handler(event):
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(event.id)

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.stop(timeout=0)
    assert cancelled == ["evt_1"]
    record = webhooks.inbox.get("evt_1")
    assert (record.status, record.attempts, record.crashes) == (Status.RECEIVED, 0, 0)
    assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 1)]


def test_returned_event_keeps_its_attempts_and_progress(make_webhooks):
    webhooks = make_webhooks(retry=RetryPolicy(initial_delay=0))
    entered = threading.Event()
    webhooks.on("*", name="first")(lambda event: None)

    @webhooks.on("*", name="second")
    async def second(event, attempt):
        if attempt == 1:
            raise ValueError
        entered.set()
        await asyncio.Event().wait()

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.stop(timeout=0)
    record = webhooks.inbox.get("evt_1")
    assert (record.status, record.attempts, record.crashes) == (Status.FAILED, 1, 0)
    assert record.last_error == "ValueError"
    assert list(record.progress) == ["first"]


def test_handlers_done_in_a_returned_attempt_do_not_run_again(webhooks):
    entered = threading.Event()
    webhooks.on("*", name="first")(lambda event: None)

    @webhooks.on("*", name="second")
    async def second(event):
        entered.set()
        await asyncio.Event().wait()

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.stop(timeout=0)
    assert list(webhooks.inbox.get("evt_1").progress) == ["first"]


def test_endless_sync_handler_keeps_its_lease_and_does_not_delay_a_stop(webhooks):
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("*")
    def handler(event):
        entered.set()
        release.wait(PATIENCE)

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.stop(timeout=0)
    assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 1)]
    assert status(webhooks) is Status.PROCESSING
    assert all(thread.daemon for thread in threads_named("envoyou-"))
    release.set()
    pause_until(lambda: not threads_named("envoyou-leases"))


def test_sync_handler_that_outlives_its_worker_is_not_started_again_meanwhile(make_webhooks):
    webhooks = make_webhooks(lease=1)
    entered, release = threading.Event(), threading.Event()
    runs = []

    @webhooks.on("*")
    def handler(event):
        runs.append(event.id)
        entered.set()
        release.wait(PATIENCE)

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.stop(timeout=0)
    due = webhooks.inbox.get("evt_1").next_attempt_at
    pause_until(lambda: webhooks.inbox.get("evt_1").next_attempt_at > due)
    assert webhooks.inbox.claim(1, 1.0) == []
    release.set()
    pause_until(lambda: not threads_named("envoyou-leases"))
    assert runs == ["evt_1"]


def test_queued_events_are_returned_to_the_inbox_if_no_slot_becomes_free(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 0.05)
    webhooks = make_webhooks(concurrency=1)
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("user.created")
    def quick(event): ...

    @webhooks.on("user.deleted")
    def slow(event):
        entered.set()
        release.wait(PATIENCE)

    for number in range(20):
        add(webhooks, f"evt_{number}", "user.deleted" if number == 1 else "user.created")
    webhooks.start()
    assert entered.wait(PATIENCE)
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSING] == 1)
    record = webhooks.inbox.get("evt_19")
    assert (record.status, record.crashes, record.attempts) == (Status.RECEIVED, 0, 0)
    release.set()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 20)


def test_lease_expires_if_an_event_cannot_be_returned_to_the_inbox(make_webhooks, monkeypatch):
    monkeypatch.setattr(worker_module, "SWEEP_INTERVAL", 0.05)
    away = threading.Event()
    entered, release = threading.Event(), threading.Event()

    class AwayInbox(MemoryInbox):
        def settle(self, claim, settlement):
            if away.is_set():
                raise OSError("away")
            return super().settle(claim, settlement)

    webhooks = make_webhooks(AwayInbox(), concurrency=1, lease=1)

    @webhooks.on("user.created")
    def quick(event): ...

    @webhooks.on("user.deleted")
    def slow(event):
        away.set()
        entered.set()
        release.wait(PATIENCE)

    for number in range(20):
        add(webhooks, f"evt_{number}", "user.deleted" if number == 1 else "user.created")
    webhooks.start()
    assert entered.wait(PATIENCE)
    pause_until(lambda: notices_of(webhooks, WorkerFailed))
    away.clear()
    release.set()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 20)


def test_stopping_returns_queued_events_to_the_inbox(make_webhooks):
    webhooks = make_webhooks(concurrency=1)
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("user.created")
    def quick(event): ...

    @webhooks.on("user.deleted")
    def slow(event):
        entered.set()
        release.wait(PATIENCE)

    for number in range(20):
        add(webhooks, f"evt_{number}", "user.deleted" if number == 1 else "user.created")
    webhooks.start()
    assert entered.wait(PATIENCE)
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSING] > 1)
    worker = webhooks._handoff._worker
    stopping = threading.Thread(target=webhooks.stop)
    stopping.start()
    pause_until(lambda: worker._signals.stopping)
    release.set()
    stopping.join(PATIENCE)
    by_status = webhooks.inbox.stats().by_status
    assert (by_status[Status.PROCESSED], by_status[Status.RECEIVED]) == (2, 18)
    assert {record.crashes for record in webhooks.inbox.list()} == {0}


def test_after_a_stop_it_can_be_started_again(webhooks):
    webhooks.on("*")(lambda event: None)
    for number in range(2):
        webhooks.start()
        add(webhooks, f"evt_{number}")
        webhooks.wake()
        pause_until(lambda number=number: status(webhooks, f"evt_{number}") is Status.PROCESSED)
        webhooks.stop()
        assert len(notices_of(webhooks, WorkerStopped)) == number + 1
    webhooks.stop()
    assert len(notices_of(webhooks, WorkerStopped)) == 2


def test_the_last_of_several_lifespans_stops_it(webhooks):
    webhooks.on("*")(lambda event: None)

    async def main():
        async with webhooks.lifespan():
            async with webhooks.lifespan(object()):
                await async_until(lambda: notices_of(webhooks, WorkerStarted))
            assert notices_of(webhooks, WorkerStopped) == []
            add(webhooks)
            webhooks.wake()
            await async_until(lambda: status(webhooks) is Status.PROCESSED)
        assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 0)]

    asyncio.run(main())
    assert len(notices_of(webhooks, WorkerStarted)) == 1


def test_a_lifespan_that_ends_in_an_error_stops_it_too(webhooks):
    webhooks.on("*")(lambda event: None)

    async def main():
        async with webhooks.lifespan():
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 0)]


def test_a_worker_on_a_thread_can_be_stopped_from_a_loop(webhooks):
    webhooks.on("*")(lambda event: None)
    webhooks.start()
    pause_until(lambda: notices_of(webhooks, WorkerStarted))

    async def main():
        async with webhooks.lifespan():
            assert len(notices_of(webhooks, WorkerStarted)) == 1

    asyncio.run(main())
    assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 0)]


def test_new_worker_starts_after_the_loop_of_the_old_one_was_closed(webhooks):
    done = []
    webhooks.on("*")(lambda event: done.append(event.id))

    async def accept(id):
        assert (await webhooks.areceive(request(id))).status == 200

    asyncio.run(accept("evt_1"))
    asyncio.run(accept("evt_2"))
    assert webhooks.receive(request("evt_3")).status == 200
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 3)
    assert sorted(done) == ["evt_1", "evt_2", "evt_3"]


def test_waking_a_worker_whose_loop_is_just_closed_is_harmless(webhooks):
    webhooks.on("*")(lambda event: None)
    loop = asyncio.new_event_loop()
    started = worker_module.Worker(webhooks._engine, name="default", kind="event loop", concurrency=1)
    started.wake()
    loop.call_soon(started._loop.attach)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    started.wake()
    assert not started.alive


def test_handlers_do_not_inherit_the_context_of_the_request_that_started_the_worker(webhooks):
    from contextvars import ContextVar

    variable = ContextVar("request", default="no request")
    seen = []

    @webhooks.on("*")
    async def handler(event):
        seen.append(variable.get())

    async def main():
        variable.set("a request's own")
        await webhooks.areceive(request())
        await async_until(lambda: seen)
        await webhooks._handoff.astop()

    asyncio.run(main())
    assert seen == ["no request"]


# Processes


def python(script, *arguments):
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("first", ["start", "stop"])
def test_a_forked_child_starts_a_worker_of_its_own(sqlite_url, first):
    output = python(
        """
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.testing import sample_event, sign_delivery
        webhooks = Webhooks(secret="s", inbox=sys.argv[1])

        @webhooks.on("*")
        def handler(event):
            seen.append((event.id, os.getpid()))

        def accept(id):
            delivery = sign_delivery(sample_event(id=id), secret="s")
            assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200

        def wait(id):
            deadline = time.monotonic() + 20
            while webhooks.inbox.get(id).status != "processed":
                assert time.monotonic() < deadline
                time.sleep(0.01)

        seen = []
        accept("evt_parent")
        wait("evt_parent")
        webhooks.stop()
        webhooks.start()
        # Until the worker is idle: SQLite does not work in a child that was forked in the middle of one of its calls.
        accept("evt_again")
        wait("evt_again")
        child = os.fork()
        if child == 0:
            seen = []
            try:
                webhooks.FIRST()
                webhooks.start()
                assert any(thread.name == "envoyou-worker-default" for thread in threading.enumerate())
                accept("evt_child")
                wait("evt_child")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        handled = [id for id, pid in seen]
        print(handled == ["evt_parent", "evt_again"] and {pid for id, pid in seen} == {os.getpid()} or seen)
        """.replace("FIRST", first),
        sqlite_url,
    )
    assert output.split() == ["True"] or "evt_child" in output


def test_a_process_that_ends_lets_its_handlers_finish(sqlite_url):
    output = python(
        """
        import sys, threading
        from envoyou_core import Webhooks
        from envoyou_core.inbox import NewEvent
        from envoyou_core.testing import sample_event
        webhooks = Webhooks(secret="s", inbox=sys.argv[1])
        entered = threading.Event()

        @webhooks.on("*")
        async def handler(event):
            import asyncio
            entered.set()
            await asyncio.sleep(0.1)
            print("finished", flush=True)

        webhooks.inbox.add(NewEvent(sample_event(id="evt_1"))).result(20)
        webhooks.start()
        assert entered.wait(20)
        """,
        sqlite_url,
    )
    assert output.split() == ["finished"]
    left = Webhooks(secret=SECRET, inbox=sqlite_url)
    assert status(left) is Status.PROCESSED
    left.inbox.close()


# Threads


def test_daemon_threads_call_in_a_copy_of_the_callers_context():
    from contextvars import ContextVar

    variable = ContextVar("variable", default="default")
    variable.set("the caller's")
    threads = DaemonThreads(2, "test-threads")
    assert threads.submit(variable.get).result(PATIENCE) == "the caller's"
    assert threads.submit(lambda: variable.set("theirs")).result(PATIENCE)
    assert variable.get() == "the caller's"
    threads.close()


def test_daemon_threads_are_started_on_demand_up_to_the_limit():
    threads = DaemonThreads(3, "test-bounded")
    for _ in range(5):
        threads.submit(lambda: None).result(PATIENCE)
        pause_until(lambda: threads._busy == 0)
    assert len(threads_named("test-bounded")) == 1
    release = threading.Event()
    futures = [threads.submit(lambda: release.wait(PATIENCE)) for _ in range(10)]
    assert len(threads_named("test-bounded")) == 3
    release.set()
    assert all(future.result(PATIENCE) for future in futures)
    threads.close()
    pause_until(lambda: not threads_named("test-bounded"))


def test_an_error_in_a_daemon_thread_is_the_futures_and_the_thread_goes_on():
    threads = DaemonThreads(1, "test-errors")
    for error in (ValueError("x"), SystemExit(3), KeyboardInterrupt()):

        def fail(error=error):
            raise error

        assert threads.submit(fail).exception(PATIENCE) is error
    assert threads.submit(lambda: "still here").result(PATIENCE) == "still here"
    threads.close()


def test_a_call_that_was_cancelled_while_it_waited_is_not_made():
    threads = DaemonThreads(1, "test-cancelled")
    release = threading.Event()
    calls = []
    first = threads.submit(lambda: release.wait(PATIENCE))
    second = threads.submit(lambda: calls.append("made"))
    assert second.cancel()
    release.set()
    assert first.result(PATIENCE)
    assert threads.submit(lambda: "next").result(PATIENCE) == "next"
    assert calls == []
    threads.close()


def test_returning_an_event_does_not_undo_its_settlement_by_another_worker(webhooks):
    entered = threading.Event()

    @webhooks.on("*")
    async def handler(event):
        entered.set()
        await asyncio.Event().wait()

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    webhooks.inbox._rows["", "evt_1"].due_at = EPOCH
    [other] = webhooks.inbox.claim(1, 60)
    webhooks.inbox.settle(other, Settlement(Status.PROCESSED, 1))
    webhooks.stop(timeout=0)
    assert status(webhooks) is Status.PROCESSED


# The loop ends first


def test_events_in_flight_are_returned_when_the_loop_ends(webhooks):
    entered = asyncio.Event()

    @webhooks.on("*")
    async def handler(event):
        entered.set()
        await asyncio.Event().wait()

    async def main():
        await webhooks.areceive(request())
        async with asyncio.timeout(PATIENCE):
            await entered.wait()

    asyncio.run(main())
    record = webhooks.inbox.get("evt_1")
    assert (record.status, record.attempts, record.crashes) == (Status.RECEIVED, 0, 0)


def test_events_claimed_while_the_loop_ends_are_returned(make_webhooks):
    class Slow(MemoryInbox):
        def claim(self, limit, lease, selection=ANY):
            claims = super().claim(limit, lease, selection)
            claiming.set()
            assert released.wait(PATIENCE)
            return claims

    claiming, released = threading.Event(), threading.Event()
    webhooks = make_webhooks(Slow())
    webhooks.on("*")(lambda event: None)

    async def main():
        await webhooks.areceive(request())
        await async_until(claiming.is_set)

    asyncio.run(main())
    assert status(webhooks) is Status.PROCESSING
    released.set()
    pause_until(lambda: status(webhooks) is Status.RECEIVED)
    assert webhooks.inbox.get("evt_1").crashes == 0


def test_shutdown_timeout_bounds_a_stop(make_webhooks):
    webhooks = make_webhooks(shutdown_timeout=0)
    entered, release = threading.Event(), threading.Event()

    @webhooks.on("*")
    def handler(event):
        entered.set()
        release.wait(PATIENCE)

    add(webhooks)
    webhooks.start()
    assert entered.wait(PATIENCE)
    try:
        webhooks.stop()
        assert notices_of(webhooks, WorkerStopped) == [WorkerStopped("default", 1)]
    finally:
        release.set()
