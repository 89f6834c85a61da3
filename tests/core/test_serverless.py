"""Hosts that end or freeze the worker between requests: no event is lost, and the log says what to do."""

import asyncio

import pytest

from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.asgi import webhooks_entry
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.observability import WorkerInterrupted
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker.in_process import InProcessHandoff
from envoyou_core.worker.worker import FREEZE
from tests.core.conftest import pause_until

SECRET = "whsec_test"
PATIENCE = 20


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def webhooks():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", shutdown_timeout=5)
    webhooks.notices = []
    webhooks.subscribe(webhooks.notices.append)
    webhooks.handled = []
    webhooks.on("*", name="work")(lambda event: webhooks.handled.append(event.id))
    yield webhooks
    webhooks.stop(timeout=0)


def interruptions(webhooks):
    return [notice for notice in webhooks.notices if isinstance(notice, WorkerInterrupted)]


def delivered(number):
    return sign_delivery(sample_event(id=f"evt_{number}"), secret=SECRET)


def request(number):
    delivery = delivered(number)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.005)


async def ask(application, number):
    """Send one request without a lifespan, as a serverless gateway does."""
    delivery = delivered(number)
    answers = []

    async def receive():
        return {"type": "http.request", "body": delivery.body}

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/webhooks/envoyou",
        "headers": [(name.lower().encode(), value.encode()) for name, value in delivery.headers.items()],
    }
    await application(scope, receive, send)
    return answers[0]["status"]


async def nothing(scope, receive, send):
    raise AssertionError("the request belongs to the webhooks")


def test_loops_that_end_with_each_request_are_reported_once(webhooks, caplog):
    application = webhooks_entry(nothing, webhooks)
    for number in range(5):
        assert asyncio.run(ask(application, number)) == 200
        assert len(interruptions(webhooks)) == (number >= 2)
    assert interruptions(webhooks) == [WorkerInterrupted("default", 2)]
    assert "handoff='manual'" in caplog.text
    # No event is lost: all wait in the inbox.
    assert webhooks.inbox.stats().total == 5
    webhooks.start()
    pause_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 5)
    assert sorted(webhooks.handled) == [f"evt_{number}" for number in range(5)]


def test_worker_cancelled_before_its_first_step_is_replaced(webhooks):
    async def invocation():
        # In the last iteration of the loop: the worker's task is cancelled before its first step.
        asyncio.get_running_loop().call_soon(webhooks.wake)

    for _ in range(4):
        asyncio.run(invocation())
    assert interruptions(webhooks) == [WorkerInterrupted("default", 2)]


def test_lifespans_that_end_with_each_request_are_reported(webhooks):
    async def invocation(number):
        async with webhooks.lifespan():
            # The worker is stopped before its first poll.
            webhooks.inbox.add(NewEvent(sample_event(id=f"evt_{number}"))).result(PATIENCE)
            webhooks.wake()

    for number in range(3):
        asyncio.run(invocation(number))
    assert interruptions(webhooks) == [WorkerInterrupted("default", 2)]


def test_a_lifespan_that_lets_the_worker_finish_is_not_reported(webhooks):
    async def invocation(number):
        async with webhooks.lifespan():
            assert (await webhooks.areceive(request(number))).status == 200
            await until(lambda: webhooks.inbox.get(f"evt_{number}").status is Status.PROCESSED)
            worker = webhooks._handoff._worker
            await until(lambda: not worker.left_work)

    for number in range(4):
        asyncio.run(invocation(number))
    assert interruptions(webhooks) == []


@pytest.mark.parametrize("kind", ["event loop", "thread"])
def test_a_worker_that_is_frozen_between_requests_is_reported(webhooks, kind):
    """The loop or thread exists on, but does not run between requests."""
    clock = Clock()
    handoff = InProcessHandoff(
        webhooks._engine, name="default", concurrency=1, shutdown_timeout=5, on_loops=kind == "event loop", clock=clock
    )
    loop = asyncio.new_event_loop()

    async def invocation(number):
        webhooks.inbox.add(NewEvent(sample_event(id=f"evt_{number}"))).result(PATIENCE)
        handoff.wake()
        await until(lambda: webhooks.inbox.get(f"evt_{number}").status is Status.PROCESSED)

    try:
        for number in range(4):
            loop.run_until_complete(invocation(number))
            clock.now += FREEZE + 1
        loop.run_until_complete(until(lambda: interruptions(webhooks)))
        assert interruptions(webhooks) == [WorkerInterrupted("default", 2)]
    finally:
        loop.run_until_complete(handoff.astop())
        loop.close()


def test_a_process_that_is_suspended_while_nothing_is_due_is_not_reported(webhooks):
    clock = Clock()
    handoff = InProcessHandoff(webhooks._engine, name="default", concurrency=1, shutdown_timeout=5, clock=clock)
    handoff.start_in_thread()
    worker = handoff._worker
    for _ in range(4):
        clock.now += FREEZE + 1
        worker.announce_event()
        pause_until(lambda: not worker.left_work and worker._last_turn == clock.now and not worker._was_frozen)
    handoff.stop()
    assert interruptions(webhooks) == []
