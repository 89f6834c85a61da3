"""Connections of background threads after the database server has closed them."""

import queue
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connections

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import due_timer
from envoyou_django import connections as ages
from envoyou_django import webhooks
from envoyou_django.connections import fresh_connections
from envoyou_django.inbox.commits import committed
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from envoyou_django.runtime import DjangoWebhooks
from tests.django.conftest import SECRET
from tests.django.databases import inbox_on

PATIENCE = 20


@pytest.fixture
def postgres(postgres_alias, django_db_blocker, monkeypatch):
    """A PostgreSQL database whose connections have no maximum age."""
    monkeypatch.setitem(connections.settings[postgres_alias], "CONN_MAX_AGE", None)
    with django_db_blocker.unblock(), inbox_on(postgres_alias):
        yield postgres_alias
        webhooks.stop()
        ProcessedEvent.objects.using(postgres_alias).all().delete()


def end_all_other_connections(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_threads_keep_no_connection_while_the_server_refuses_some(postgres, monkeypatch):
    monkeypatch.setattr(ages, "_refused_at", None)
    settings = connections.settings[postgres]

    def keeps_its_connection():
        with fresh_connections():
            assert ProcessedEvent.objects.using(postgres).count() == 0
        return connections[postgres].connection is not None

    def is_refused():
        with pytest.raises(OperationalError), committed(postgres):
            pass

    with ThreadPoolExecutor(1) as worker, ThreadPoolExecutor(1) as writer:
        assert worker.submit(keeps_its_connection).result(PATIENCE)
        with monkeypatch.context() as closed:
            closed.setitem(settings, "PORT", "1")
            writer.submit(is_refused).result(PATIENCE)
        assert not worker.submit(keeps_its_connection).result(PATIENCE)
        monkeypatch.setattr(ages, "SCARCE_FOR", 0.0)
        assert worker.submit(keeps_its_connection).result(PATIENCE)
        worker.submit(connections.close_all).result(PATIENCE)


def test_the_worker_replaces_broken_connections(postgres):
    handled = []
    webhooks.on("shop.opened", name="note")(lambda event: handled.append(event.id))

    def deliver_and_wait():
        event = sample_event("shop.opened")
        delivery = sign_delivery(event, secret=SECRET)
        assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
        deadline = time.monotonic() + PATIENCE
        while webhooks.inbox.get(event.id).status != "processed":
            assert time.monotonic() < deadline, "the event was not handled in time"
            time.sleep(0.02)

    webhooks.start()
    deliver_and_wait()
    assert end_all_other_connections(postgres) > 0
    deliver_and_wait()
    assert len(handled) == 2


def test_polling_for_overdue_events_replaces_broken_connections(postgres, monkeypatch):
    often = due_timer.Intervals(read=0.05, full=0.05, overdue=0.05, longest=0.05)
    monkeypatch.setattr(due_timer, "INTERVALS", often)
    calls = queue.Queue()
    enqueueing = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff="manual", hint=lambda: calls.put("task"))
    delivery = sign_delivery(sample_event(), secret=SECRET)
    assert enqueueing.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    try:
        enqueueing.ensure_worker()
        for _ in range(2):
            # The first task is enqueued at the start, the others because the event is overdue.
            assert [calls.get(timeout=PATIENCE) for _ in range(3)]
            assert end_all_other_connections(postgres) > 0
            while not calls.empty():
                calls.get()
    finally:
        enqueueing.stop()


def test_a_handoff_function_gets_working_connections(postgres):
    calls = queue.Queue()

    def read_event(event_id):
        calls.put(own_webhooks.inbox.get(event_id).event.id)

    own_webhooks = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff=read_event)

    def deliver():
        delivery = sign_delivery(event := sample_event(), secret=SECRET)
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert own_webhooks.receive(request).status == 200
        return event.id

    try:
        first = deliver()
        assert calls.get(timeout=PATIENCE) == first
        assert end_all_other_connections(postgres) > 0
        # The call for the first event finds the broken connection.
        _, last = deliver(), deliver()
        assert calls.get(timeout=PATIENCE) == last
    finally:
        own_webhooks.stop()
