"""psycopg's pool in Django's `OPTIONS`: handlers leave connections to acceptance and to settlements."""

import threading
import time

import pytest
from django.core.checks import run_checks
from django.db import connections
from django.test import override_settings

from envoyou_core import WebhookRequest
from envoyou_core.adapter import RESERVED
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.observability import DatabaseFailed, HandlersBounded
from envoyou_core.reception import receiver
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.inbox.pools import max_connections
from tests.django.conftest import SECRET

PATIENCE = 20

pytestmark = pytest.mark.parametrize("inbox_alias", ["postgresql"], indirect=True)


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


@pytest.fixture
def pool(inbox_alias, monkeypatch):
    """Gives the inbox's database a pool of a size."""
    pytest.importorskip("psycopg_pool")

    def use(size):
        connections[inbox_alias].close()
        options = {"pool": {"min_size": 1, "max_size": size, "timeout": PATIENCE}}
        monkeypatch.setitem(connections.settings[inbox_alias], "OPTIONS", options)
        # A thread that ends late makes a pool anew when it closes its connection.
        connections[inbox_alias].close_pool()

    yield use
    webhooks.stop()
    webhooks.inbox.close()
    connections[inbox_alias].close()
    connections[inbox_alias].close_pool()


def test_acceptance_and_settlements_go_on_while_all_handlers_hold_a_connection(inbox_alias, pool):
    pool(RESERVED + 2)
    notices, running, most = [], [], []
    release = threading.Event()
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CONCURRENCY": 8}):
        webhooks.subscribe(notices.append)

        @webhooks.on("shop.opened", name="waits")
        def waits(event):
            running.append(event.id)
            most.append(len(running))
            release.wait(PATIENCE)
            running.remove(event.id)

        for _ in range(6):
            webhooks.inbox.add(NewEvent(sample_event("shop.opened"))).result(PATIENCE)
        connections[inbox_alias].close()
        webhooks.start()
        try:
            wait_until(lambda: len(running) == 2)
            added = webhooks.inbox.add(NewEvent(sample_event("shop.opened"))).result(PATIENCE)
            release.set()
            wait_until(lambda: webhooks.inbox.stats().by_status[Status.PROCESSED] == 7)
        finally:
            release.set()
            webhooks.stop()
    assert (added, max(most)) == (Added.NEW, 2)
    assert any(isinstance(notice, HandlersBounded) for notice in notices)
    assert not any(isinstance(notice, DatabaseFailed) for notice in notices)


def test_a_503_because_of_an_exhausted_pool_names_the_pool(inbox_alias, pool, monkeypatch, caplog):
    pool(2)
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.05)
    others = [connections.create_connection(inbox_alias) for _ in range(2)]
    webhooks.inbox.shares_commits = True
    delivery = sign_delivery(sample_event(), secret=SECRET)
    try:
        for other in others:
            other.ensure_connection()
        response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    finally:
        for other in others:
            other.close()
    assert response.status == 503
    assert "all 2 connections of its pool are in use" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected", "problems"),
    [
        ({}, None, []),
        ({"pool": True}, 4, ["envoyou.W014"]),
        ({"pool": {"min_size": 2, "max_size": 12}}, 12, []),
        ({"pool": {"min_size": 1}}, 1, ["envoyou.E006"]),
    ],
)
def test_the_size_of_the_pool_is_checked(inbox_alias, options, expected, problems, monkeypatch):
    monkeypatch.setitem(connections.settings[inbox_alias], "OPTIONS", options)
    assert max_connections(inbox_alias) == expected
    found = {message.id for message in run_checks(tags=["envoyou"])}
    assert found & {"envoyou.W014", "envoyou.E006"} == set(problems)
