"""A function as handoff: called with each accepted event, outside the request, best effort.

When it is called without an event is tested in `test_due_timer.py`.
"""

import queue
import threading
from contextlib import contextmanager

import pytest

from envoyou_core import ConfigurationError, WebhookRequest, Webhooks
from envoyou_core.inbox import Status
from envoyou_core.observability import WakeFailed
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import waker

SECRET = "whsec_test"
PATIENCE = 20


def accept(webhooks, event=None):
    event = event or sample_event()
    delivery = sign_delivery(event, secret=SECRET)
    answer = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert answer.status == 200
    return event


def make(handoff):
    if callable(handoff):
        announced, handoff = handoff, lambda event_id: event_id and announced(event_id)
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff=handoff)
    webhooks.on("*")(lambda event: None)
    return webhooks


def test_it_is_called_with_the_id_of_an_event_that_is_stored_and_nothing_else_works():
    told = queue.Queue()
    webhooks = make(lambda event_id: told.put((event_id, webhooks.inbox.get(event_id).status)))
    event = accept(webhooks)
    assert told.get(timeout=PATIENCE) == (event.id, Status.RECEIVED)
    accept(webhooks, event)
    another = accept(webhooks)
    assert told.get(timeout=PATIENCE)[0] == another.id, "a duplicate is nobody's work"
    assert webhooks.drain() == 2


async def test_on_an_event_loop_too():
    told = queue.Queue()
    webhooks = make(told.put)
    delivery = sign_delivery(event := sample_event(), secret=SECRET)
    await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert told.get(timeout=PATIENCE) == event.id


def test_unresponsive_broker_does_not_delay_requests(monkeypatch):
    monkeypatch.setattr(waker, "MAX_WAITING", 2)
    entered, release, told = threading.Event(), threading.Event(), queue.Queue()
    released = []

    def hangs(event_id):
        entered.set()
        released.append(release.wait(PATIENCE))
        # Only the first call may wait in vain.
        release.set()
        told.put(event_id)

    webhooks = make(hangs)
    first = accept(webhooks)
    assert entered.wait(PATIENCE)
    waiting = [accept(webhooks) for _ in range(5)][:2]
    release.set()
    assert [told.get(timeout=PATIENCE) for _ in range(3)] == [first.id, *(event.id for event in waiting)]
    assert all(released)
    assert webhooks.drain() == 6


def test_eager_broker_works_outside_the_request():
    """A task queue that runs tasks when they are enqueued, as Django's default backend does."""
    release, done = threading.Event(), threading.Event()
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff=lambda _: (webhooks.drain(), done.set()))
    webhooks.on("*")(lambda event: release.wait(PATIENCE))
    event = accept(webhooks)
    assert webhooks.inbox.get(event.id).status in {Status.RECEIVED, Status.PROCESSING}
    release.set()
    assert done.wait(PATIENCE)
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED


def test_its_failure_is_logged_and_harms_nothing(caplog):
    told, calls = queue.Queue(), []

    def fails_first(event_id):
        calls.append(event_id)
        told.put(event_id)
        if len(calls) == 1:
            raise ConnectionError("no broker")

    webhooks = make(fails_first)
    accept(webhooks)
    second = accept(webhooks)
    assert told.get(timeout=PATIENCE)
    assert told.get(timeout=PATIENCE) == second.id
    assert "the event stays in the inbox: ConnectionError: no broker" in caplog.text
    assert webhooks.drain() == 2


def test_a_forked_child_sends_its_own():
    told = queue.Queue()
    sender = waker.Waker(told.put, report_error=lambda error: None)
    sender.send("parent")
    assert told.get(timeout=PATIENCE) == "parent"
    inherited = sender._pid
    sender._pid = inherited - 1  # as a child finds it
    sender.send("child")
    assert told.get(timeout=PATIENCE) == "child"


def test_waker_thread_ends_with_the_webhooks_once_queued_wakeups_are_sent():
    told, release = queue.Queue(), threading.Event()
    webhooks = make(lambda event_id: (release.wait(PATIENCE), told.put(threading.current_thread())))
    for _ in range(3):
        accept(webhooks)
    webhooks.stop()
    release.set()
    [thread] = {told.get(timeout=PATIENCE) for _ in range(3)}
    thread.join(PATIENCE)
    assert not thread.is_alive()
    accept(webhooks)
    assert told.get(timeout=PATIENCE) is not thread
    webhooks.stop()


def test_waker_thread_runs_the_thread_exit_hooks():
    told = queue.Queue()

    def tell(what):
        # The other thread reads the inbox.
        if threading.current_thread().name == "envoyou-waker":
            told.put(what)

    @contextmanager
    def around():
        tell("entered")
        yield
        tell("left")

    webhooks = make(lambda event_id: told.put(event_id))
    webhooks.add_context(around)
    webhooks.on_thread_exit(lambda: tell("ended"))
    event = accept(webhooks)
    assert [told.get(timeout=PATIENCE) for _ in range(3)] == ["entered", event.id, "left"]
    webhooks.stop()
    assert told.get(timeout=PATIENCE) == "ended"


@pytest.mark.parametrize("handoff", ["cellery", 5, None])
def test_handoff_that_is_neither_a_known_word_nor_a_function_is_refused(handoff):
    with pytest.raises(ConfigurationError, match="handoff"):
        make(handoff)


def test_event_is_accepted_if_no_waker_thread_can_be_started(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    told = queue.Queue()
    webhooks = make(told.put)
    failures = []
    webhooks.subscribe(lambda notice: failures.append(notice) if isinstance(notice, WakeFailed) else None)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        accept(webhooks)
    assert {failure.detail for failure in failures} == {"RuntimeError: can't start new thread"}
    event = accept(webhooks)
    assert told.get(timeout=PATIENCE) == event.id
