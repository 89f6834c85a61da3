"""The worker in the process that serves: when there is one, and what becomes of its connections."""

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


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_a_workers(thread_name):
    # The thread that stores events lives on, and a time limit's until its end.
    return thread_name.startswith("envoyou-") and thread_name not in {"envoyou-inbox-writer", "envoyou-time-limits"}


def workers():
    return [thread.name for thread in threading.enumerate() if is_a_workers(thread.name)]


def post(client, event):
    delivery = sign_delivery(event, secret=SECRET)
    return client.post(PATH, delivery.body, content_type="application/json", headers=delivery.headers)


def serve(path="/"):
    """One request, as a server passes it on."""
    answered = []
    body = WSGIHandler()(RequestFactory().get(path).environ, lambda status, headers: answered.append(status))
    body.close()
    return answered[0]


@pytest.fixture(autouse=True)
def no_worker_left():
    assert workers() == []
    yield
    webhooks.stop()
    webhooks.inbox.close()
    until(lambda: workers() == [])


def test_a_tests_client_starts_none():
    assert post(Client(), sample_event()).status_code == 200
    assert Client().get("/").status_code == 302
    assert async_to_sync(AsyncClient().get)("/").status_code == 302
    assert workers() == []
    assert webhooks.inbox.stats().by_status["received"] == 1


def test_the_first_request_to_any_url_starts_one():
    """So that what an earlier process left is taken up, whether or not another event comes."""
    post(Client(), sample_event("member.joined", object={"name": "left behind"}))
    assert serve("/").startswith("302")
    until(lambda: Member.objects.filter(name="left behind").exists())
    assert "envoyou-worker-default" in workers()
    before = workers().count("envoyou-worker-default")
    serve("/")
    assert workers().count("envoyou-worker-default") == before == 1


def test_an_acceptance_wakes_it():
    serve()
    post(Client(), event := sample_event("member.joined", object={"name": "Ada"}))
    until(lambda: webhooks.inbox.get(event.id).status == "processed")


def test_none_with_a_manual_hand_off():
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}):
        serve()
        post(Client(), sample_event())
        assert workers() == []


def test_settings_that_cannot_work_do_not_take_other_pages_down(caplog):
    # It is the pages of a site that is up: what is loaded for the first time while there is no secret fails.
    import_module("tests.django.urls")
    with override_settings(ENVOYOU={}):
        assert serve("/").startswith("302")
    assert "no webhook secret" in caplog.text


def test_it_ends_with_the_settings_that_it_was_started_under():
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "NAME": "other"}):
        serve()
        until(lambda: "envoyou-worker-other" in workers())
    until(lambda: workers() == [])


@pytest.fixture
def opened(monkeypatch):
    """The connections that were opened, each with the thread that did it."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    found = []
    connect = BaseDatabaseWrapper.connect

    def noted(self):
        connect(self)
        found.append((threading.current_thread().name, self.connection))

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", noted)
    return found


def is_open(connection):
    import sqlite3

    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed" not in str(error)
    return True


@pytest.mark.parametrize("age", [0, 600, None])
def test_the_connections_of_its_threads_are_closed_with_it(opened, monkeypatch, age):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", age)
    serve()
    for _ in range(3):
        post(Client(), event := sample_event("member.joined", object={"name": "Ada"}))
        until(lambda event=event: webhooks.inbox.get(event.id).status == "processed")
    webhooks.stop()
    until(lambda: workers() == [])
    ours = [connection for thread, connection in opened if is_a_workers(thread)]
    assert ours
    assert not any(is_open(connection) for connection in ours)
    if age != 0:
        # They are kept while it works.
        threads = [thread for thread, _ in opened if is_a_workers(thread)]
        assert len(threads) == len(set(threads))


def test_a_drain_leaves_the_connection_of_its_caller_alone(opened, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 600)
    connections["default"].close()
    post(Client(), sample_event("member.joined", object={"name": "Ada"}))
    assert webhooks.drain() == 1
    assert len(opened) == 1
