"""The views: both forms of the path, with any middleware, under WSGI and ASGI."""

import asyncio
import json
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest
from asgiref.sync import async_to_sync
from django.core import mail
from django.core.handlers.asgi import ASGIHandler
from django.test import AsyncClient, Client, override_settings
from django.urls import reverse

from envoyou_core import WebhookRequest
from envoyou_core.testing import Delivery, sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.models import ProcessedEvent
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("urlconf")]

PATH = "/webhooks/envoyou"


def signed(event=None):
    return sign_delivery(sample_event() if event is None else event, secret=SECRET)


def post(client, delivery, path=PATH, **values):
    return client.post(path, delivery.body, content_type="application/json", headers=delivery.headers, **values)


@pytest.fixture(params=["urls", "async_urls"])
def urlconf(request, settings):
    """Both views work under both kinds of server."""
    settings.ROOT_URLCONF = f"tests.django.{request.param}"
    return request.param


@pytest.fixture
def client():
    """All of Django's checks for browsers are enabled."""
    return Client(enforce_csrf_checks=True)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("append_slash", [True, False])
def test_the_path_matches_with_and_without_a_final_slash(client, settings, slash, append_slash):
    settings.APPEND_SLASH = append_slash
    answer = post(client, signed(), PATH + slash)
    assert (answer.status_code, answer.json()) == (200, {"received": True})


@pytest.mark.parametrize("path", [PATH + "//", PATH + "/x", PATH + "x", PATH + "%0A"])
def test_other_paths_do_not_match(client, path):
    assert post(client, signed(), path).status_code == 404


def test_the_url_can_be_reversed_by_name():
    assert reverse("envoyou:receive") == PATH


def test_a_sender_needs_no_session_login_or_token(client):
    answer = post(client, signed())
    assert answer.status_code == 200
    assert not answer.cookies
    # The middleware is active.
    assert client.get("/").status_code == 302


def test_the_response_has_no_other_headers(client):
    delivery = signed()
    headers = {"Accept-Encoding": "gzip", "If-None-Match": "*"}
    answer = client.post(PATH, delivery.body, content_type="application/json", headers={**delivery.headers, **headers})
    assert (answer.status_code, answer.content) == (200, b'{"received": true}')
    assert answer.headers["Content-Type"] == "application/json"
    assert "Content-Encoding" not in answer.headers
    refused = client.get(PATH, headers=headers)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert refused.json()["error"] == "method_not_allowed"


@pytest.mark.parametrize("name", ["reads_the_body", "asks_for_the_form"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_middleware_may_read_the_body_first(settings, name, kind):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"tests.django.middleware.{name}"]
    delivery = signed()
    if kind == "wsgi":
        answer = post(Client(), delivery)
    else:
        headers = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
        answer = async_to_sync(AsyncClient().post)(
            PATH, delivery.body, content_type="application/json", headers=headers
        )
    assert answer.status_code == 200
    assert bytes(ProcessedEvent.objects.get().body) == delivery.body


def test_djangos_limit_on_a_body_is_not_applied(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert post(client, signed()).status_code == 200
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "MAX_BODY_SIZE": 100}):
        answer = post(client, Delivery(signed().headers, b"x" * 101))
    assert (answer.status_code, answer.json()["error"]) == (413, "payload_too_large")


class FailingInput:
    """A server's input of which every read fails."""

    def __init__(self, error):
        self.error = error

    def read(self, size=-1):
        raise self.error

    readline = read


class MalformedChunkError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "status"), [(MalformedChunkError("zz"), 400), (OSError("zz"), 400), (ConnectionResetError(), 499)]
)
@pytest.mark.parametrize("length", ["", "100"], ids=["chunked", "sized"])
def test_an_unreadable_body_is_not_mailed_to_the_admins(settings, caplog, error, status, length):
    settings.ADMINS = [("an admin", "admin@example.com")]
    server = {
        "wsgi.input": FailingInput(error),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": length,
        **({} if length else {"HTTP_TRANSFER_ENCODING": "chunked"}),
    }
    answer = Client(raise_request_exception=False).post(PATH, content_type="application/json", **server)
    assert answer.status_code == status
    assert mail.outbox == []
    [record] = [record for record in caplog.records if record.name == "envoyou"]
    assert record.getMessage().startswith(f"answered {status}: ")
    assert not any(record.exc_info for record in caplog.records)


# ASGI


@async_to_sync
async def ask(scope_headers, body, *, path=PATH, method="POST"):
    """Send one request to the ASGI application, in two messages."""
    sent = []
    half = len(body) // 2
    messages = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive():
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": scope_headers,
        "server": ("127.0.0.1", 80),
    }
    await ASGIHandler()(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def raw(headers):
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.django_db(transaction=True)
def test_asgi(settings):
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "MAX_BODY_SIZE": 1000, "HANDOFF": "manual"}
    delivery = signed()
    headers = raw(delivery.headers)
    length = (b"content-length", str(len(delivery.body)).encode())
    assert ask([*headers, length], delivery.body) == (200, {"received": True})
    # A chunked body has no length.
    assert ask(headers, delivery.body) == (200, {"received": True, "duplicate": True})
    assert ask(headers, b"x" * 1001)[0] == 413
    assert ask(headers, delivery.body.replace(b"user.created", b"user.deleted"))[0] == 401
    assert ask(headers, b"", method="GET")[0] == 405
    assert ProcessedEvent.objects.count() == 1


def test_the_async_entry_works_within_the_tests_transaction(settings):
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}
    delivery = signed(sample_event("member.joined", object={"name": "Ada"}))
    request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
    assert async_to_sync(webhooks.areceive)(request).status == 200
    assert async_to_sync(webhooks.adrain)() == 1
    assert Member.objects.get().name == "Ada"


# gunicorn: bodies in chunks


@pytest.fixture
def gunicorn(tmp_path, urlconf):
    (tmp_path / "project.py").write_text(
        f"""
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "project.db")!r}}}}},
    INSTALLED_APPS=["envoyou_django"],
    ROOT_URLCONF="project",
    MIDDLEWARE=["project.reads_the_body"],
    ENVOYOU={{"WEBHOOK_SECRET": {SECRET!r}, "HANDOFF": "manual", "MAX_BODY_SIZE": 1000}},
)
def reads_the_body(get_response):
    def middleware(request):
        request.body
        return get_response(request)
    return middleware
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.urls import include, path
urlpatterns = [path("webhooks/envoyou", include("envoyou_django.{urlconf}"))]
"""
    )
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}", "--workers", "1", "project"],
            cwd=tmp_path,
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield listening.getsockname()
        finally:
            server.terminate()
            server.wait(30)


def send_in_chunks(address, delivery):
    connection = HTTPConnection(*address, timeout=30)
    pieces = (delivery.body[start : start + 100] for start in range(0, len(delivery.body), 100))
    connection.request("POST", PATH, pieces, delivery.headers, encode_chunked=True)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_chunked_body_arrives_complete_under_gunicorn(gunicorn):
    delivery = signed()
    assert send_in_chunks(gunicorn, delivery) == (200, {"received": True})
    assert send_in_chunks(gunicorn, delivery) == (200, {"received": True, "duplicate": True})
    assert send_in_chunks(gunicorn, Delivery(delivery.headers, b"x" * 1001))[0] == 413
