"""The ASGI and WSGI readers, message by message; the contract suite runs them behind real servers."""

import asyncio
import io
import json

import pytest

from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.asgi import WebhookEndpoint
from envoyou_core.http import content_length
from envoyou_core.observability import Rejected
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import DRAIN_LIMIT, CheckedInput, receive_wsgi, webhooks_entry

SECRET = "whsec_test"


@pytest.fixture
def webhooks():
    return Webhooks(secret=SECRET, inbox="memory:", handoff="manual")


@pytest.fixture
def delivery():
    return sign_delivery(sample_event(id="evt_1"), secret=SECRET)


def stored(webhooks):
    return webhooks.inbox.stats().total


# ASGI


class Server:
    """An ASGI request that counts the messages that are read."""

    def __init__(self, headers, chunks, *, method="POST", disconnects=False):
        self.scope = {
            "type": "http",
            "method": method,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        self.messages = [
            {"type": "http.request", "body": chunk, "more_body": disconnects or position < len(chunks) - 1}
            for position, chunk in enumerate(chunks)
        ] + [{"type": "http.disconnect"}]
        self.read = 0
        self.sent = []

    async def receive(self):
        self.read += 1
        return self.messages[self.read - 1]

    async def send(self, message):
        self.sent.append(message)

    def ask(self, webhooks):
        asyncio.run(WebhookEndpoint(webhooks)(self.scope, self.receive, self.send))
        start, body = self.sent
        headers = dict(start["headers"])
        if self.scope["method"] != "HEAD":
            assert headers[b"content-length"] == str(len(body["body"])).encode()
        assert headers[b"content-type"] == b"application/json"
        return start["status"], body["body"]


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_asgi_reads_a_body_in_several_messages(webhooks, delivery, cut):
    status, body = Server(delivery.headers, [delivery.body[:cut], delivery.body[cut:]]).ask(webhooks)
    assert (status, json.loads(body)) == (200, {"received": True})
    assert webhooks.inbox.get("evt_1").event.body == delivery.body


def test_asgi_reads_a_message_without_a_body_as_empty(webhooks, delivery):
    server = Server(delivery.headers, [delivery.body])
    server.messages.insert(0, {"type": "http.request", "more_body": True})
    assert server.ask(webhooks)[0] == 200


def test_asgi_refuses_a_declared_size_and_drains_the_body(webhooks, delivery):
    server = Server(delivery.headers | {"Content-Length": "1048577"}, [b"x" * 524_288, b"x" * 524_289])
    status, body = server.ask(webhooks)
    assert (status, json.loads(body)["error"]) == (413, "payload_too_large")
    assert server.read == 2


def test_asgi_stops_reading_an_endless_body(webhooks, delivery):
    server = Server(delivery.headers, [b"x" * 1_048_576] * 100, disconnects=True)
    assert server.ask(webhooks)[0] == 413
    assert server.read <= 2 + DRAIN_LIMIT // 1_048_576


@pytest.mark.parametrize(("length", "read"), [(DRAIN_LIMIT, 1), (DRAIN_LIMIT + 1, 0)])
def test_asgi_does_not_request_a_refused_body_that_is_too_large_to_drain(webhooks, delivery, length, read):
    server = Server(delivery.headers | {"Content-Length": str(length), "Expect": "100-continue"}, [b"x"])
    assert server.ask(webhooks)[0] == 413
    assert server.read == read


def test_asgi_stores_nothing_if_the_sender_disconnects(webhooks, delivery):
    server = Server(delivery.headers, [delivery.body], disconnects=True)
    asyncio.run(WebhookEndpoint(webhooks)(server.scope, server.receive, server.send))
    # For middleware, which logs an error if there is no response.
    assert [message.get("status", message.get("body")) for message in server.sent] == [499, b""]
    assert stored(webhooks) == 0


def test_asgi_sends_a_refusal_although_the_sender_has_disconnected(webhooks, delivery):
    assert Server(delivery.headers, [b"x"], method="PUT", disconnects=True).ask(webhooks)[0] == 405


def test_asgi_head_has_headers_and_no_body(webhooks, delivery):
    server = Server(delivery.headers, [b""], method="HEAD")
    assert server.ask(webhooks) == (405, b"")
    assert (b"allow", b"POST") in server.sent[0]["headers"]


# WSGI


class Input(io.BytesIO):
    """A body that counts the bytes that are read, and may end early."""

    breaks_off = False

    def read(self, size=-1):
        assert size >= 0, "it must not be read to an end that the server may not know"
        if self.breaks_off and self.tell():
            raise ConnectionResetError
        return super().read(size)


def environ_of(delivery, *, length=True, **more):
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": Input(delivery.body),
        **{
            "HTTP_" + name.upper().replace("-", "_"): value
            for name, value in delivery.headers.items()
            if name != "Content-Type"
        },
    }
    if length:
        environ["CONTENT_LENGTH"] = str(len(delivery.body))
    return environ | more


