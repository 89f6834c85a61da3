"""What the client makes of everything that a server, a proxy or a network may answer."""

import logging
import socket
import traceback

import httpx2
import pytest

from envoyou_core.client import (
    ApiConnectionError,
    ApiStatusError,
    ApiTimeoutError,
    InvalidResponseError,
    OutcomeUnknownError,
    ServerError,
)
from tests.client.conftest import KEY
from tests.client.server import CUT, HANG, Trickle, answer, serving

WEBHOOK = {"id": "wh_1", "url": "https://shop.example/hooks", "events": ["user.created"], "active": True}
GOOD = answer(200, WEBHOOK)
HTML = b"<html><body>It works!</body></html>"


def get(client):
    return client.webhooks.get("wh_1")


def create(client):
    return client.webhooks.create(url="https://shop.example/hooks", events=["user.created"], secret="whsec_private")


NOT_OF_THE_API = {
    "an HTML page": (answer(200, HTML, "text/html"), "expected JSON, got text/html"),
    "an empty body": (answer(200, b""), "the body is empty"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "the body is empty"),
    "no content type": (answer(200, WEBHOOK, ""), "got no content type"),
    "truncated JSON": (answer(200, b'{"id": "wh_1", "url'), "not valid JSON"),
    "not UTF-8": (answer(200, b'{"id": "\xff"}'), "not valid JSON"),
    "very deep JSON": (answer(200, b"[" * 100_000), "not valid JSON"),
    "an array": (answer(200, [WEBHOOK]), "expected a webhook as a JSON object, got list"),
    "a missing member": (answer(200, {"id": "wh_1"}), "missing required field `url`"),
    "another type": (answer(200, {**WEBHOOK, "active": "whsec_x"}), r"got `str` - at `\$.active`"),
}
CUTS = {
    "after the request": CUT,
    "in the status line": b"HTTP/1.1 20",
    "in the headers": GOOD[:40],
    "before the body": GOOD.partition(b"{")[0],
    "in the body": GOOD[:-10],
    "in a chunk": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "not gzip": answer(200, b"{}", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("odd", NOT_OF_THE_API)
def test_a_success_that_is_not_of_the_api_is_an_invalid_response(odd, caller):
    sent, problem = NOT_OF_THE_API[odd]
    with serving(sent) as server, pytest.raises(InvalidResponseError, match=problem) as raised:
        caller.call(server, get)
    assert raised.value.status in (200, 204)
    assert "whsec_x" not in str(raised.value)


@pytest.mark.parametrize("odd", ["an HTML page", "204", "truncated JSON"])
def test_it_leaves_a_creation_unknown(odd, caller):
    with serving(NOT_OF_THE_API[odd][0]) as server, pytest.raises(OutcomeUnknownError) as raised:
        caller.call(server, create)
    assert isinstance(raised.value.reason, InvalidResponseError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_connection_is_repeated_if_that_is_safe(cut, caller):
    with serving(CUTS[cut], CUTS[cut], GOOD) as server:
        assert caller.call(server, get).id == "wh_1"
    assert [request.method for request in server.requests] == ["GET"] * 3
    assert len(caller.waits) == 2

    with serving(CUTS[cut]) as server, pytest.raises(OutcomeUnknownError) as raised:
        caller.call(server, create)
    assert isinstance(raised.value.reason, ApiConnectionError)
    assert [request.method for request in server.requests] == ["POST"]


def test_a_connection_that_is_cut_before_the_request_is_read(caller):
    with serving(CUT, CUT, CUT, reads=False) as server, pytest.raises(ApiConnectionError, match="no complete response"):
        caller.call(server, get)
    assert server.answers == []


def test_a_refused_connection_is_repeated_even_for_a_creation(caller):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ApiConnectionError, match="cannot connect to the API"):
        caller.call(f"http://127.0.0.1:{port}", create)
    assert len(caller.waits) == 2


@pytest.mark.parametrize("slow", [HANG, Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")], ids=str)
def test_a_slow_server_is_given_up(slow, caller):
    with serving(slow) as server, pytest.raises(ApiTimeoutError):
        caller.call(server, get, timeout=0.2, max_retries=0)
    with serving(slow) as server, pytest.raises(OutcomeUnknownError):
        caller.call(server, create, timeout=0.2)


def test_an_endless_body_is_given_up(caller, monkeypatch):
    monkeypatch.setattr("envoyou_core.client.transports.MAX_BODY", 1000)
    with serving(answer(200, b" " * 1001)) as server, pytest.raises(InvalidResponseError, match="more than 1000 bytes"):
        caller.call(server, get)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status, caller):
    kind = httpx2.Client if caller.kind == "blocking" else httpx2.AsyncClient
    http_client = kind(follow_redirects=True)
    with serving() as elsewhere, serving(answer(status, b"", "", Location=elsewhere.url)) as server:
        with pytest.raises(ApiStatusError, match="a redirect, which is not followed") as raised:
            caller.call(server, get, http_client=http_client)
        assert elsewhere.requests == []
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (answer(502, HTML, "text/html"), "502: the response has no JSON error, but text/html of 35 bytes"),
        (answer(500, b"", ""), "500: the response has no JSON error, but no content type of 0 bytes"),
        (answer(503, b'{"error": {'), "503: the response has no JSON error, but application/json of 11 bytes"),
        (answer(500, [1]), "500: the response has no JSON error, but application/json of 3 bytes"),
        (answer(500, {"error": 5}), "500: the response has no JSON error, but application/json of 12 bytes"),
    ],
)
def test_an_error_in_neither_form(sent, text, blocking):
    with serving(sent) as server, pytest.raises(ServerError) as raised:
        blocking.call(server, get, max_retries=0)
    assert str(raised.value) == text


def test_even_a_short_key_is_in_no_error(blocking):
    echoing = answer(401, {"error": "unauthorized", "message": "The key k1 is unknown."})
    with serving(echoing) as server, pytest.raises(ApiStatusError) as raised:
        blocking.call(server, get, api_key="k1")
    assert str(raised.value) == "401 unauthorized: The key [redacted] is unknown."


def test_the_key_and_the_secrets_are_nowhere_to_be_seen(caller, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "a secret with spaces"
    echoing = answer(400, {"error": "invalid_request", "message": f"{secret} and value of header, {KEY}"})

    def echoed(client):
        assert KEY not in repr(client) + repr(vars(client))
        return client.webhooks.create(
            url="https://shop.example/hooks", events=[], secret=secret, headers={"X-Token": "value of header"}
        )

    failures = []
    for sent, action in ((echoing, echoed), (CUT, create), (answer(200, HTML), create), (answer(500), create)):
        with serving(sent) as server, pytest.raises(Exception) as raised:  # noqa: PT011
            caller.call(server, action)
        failures.append(raised.value)
    for error in failures:
        assert (error.__cause__, error.__context__) == (None, None)
        assert KEY not in f"{error!s}{error!r}{error.message}"
    stack = traceback.TracebackException.from_exception(failures[1], capture_locals=True).stack
    ours = [frame for frame in stack if "/envoyou_core/" in frame.filename]
    assert len(ours) > 3
    assert [frame for frame in ours if KEY in str(frame.locals)] == []
    assert "whsec_private" not in str(failures[1])
    assert str(failures[0]) == "400 invalid_request: [redacted] and [redacted], [redacted]"
    assert KEY not in caplog.text
