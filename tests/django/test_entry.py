"""The entry in front of the Django application, which receives deliveries without the project's middleware."""

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
    statuses = []
    application = wsgi.webhooks_entry(WSGIHandler(), webhooks, path=PATH)
    body = application(request.environ, lambda status, headers: statuses.append(status))
    b"".join(body)
    getattr(body, "close", lambda: None)()
    return int(statuses[0].split()[0])


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


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def test_a_delivery_starts_the_worker_of_this_process(deliver):
    event = sample_event("member.joined", object={"name": "Ada"})
    assert deliver(event) == 200
    wait_until(lambda: webhooks.inbox.get(event.id).status == "processed")
    assert Member.objects.get().name == "Ada"


@pytest.mark.parametrize("path", ["/", f"{PATH}/x"])
def test_all_other_requests_go_to_the_project(deliver, path):
    # The POST to a page has no CSRF token.
    assert deliver(sample_event(), path) in {302, 403, 404}
    assert webhooks.inbox.stats().total == 0


def secret_from_the_database(webhook_id):
    return [SECRET] if Member.objects.count() == 0 else []


def test_connections_of_a_secret_callable_are_closed_after_the_delivery(deliver, monkeypatch):
    opened = []
    connect = BaseDatabaseWrapper.connect

    def record_connect(self):
        connect(self)
        opened.append(self)

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", record_connect)
    connections["default"].close()
    secret = f"{__name__}.secret_from_the_database"
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": secret, "HANDOFF": "manual"}):
        assert deliver(sample_event()) == 200
    assert opened
    wait_until(lambda: all(each.connection is None for each in opened))


@pytest.mark.parametrize("kind", [wsgi, asgi])
def test_invalid_settings_keep_the_server_from_starting(kind):
    with override_settings(ENVOYOU={}), pytest.raises(ConfigurationError, match="the webhook secret is missing"):
        kind.webhooks_entry(None, webhooks, path=PATH)
