"""Wake-ups of a task queue: a thread enqueues the task, and enqueues it again while an event is overdue."""

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
from envoyou_django.runtime import DjangoWebhooks
from envoyou_django.waker import TaskQueueWaker
from tests.django.conftest import SECRET

PATIENCE = 20


@pytest.fixture
def short_intervals(monkeypatch):
    for name in ("SWEEP_INTERVAL", "MAX_SWEEP_INTERVAL", "MAX_OVERDUE", "BROKER_TIMEOUT"):
        monkeypatch.setattr(waker, name, 0.02)


@pytest.fixture
def make():
    wakers = []

    def make(enqueue, report_error=lambda error: None, seconds_overdue=lambda: 0.0, **others):
        wakers.append(TaskQueueWaker(enqueue, report_error=report_error, seconds_overdue=seconds_overdue, **others))
        return wakers[-1]

    yield make
    for each in wakers:
        each.stop()


def test_each_wake_up_enqueues_one_task_in_a_thread(make):
    tasks = queue.Queue()
    sender = make(lambda: tasks.put(threading.current_thread().name))
    sender.send()
    sender.send()
    assert {tasks.get(timeout=PATIENCE) for _ in range(2)} == {"envoyou-waker"}


def test_tasks_are_enqueued_while_an_event_is_overdue(short_intervals, make):
    tasks, is_overdue = queue.Queue(), threading.Event()
    sender = make(lambda: tasks.put("task"), seconds_overdue=lambda: 1.0 if is_overdue.is_set() else 0.01)
    sender.start_sweeping()
    with pytest.raises(queue.Empty):
        tasks.get(timeout=0.2)
    is_overdue.set()
    assert [tasks.get(timeout=PATIENCE) for _ in range(3)] == ["task"] * 3


def test_the_interval_doubles_while_an_event_stays_overdue(make):
    intervals = []

    class Stopped:
        def wait(self, interval):
            intervals.append(interval)
            return len(intervals) > 6

    sender = make(lambda: None, seconds_overdue=lambda: 0.0 if len(intervals) == 5 else 100.0)
    sender._sweep(Stopped())
    assert intervals == [10, 20, 40, 60, 60, 10, 20]


def test_an_unavailable_inbox_is_reported_and_polled_again(short_intervals, make):
    tasks, failures, results = queue.Queue(), queue.Queue(), iter([ConnectionError("unavailable"), 5.0])

    def seconds_overdue():
        result = next(results, 0.0)
        if isinstance(result, Exception):
            raise result
        return result

    sender = make(lambda: tasks.put("task"), report_error=failures.put, seconds_overdue=seconds_overdue)
    sender.start_sweeping()
    assert str(failures.get(timeout=PATIENCE)) == "unavailable"
    assert tasks.get(timeout=PATIENCE) == "task"


def test_a_task_queue_that_does_not_answer_is_reported(short_intervals, make):
    release, failures = threading.Event(), queue.Queue()
    sender = make(lambda: release.wait(PATIENCE), report_error=failures.put)
    sender.start_sweeping()
    sender.send()
    assert str(failures.get(timeout=PATIENCE)).startswith("the task queue has not answered for")
    release.set()


def test_stop_ends_the_thread(short_intervals, make):
    ended_in = []
    sender = make(lambda: None, on_thread_exit=lambda: ended_in.append(threading.current_thread()))
    others = set(threading.enumerate())
    sender.start_sweeping()
    [thread] = [thread for thread in threading.enumerate() if thread not in others and thread.name == "envoyou-sweep"]
    sender.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert ended_in == [thread]


# When a project enqueues tasks


@pytest.fixture
def tasks():
    return queue.Queue()


@pytest.fixture
def webhooks(tasks):
    webhooks = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff="manual", hint=lambda: tasks.put("task"))
    webhooks.on("*")(lambda event: None)
    yield webhooks
    webhooks.stop()


def accept(webhooks):
    delivery = sign_delivery(sample_event(), secret=SECRET)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status


@pytest.mark.django_db(transaction=True)
def test_a_server_process_enqueues_a_task_at_its_start_and_for_each_event(webhooks, tasks):
    webhooks.ensure_worker()
    assert tasks.get(timeout=PATIENCE)
    assert [accept(webhooks) for _ in range(2)] == [200, 200]
    assert [tasks.get(timeout=PATIENCE) for _ in range(2)] == ["task"] * 2
    assert webhooks.inbox.stats().by_status["received"] == 2, "the events were handled in this process"


@pytest.mark.django_db(transaction=True)
def test_a_process_that_calls_start_polls_the_inbox(short_intervals, webhooks, tasks):
    accept(webhooks)
    webhooks.start()
    assert tasks.get(timeout=PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_no_requests_enqueues_no_task(webhooks, tasks):
    """For example a test."""
    assert accept(webhooks) == 200
    webhooks.wake()
    with pytest.raises(queue.Empty):
        tasks.get(timeout=0.1)
    assert [thread for thread in threading.enumerate() if thread.name == "envoyou-sweep"] == []
    assert webhooks.drain() == 1


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_inside_a_transaction_is_sent_after_its_commit(webhooks, tasks):
    webhooks.ensure_worker()
    assert tasks.get(timeout=PATIENCE)
    with transaction.atomic():
        webhooks.wake()
        with pytest.raises(queue.Empty):
            tasks.get(timeout=0.1)
    assert tasks.get(timeout=PATIENCE)
    with suppress(ZeroDivisionError), transaction.atomic():
        webhooks.wake()
        raise ZeroDivisionError
    with pytest.raises(queue.Empty):
        tasks.get(timeout=0.1)


@pytest.mark.django_db(transaction=True)
def test_an_overdue_event_in_the_inbox_enqueues_further_tasks(short_intervals, webhooks, tasks):
    webhooks.ensure_worker()
    assert tasks.get(timeout=PATIENCE)
    assert accept(webhooks) == 200
    # One task for the event, and further ones by polling, because no worker handles it.
    assert [tasks.get(timeout=PATIENCE) for _ in range(3)]
