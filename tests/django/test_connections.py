"""What becomes of the worker's connections when the database server ends them."""

import queue
import time

import pytest
from django.db import connections

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import waker, webhooks
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from envoyou_django.project import DjangoWebhooks
from tests.django.conftest import SECRET
from tests.django.databases import inbox_on

PATIENCE = 20


@pytest.fixture
def postgres(postgres_alias, django_db_blocker, monkeypatch):
    """A PostgreSQL database whose connections are never closed for their age."""
    monkeypatch.setitem(connections.settings[postgres_alias], "CONN_MAX_AGE", None)
    with django_db_blocker.unblock(), inbox_on(postgres_alias):
        yield postgres_alias
        webhooks.stop()
        ProcessedEvent.objects.using(postgres_alias).all().delete()


def end_all_connections_but_this(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_broken_ones_are_replaced(postgres):
    handled = []
    webhooks.on("shop.opened", name="note")(lambda event: handled.append(event.id))

    def deliver_and_wait():
        event = sample_event("shop.opened")
        delivery = sign_delivery(event, secret=SECRET)
        assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
        deadline = time.monotonic() + PATIENCE
        while webhooks.inbox.get(event.id).status != "processed":
            assert time.monotonic() < deadline, "the worker did not get over it"
            time.sleep(0.02)

    webhooks.start()
    deliver_and_wait()
    assert end_all_connections_but_this(postgres) > 0
    deliver_and_wait()
    assert len(handled) == 2


def test_who_hints_at_what_waits_gets_over_broken_ones(postgres, monkeypatch):
    for name in ("SWEEP_INTERVAL", "MAX_SWEEP_INTERVAL", "MAX_OVERDUE"):
        monkeypatch.setattr(waker, name, 0.05)
    told = queue.Queue()
    hinting = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff="manual", hint=lambda: told.put("hint"))
    delivery = sign_delivery(sample_event(), secret=SECRET)
    assert hinting.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    try:
        hinting.ensure_worker()
        for _ in range(2):
            # The first says that it begins; what follows was found in the inbox.
            assert [told.get(timeout=PATIENCE) for _ in range(3)]
            assert end_all_connections_but_this(postgres) > 0
            while not told.empty():
                told.get()
    finally:
        hinting.stop()


def test_a_function_that_is_told_of_events_gets_over_broken_ones(postgres):
    told = queue.Queue()

    def look(event_id):
        told.put(webhooks_of_its_own.inbox.get(event_id).event.id)

    webhooks_of_its_own = DjangoWebhooks(secret=SECRET, inbox=OrmInbox(), handoff=look)

    def deliver():
        delivery = sign_delivery(event := sample_event(), secret=SECRET)
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert webhooks_of_its_own.receive(request).status == 200
        return event.id

    try:
        first = deliver()
        assert told.get(timeout=PATIENCE) == first
        assert end_all_connections_but_this(postgres) > 0
        # The first finds that the connection is broken.
        _, last = deliver(), deliver()
        assert told.get(timeout=PATIENCE) == last
    finally:
        webhooks_of_its_own.stop()
