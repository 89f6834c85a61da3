"""TaskQueueWaker to a task queue: sent by a thread, and once more while something waits for too long."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

import pytest
from django.db import transaction

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import waker
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.project import DjangoWebhooks
from envoyou_django.waker import TaskQueueWaker
from tests.django.conftest import SECRET

PATIENCE = 20


@pytest.fixture
def hasty(monkeypatch):
    for name in ("SWEEP_INTERVAL", "MAX_SWEEP_INTERVAL", "OVERDUE", "SILENCE"):
        monkeypatch.setattr(waker, name, 0.02)


@pytest.fixture
def make():
    made = []

    def make(hint, failed=lambda error: None, overdue=lambda: 0.0, **others):
        made.append(TaskQueueWaker(hint, failed=failed, overdue=overdue, **others))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_one_for_each_time_it_is_asked_for(make):
    told = queue.Queue()
    sender = make(lambda: told.put(threading.current_thread().name))
    sender.send()
    sender.send()
    assert {told.get(timeout=PATIENCE) for _ in range(2)} == {"envoyou-waker"}


def test_again_and_again_while_something_waits(hasty, make):
    told, waits = queue.Queue(), threading.Event()
    sender = make(lambda: told.put("hint"), overdue=lambda: 1.0 if waits.is_set() else 0.01)
    sender.start_sweeping()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.2)
    waits.set()
    assert [told.get(timeout=PATIENCE) for _ in range(3)] == ["hint"] * 3


def test_less_and_less_often_while_they_are_in_vain(monkeypatch, make):
    waited = []

    class Stopped:
        def wait(self, interval):
            waited.append(interval)
            return len(waited) > 6

    sender = make(lambda: None, overdue=lambda: 0.0 if len(waited) == 5 else 100.0)
    sender._sweep(Stopped())
    assert waited == [10, 20, 40, 60, 60, 10, 20]


def test_an_inbox_that_is_away_is_reported_and_looked_into_again(hasty, make):
    told, failures, looks = queue.Queue(), queue.Queue(), iter([ConnectionError("away"), 5.0])

    def overdue():
        found = next(looks, 0.0)
        if isinstance(found, Exception):
            raise found
        return found

    sender = make(lambda: told.put("hint"), failed=failures.put, overdue=overdue)
    sender.start_sweeping()
    assert str(failures.get(timeout=PATIENCE)) == "away"
    assert told.get(timeout=PATIENCE) == "hint"


def test_a_queue_that_does_not_answer_is_reported(hasty, make):
    release, failures = threading.Event(), queue.Queue()
    sender = make(lambda: release.wait(PATIENCE), failed=failures.put)
    sender.start_sweeping()
    sender.send()
    assert str(failures.get(timeout=PATIENCE)).startswith("the task queue has not answered for")
    release.set()


def test_it_ends_when_it_is_told_to(hasty, make):
    ended_in = []
    sender = make(lambda: None, on_thread_exit=lambda: ended_in.append(threading.current_thread()))
    others = set(threading.enumerate())
    sender.start_sweeping()
    [thread] = [thread for thread in threading.enumerate() if thread not in others and thread.name == "envoyou-sweep"]
    sender.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert ended_in == [thread]


# When a project hints


@pytest.fixture
def told():
    return queue.Queue()


@pytest.fixture
def webhooks(told):
    webhooks = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff="manual", hint=lambda: told.put("hint"))
    webhooks.on("*")(lambda event: None)
    yield webhooks
    webhooks.stop()


def accept(webhooks):
    delivery = sign_delivery(sample_event(), secret=SECRET)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_hints_when_it_begins_and_at_each_event(webhooks, told):
    webhooks.ensure_worker()
    assert told.get(timeout=PATIENCE)
    assert [accept(webhooks) for _ in range(2)] == [200, 200]
    assert [told.get(timeout=PATIENCE) for _ in range(2)] == ["hint"] * 2
    assert webhooks.inbox.stats().by_status["received"] == 2, "somebody else does the work"


@pytest.mark.django_db(transaction=True)
def test_a_process_in_which_it_is_started_by_hand_looks_into_the_inbox_too(hasty, webhooks, told):
    accept(webhooks)
    webhooks.start()
    assert told.get(timeout=PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_nothing_hints_at_nothing(webhooks, told):
    """A test, for instance."""
    assert accept(webhooks) == 200
    webhooks.wake()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)
    assert [thread for thread in threading.enumerate() if thread.name == "envoyou-sweep"] == []
    assert webhooks.drain() == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_requeued_in_a_transaction_is_hinted_at_after_its_commit(webhooks, told):
    webhooks.ensure_worker()
    assert told.get(timeout=PATIENCE)
    with transaction.atomic():
        webhooks.wake()
        with pytest.raises(queue.Empty):
            told.get(timeout=0.1)
    assert told.get(timeout=PATIENCE)
    with suppress(ZeroDivisionError), transaction.atomic():
        webhooks.wake()
        raise ZeroDivisionError
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)


@pytest.mark.django_db(transaction=True)
def test_what_waits_in_the_inbox_is_hinted_at_again(hasty, webhooks, told):
    webhooks.ensure_worker()
    assert told.get(timeout=PATIENCE)
    assert accept(webhooks) == 200
    # Its own hint, and those of the sweep, for nobody does the work.
    assert [told.get(timeout=PATIENCE) for _ in range(3)]