def test_wsgi_reads_the_declared_length(webhooks, delivery):
    environ = environ_of(delivery)
    environ["wsgi.input"] = Input(delivery.body + b"of the next request")
    assert receive_wsgi(webhooks, environ).status == 200
    assert environ["wsgi.input"].tell() == len(delivery.body)


def test_wsgi_accepts_a_body_that_has_been_read_already(webhooks, delivery):
    environ = environ_of(delivery)
    environ["wsgi.input"].seek(0, io.SEEK_END)
    assert receive_wsgi(webhooks, environ, delivery.body).status == 200


def test_wsgi_reads_a_chunked_body_if_the_server_signals_its_end(webhooks, delivery):
    environ = environ_of(delivery, length=False, **{"wsgi.input_terminated": True})
    assert receive_wsgi(webhooks, environ).status == 200


@pytest.mark.parametrize("length", [None, ""])
def test_wsgi_reads_a_request_without_a_length_as_empty(webhooks, delivery, length):
    environ = environ_of(delivery, length=False, **({} if length is None else {"CONTENT_LENGTH": length}))
    assert receive_wsgi(webhooks, environ).status == 401
    assert environ["wsgi.input"].tell() == 0


def test_wsgi_does_not_read_chunks_if_the_server_does_not_decode_them(webhooks, delivery):
    environ = environ_of(delivery, length=False, HTTP_TRANSFER_ENCODING="chunked")
    assert receive_wsgi(webhooks, environ).status == 411
    assert environ["wsgi.input"].tell() == 0


@pytest.mark.parametrize("length", ["abc", "-1", "+5", "5, 5", "5,5", "0x10", "²", "\u20ac"])
def test_wsgi_refuses_a_malformed_length(webhooks, delivery, length):
    environ = environ_of(delivery, CONTENT_LENGTH=length)
    response = receive_wsgi(webhooks, environ)
    assert (response.status, json.loads(response.body)["error"]) == (400, "invalid_payload")
    assert environ["wsgi.input"].tell() == 0


def test_wsgi_accepts_white_space_around_a_length(webhooks, delivery):
    assert receive_wsgi(webhooks, environ_of(delivery, CONTENT_LENGTH=f" {len(delivery.body)} \t")).status == 200


@pytest.mark.parametrize("length", ["1", "1000000"])
def test_wsgi_ignores_a_length_that_is_sent_with_chunks(webhooks, delivery, length):
    more = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": length}
    assert receive_wsgi(webhooks, environ_of(delivery, **more)).status == 200


def test_wsgi_refuses_a_declared_size_and_drains_up_to_a_limit(webhooks, delivery):
    environ = environ_of(delivery, CONTENT_LENGTH=str(10**12))
    environ["wsgi.input"] = Input(b"x" * (DRAIN_LIMIT + 100))
    assert receive_wsgi(webhooks, environ).status == 413
    assert environ["wsgi.input"].tell() == DRAIN_LIMIT


def test_wsgi_stops_reading_an_endless_body(webhooks, delivery):
    environ = environ_of(delivery, length=False, **{"wsgi.input_terminated": True})
    environ["wsgi.input"] = Input(b"x" * (3 * DRAIN_LIMIT))
    assert receive_wsgi(webhooks, environ).status == 413
    assert environ["wsgi.input"].tell() <= DRAIN_LIMIT + webhooks.max_body_size + 1


