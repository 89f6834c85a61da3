"""The worker in a server process: when it is started, and its connections."""

import threading
import time
from importlib import import_module

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import AsyncClient, Client, RequestFactory, override_settings

from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/webhooks/envoyou"
PATIENCE = 20


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def belongs_to_worker(thread_name):
    # These threads outlive the worker: one stores events, one waits for the end of a time limit, one stores counts.
    others = {"envoyou-inbox-writer", "envoyou-time-limits", "envoyou-ticker"}
    return thread_name.startswith("envoyou-") and thread_name not in others


def worker_threads():
    return [thread.name for thread in threading.enumerate() if belongs_to_worker(thread.name)]


def post(client, event):
    delivery = sign_delivery(event, secret=SECRET)
    return client.post(PATH, delivery.body, content_type="application/json", headers=delivery.headers)


def serve(path="/"):
    """Handle one request as a server does."""
    statuses = []
    body = WSGIHandler()(RequestFactory().get(path).environ, lambda status, headers: statuses.append(status))
    body.close()
    return statuses[0]


@pytest.fixture(autouse=True)
def no_remaining_worker():
    assert worker_threads() == []
    yield
    webhooks.stop()
    webhooks.inbox.close()
    wait_until(lambda: worker_threads() == [])


def test_a_test_client_starts_no_worker():
    assert post(Client(), sample_event()).status_code == 200
    assert Client().get("/").status_code == 302
    assert async_to_sync(AsyncClient().get)("/").status_code == 302
    assert worker_threads() == []
    assert webhooks.inbox.stats().by_status["received"] == 1


def test_the_first_request_to_any_url_starts_a_worker():
    """So that the events of an earlier process are handled even if no further event arrives."""
    post(Client(), sample_event("member.joined", object={"name": "left behind"}))
    assert serve("/").startswith("302")
    wait_until(lambda: Member.objects.filter(name="left behind").exists())
    assert "envoyou-worker-default" in worker_threads()
    before = worker_threads().count("envoyou-worker-default")
    serve("/")
    assert worker_threads().count("envoyou-worker-default") == before == 1


def test_an_accepted_event_wakes_the_worker():
    serve()
    post(Client(), event := sample_event("member.joined", object={"name": "Ada"}))
    wait_until(lambda: webhooks.inbox.get(event.id).status == "processed")


def test_a_manual_handoff_starts_no_worker():
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}):
        serve()
        post(Client(), sample_event())
        assert worker_threads() == []


def test_invalid_settings_do_not_break_other_pages(caplog):
    # The site is running: a module that is first imported without a secret would fail.
    import_module("tests.django.urls")
    with override_settings(ENVOYOU={}):
        assert serve("/").startswith("302")
    assert "the webhook secret is missing" in caplog.text


def test_a_worker_ends_with_an_override_of_its_settings():
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "NAME": "other"}):
        serve()
        wait_until(lambda: "envoyou-worker-other" in worker_threads())
    wait_until(lambda: worker_threads() == [])


@pytest.fixture
def opened(monkeypatch):
    """The connections that were opened, each with the name of the thread that opened it."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    opened_connections = []
    connect = BaseDatabaseWrapper.connect

    def record_connect(self):
        connect(self)
        opened_connections.append((threading.current_thread().name, self.connection))

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", record_connect)
    return opened_connections


def is_open(connection):
    import sqlite3

    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed" not in str(error)
    return True


@pytest.mark.parametrize("max_age", [0, 600, None])
def test_the_connections_of_worker_threads_are_closed_when_it_stops(opened, monkeypatch, max_age):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", max_age)
    serve()
    for _ in range(3):
        post(Client(), event := sample_event("member.joined", object={"name": "Ada"}))
        wait_until(lambda event=event: webhooks.inbox.get(event.id).status == "processed")
    webhooks.stop()
    wait_until(lambda: worker_threads() == [])
    worker_connections = [connection for thread, connection in opened if belongs_to_worker(thread)]
    assert worker_connections
    assert not any(is_open(connection) for connection in worker_connections)
    if max_age != 0:
        # They are kept open while the worker runs.
        threads = [thread for thread, _ in opened if belongs_to_worker(thread)]
        assert len(threads) == len(set(threads))


def test_a_drain_keeps_the_connection_of_its_caller_open(opened, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 600)
    connections["default"].close()
    post(Client(), sample_event("member.joined", object={"name": "Ada"}))
    assert webhooks.drain() == 1
    assert len(opened) == 1
