"""The entry in front of the project: what it spares a delivery, and what it owes it all the same."""

import asyncio
import time

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import RequestFactory, override_settings

from envoyou_core import ConfigurationError, asgi, wsgi
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/webhooks/envoyou"
PATIENCE = 20


def deliver_by_wsgi(event, path=PATH):
    delivery = sign_delivery(event, secret=SECRET)
    request = RequestFactory().post(path, delivery.body, content_type="application/json", headers=delivery.headers)
    answered = []
    application = wsgi.webhooks_entry(WSGIHandler(), webhooks, path=PATH)
    body = application(request.environ, lambda status, headers: answered.append(status))
    b"".join(body)
    getattr(body, "close", lambda: None)()
    return int(answered[0].split()[0])


def deliver_by_asgi(event, path=PATH):
    delivery = sign_delivery(event, secret=SECRET)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in delivery.headers.items()],
        "server": ("127.0.0.1", 80),
    }
    sent = []
    messages = [{"type": "http.request", "body": delivery.body}]

    async def receive():
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message):
        sent.append(message)

    async_to_sync(asgi.webhooks_entry(ASGIHandler(), webhooks, path=PATH))(scope, receive, send)
    return sent[0]["status"]


@pytest.fixture(params=[deliver_by_wsgi, deliver_by_asgi], ids=["wsgi", "asgi"])
def deliver(request, settings):
    settings.ROOT_URLCONF = "tests.django.no_urls"
    yield request.param
    webhooks.stop()


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_delivery_starts_the_worker_of_this_process(deliver):
    event = sample_event("member.joined", object={"name": "Ada"})
    assert deliver(event) == 200
    until(lambda: webhooks.inbox.get(event.id).status == "processed")
    assert Member.objects.get().name == "Ada"


@pytest.mark.parametrize("path", ["/", f"{PATH}/x"])
def test_everything_else_is_the_projects(deliver, path):
    # A sender's POST to a page has no token.
    assert deliver(sample_event(), path) in {302, 403, 404}
    assert webhooks.inbox.stats().total == 0


def secret_from_the_database(webhook_id):
    return [SECRET] if Member.objects.count() == 0 else []


def test_the_connection_of_a_secret_callable_is_closed_as_after_a_request(deliver, monkeypatch):
    opened = []
    connect = BaseDatabaseWrapper.connect

    def noted(self):
        connect(self)
        opened.append(self)

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", noted)
    connections["default"].close()
    secret = f"{__name__}.secret_from_the_database"
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": secret, "HANDOFF": "manual"}):
        assert deliver(sample_event()) == 200
    assert opened
    until(lambda: all(each.connection is None for each in opened))


@pytest.mark.parametrize("kind", [wsgi, asgi])
def test_settings_that_cannot_work_stop_the_server(kind):
    with override_settings(ENVOYOU={}), pytest.raises(ConfigurationError, match="no webhook secret"):
        kind.webhooks_entry(None, webhooks, path=PATH)