@pytest.mark.parametrize(("bound", "status"), [(10, 413), (10**9, 200)])
def test_wsgi_applies_the_smaller_of_two_limits(webhooks, delivery, bound, status):
    assert receive_wsgi(webhooks, environ_of(delivery), max_body_size=bound).status == status
    assert receive_wsgi(webhooks, environ_of(delivery), delivery.body, max_body_size=bound).status == status


class FailingInput:
    """A server's input of which every way to read fails."""

    def __init__(self, error):
        self.error = error
        self.reads = 0

    def read(self, size=-1):
        self.reads += 1
        raise self.error

    readline = read


def caused_by(cause, error):
    error.__cause__ = cause
    return error


class NoMoreData(IOError):  # noqa: N818 - the name is gunicorn's
    pass


class ClientDisconnected(Exception):  # noqa: N818 - the name is Werkzeug's
    pass


FAILURES = [
    (ConnectionResetError("private"), 499, "disconnected"),
    (BrokenPipeError("private"), 499, "disconnected"),
    (TimeoutError("private"), 499, "disconnected"),
    (EOFError("private"), 499, "disconnected"),
    (NoMoreData("private"), 499, "disconnected"),
    (ClientDisconnected("private"), 499, "disconnected"),
    (caused_by(ConnectionResetError("private"), OSError("wrapped")), 499, "disconnected"),
    (caused_by(OSError("private"), ClientDisconnected("wrapped")), 400, "unreadable_body"),
    (OSError("private"), 400, "unreadable_body"),
    (ValueError("private\nTraceback"), 400, "unreadable_body"),
    (RecursionError("private"), 400, "unreadable_body"),
    (Exception("private"), 400, "unreadable_body"),
]
each_failure = pytest.mark.parametrize(
    ("error", "status", "reason"), FAILURES, ids=[type(error).__name__ for error, *_ in FAILURES]
)


def rejections(webhooks):
    heard = []
    webhooks.subscribe(lambda notice: isinstance(notice, Rejected) and heard.append(notice))
    return heard


@each_failure
@pytest.mark.parametrize("more", [{}, {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}], ids=["sized", "chunked"])
def test_wsgi_answers_if_the_server_cannot_read_the_body(webhooks, delivery, caplog, error, status, reason, more):
    heard = rejections(webhooks)
    response = receive_wsgi(webhooks, environ_of(delivery, **{"wsgi.input": FailingInput(error), **more}))
    assert response.status == status
    assert b"private" not in response.body
    [rejected] = heard
    assert (rejected.status, rejected.reason) == (status, reason)
    cause = error.__cause__ or error
    assert rejected.detail.rpartition(".")[2] == type(cause).__qualname__
    [record] = caplog.records
    assert "private" not in caplog.text, "a server's error may quote the body"
    assert (record.exc_info, "\n" in record.getMessage()) == (None, False)
    assert stored(webhooks) == 0


@each_failure
def test_asgi_answers_if_the_server_cannot_read_the_body(webhooks, delivery, error, status, reason):
    server = Server(delivery.headers, [])

    async def receive():
        raise error

    server.receive = receive
    heard = rejections(webhooks)
    asyncio.run(WebhookEndpoint(webhooks)(server.scope, server.receive, server.send))
    assert server.sent[0]["status"] == status
    assert b"private" not in server.sent[1]["body"]
    assert [(rejected.status, rejected.reason) for rejected in heard] == [(status, reason)]


def test_a_refusal_stands_if_the_rest_of_the_body_cannot_be_read(webhooks, delivery):
    body = FailingInput(RuntimeError("malformed"))
    more = {"wsgi.input": body, "CONTENT_TYPE": "text/plain"}
    assert receive_wsgi(webhooks, environ_of(delivery, **more)).status == 415
    assert body.reads == 1
    server = Server({**delivery.headers, "Content-Type": "text/plain"}, [])

    async def receive():
        raise RuntimeError("malformed")

    server.receive = receive
    assert server.ask(webhooks)[0] == 415


def test_a_checked_input_has_no_unchecked_reads():
    stream = CheckedInput(io.BytesIO(b"one\ntwo\n"))
    assert (stream.readline(), stream.read(2), list(stream)) == (b"one\n", b"tw", [b"o\n"])
    stream.seek(0)
    assert stream.readlines() == [b"one\n", b"two\n"]
    assert not hasattr(stream, "readinto")


