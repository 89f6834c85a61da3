"""When a project enqueues the task of its task queue."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

import pytest
from django.db import transaction

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import due_timer
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.runtime import DjangoWebhooks
from tests.django.conftest import SECRET

PATIENCE = 20


@pytest.fixture
def short_intervals(monkeypatch):
    often = due_timer.Intervals(read=0.02, full=0.02, overdue=0.02, longest=0.02)
    monkeypatch.setattr(due_timer, "INTERVALS", often)


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


def timers():
    """The threads that read when events are due. One of an earlier test may be about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "envoyou-due-timer"}


@pytest.mark.django_db(transaction=True)
def test_a_server_process_enqueues_a_task_at_its_start_and_for_each_event(webhooks, tasks):
    webhooks.ensure_worker()
    assert tasks.get(timeout=PATIENCE)
    assert [accept(webhooks) for _ in range(2)] == [200, 200]
    assert [tasks.get(timeout=PATIENCE) for _ in range(2)] == ["task"] * 2
    assert webhooks.inbox.stats().by_status["received"] == 2, "the events were handled in this process"


@pytest.mark.django_db(transaction=True)
def test_a_process_that_calls_start_reads_the_inbox(webhooks, tasks):
    accept(webhooks)
    webhooks.start()
    assert tasks.get(timeout=PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_no_requests_enqueues_no_task(webhooks, tasks):
    """For example a test."""
    before = timers()
    assert accept(webhooks) == 200
    webhooks.wake()
    with pytest.raises(queue.Empty):
        tasks.get(timeout=0.1)
    assert timers() <= before
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
    # One task for the event, and further ones by reading, because no worker handles it.
    assert [tasks.get(timeout=PATIENCE) for _ in range(3)]


# A function as handoff


@pytest.fixture
def announced():
    return queue.Queue()


@pytest.fixture
def own_webhooks(announced):
    webhooks = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff=announced.put)
    webhooks.on("*")(lambda event: None)
    yield webhooks
    webhooks.stop()


@pytest.mark.django_db(transaction=True)
def test_a_server_process_calls_the_function_without_an_event_if_one_is_due(own_webhooks, announced):
    assert accept(own_webhooks) == 200
    assert announced.get(timeout=PATIENCE) != ""
    own_webhooks.ensure_worker()
    assert announced.get(timeout=PATIENCE) == ""


@pytest.mark.django_db(transaction=True)
def test_a_process_that_serves_no_requests_does_not_read_when_events_are_due(own_webhooks, announced):
    """For example a test, whose database could not be removed while a thread is connected to it."""
    before = timers()
    assert accept(own_webhooks) == 200
    assert announced.get(timeout=PATIENCE)
    assert timers() <= before