def test_wsgi_does_not_read_after_a_failure(webhooks, delivery):
    body = FailingInput(TimeoutError())
    assert receive_wsgi(webhooks, environ_of(delivery, **{"wsgi.input": body})).status == 499
    assert body.reads == 1


@pytest.mark.parametrize("breaks_off", [False, True], ids=["ends early", "breaks off"])
def test_wsgi_recognises_a_sender_that_disconnected(webhooks, breaks_off):
    delivery = sign_delivery(sample_event(object={"text": "x" * 200_000}), secret=SECRET)
    environ = environ_of(delivery)
    environ["wsgi.input"] = Input(delivery.body[:100_000])
    environ["wsgi.input"].breaks_off = breaks_off
    heard = rejections(webhooks)
    response = receive_wsgi(webhooks, environ)
    assert (response.status, response.body) == (499, b"")
    assert [rejected.reason for rejected in heard] == ["disconnected"]
    if not breaks_off:
        assert heard[0].detail == f"the body ended after 100000 of {len(delivery.body)} bytes"
    assert stored(webhooks) == 0


def test_wsgi_recognises_a_body_that_middleware_has_read(webhooks, delivery):
    heard = rejections(webhooks)
    assert receive_wsgi(webhooks, environ_of(delivery, **{"wsgi.input": Input(b"")})).status == 401
    [rejected] = heard
    assert rejected.detail == "The body is empty: middleware may have read it."


def test_the_wsgi_entry_has_a_reason_phrase_for_each_status(webhooks, delivery):
    started = []
    entry = webhooks_entry(lambda *_: [], webhooks)
    more = {"wsgi.input": Input(delivery.body[:10]), "PATH_INFO": "/webhooks/envoyou"}
    assert entry(environ_of(delivery, **more), lambda status, headers: started.append(status)) == [b""]
    assert started == ["499 Client Closed Request"]


# The log of a refused request


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"], ids=["read", "unread"])
def test_a_refusal_is_logged_with_its_path_and_peer(webhooks, delivery, content_type):
    heard = rejections(webhooks)
    headers = {**delivery.headers, "Content-Type": content_type, "X-EnvoyOU-Signature": "v1,00"}
    environ = environ_of(
        delivery,
        CONTENT_TYPE=content_type,
        HTTP_X_ENVOYOU_SIGNATURE="v1,00",
        SCRIPT_NAME="/site",
        PATH_INFO="/h\xc3\xb6ks",
        QUERY_STRING="token=private",
        REMOTE_ADDR="192.0.2.7",
    )
    receive_wsgi(webhooks, environ)
    for path in ("/site/höks", "/höks"):
        server = Server(headers, [delivery.body])
        server.scope |= {
            "path": path,
            "root_path": "/site",
            "query_string": b"token=private",
            "client": ("192.0.2.7", 4711),
        }
        server.ask(webhooks)
    webhooks.receive(WebhookRequest.from_http("POST", headers, delivery.body, path="/site/höks", peer="192.0.2.7"))
    assert len(heard) == 4
    for rejected in heard:
        assert (rejected.webhook_id, rejected.path, rejected.peer) == ("wh_1234567890", "/site/höks", "192.0.2.7")


def test_a_refusal_of_an_unknown_sender(webhooks):
    heard = rejections(webhooks)
    webhooks.receive(WebhookRequest("GET", b""))
    assert [(rejected.webhook_id, rejected.path, rejected.peer) for rejected in heard] == [(None, None, None)]


def test_wsgi_refuses_another_method_and_type(webhooks, delivery):
    assert receive_wsgi(webhooks, environ_of(delivery, REQUEST_METHOD="GET")).status == 405
    assert receive_wsgi(webhooks, environ_of(delivery, CONTENT_TYPE="text/plain")).status == 415
    assert receive_wsgi(webhooks, environ_of(delivery, CONTENT_TYPE="applicati\u00f6n/json\u20ac")).status == 415


# Lengths


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"", None), (b"0", 0), (b"42", 42), (b"-1", None), (b"+1", None), (b"1 ", None), (b"1_0", None), (b"\xb2", None)],
)
def test_a_declared_length_is_ascii_digits(value, length):
    assert content_length(value) == length


def test_a_length_of_thousands_of_digits_is_large():
    assert content_length(b"9" * 100_000) > 10**18
