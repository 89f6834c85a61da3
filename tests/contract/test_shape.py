"""Requests that are refused before their body is authenticated: 405, 411, 413, 415, and the order of all checks."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any

import pytest

from envoyou_core.testing import Delivery, sample_event
from envoyou_core.wsgi import DRAIN_LIMIT
from tests.contract import wire
from tests.contract.clients import (
    MALFORMED_CHUNKS_RAISE,
    ONE_AT_A_TIME,
    REFUSES_UNKNOWN_METHODS,
    REFUSES_WHAT_FOLLOWS,
)
from tests.contract.endpoint import NOW, Endpoint, assert_received, assert_refused, signed
from tests.contract.wire import HeaderValue

MEGABYTE = 1_048_576


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"])
@pytest.mark.parametrize("ending", ["", "/"])
def test_other_methods(endpoint: Endpoint, method: str, ending: str) -> None:
    path = endpoint.served.path + ending
    if method == "BREW" and REFUSES_UNKNOWN_METHODS in endpoint.served.by_itself:
        assert_refused_by_the_server(endpoint, signed(), method=method, path=path)
        return
    answer = endpoint.refuses(405, "method_not_allowed", signed(), method=method, path=path)
    assert answer.headers["Allow"] == "POST"


def assert_refused_by_the_server(endpoint: Endpoint, delivery: Delivery, **changes: Any) -> None:
    before = endpoint.stored
    assert endpoint.send(delivery, **changes).status == 400
    assert endpoint.stored == before


def test_head(endpoint: Endpoint) -> None:
    before = endpoint.stored
    answer = endpoint.send(Delivery(signed().headers, b""), method="HEAD")
    assert (answer.status, answer.body) == (405, b"")
    assert (answer.headers["Allow"], answer.headers["Content-Type"]) == ("POST", "application/json")
    assert endpoint.stored == before


def test_a_bare_get(endpoint: Endpoint) -> None:
    request = wire.head("GET", endpoint.served.path, [("Host", "127.0.0.1"), ("Connection", "close")])
    assert_refused(wire.exchange(endpoint.address, [request], method="GET"), 405, "method_not_allowed")


OTHER_CONTENT_TYPES: dict[str, HeaderValue | None] = {
    "none": None,
    "empty": "",
    "text": "text/plain",
    "text that says json": "text/json",
    "a form": "application/x-www-form-urlencoded",
    "a form of parts": "multipart/form-data; boundary=x",
    "nearly": "application/jsonp",
    "a sequence": "application/json-seq",
    "not of applications": "image/svg+json",
    "only the end of it": "json",
    "in a parameter": "text/plain; application/json",
    "not ASCII": "application/jsön",
    "not UTF-8": b"application/json\xff",
}


@pytest.mark.parametrize("content_type", OTHER_CONTENT_TYPES.values(), ids=list(OTHER_CONTENT_TYPES))
def test_other_content_types(endpoint: Endpoint, content_type: HeaderValue | None) -> None:
    endpoint.refuses(415, "unsupported_media_type", signed(), headers={"Content-Type": content_type})


def of_size(size: int) -> Delivery:
    """Create an authentic delivery whose body has exactly `size` bytes."""
    event = sample_event(created=NOW, object={"notes": ""})
    padding = "n" * (size - len(event.body))
    return signed(sample_event(id=event.id, created=NOW, object={"notes": padding}))


def test_a_body_of_the_maximum_size(endpoint: Endpoint) -> None:
    delivery = of_size(MEGABYTE)
    assert len(delivery.body) == MEGABYTE
    endpoint.accepts(delivery)


@pytest.mark.parametrize("size", [MEGABYTE + 1, 2 * MEGABYTE, 5 * MEGABYTE])
def test_the_sender_of_a_body_that_is_too_large_receives_the_response(endpoint: Endpoint, size: int) -> None:
    endpoint.refuses(413, "payload_too_large", of_size(size))


def test_a_body_that_is_declared_as_too_large(endpoint: Endpoint) -> None:
    """The sender sends as much as is drained, and then waits: no more of the declared body is read."""
    before = endpoint.stored
    announced = DRAIN_LIMIT if endpoint.served.takes_all_first else 100 * MEGABYTE
    head = endpoint.head(signed(), headers={"Content-Length": str(announced)})
    answer = wire.exchange(endpoint.address, [head, *[b" " * MEGABYTE] * (DRAIN_LIMIT // MEGABYTE)])
    assert_refused(answer, 413, "payload_too_large")
    assert endpoint.stored == before


def test_an_endless_chunked_body(endpoint: Endpoint) -> None:
    head = endpoint.head(signed(), headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
    if endpoint.served.takes_all_first:
        chunks = wire.chunked(b" " * (DRAIN_LIMIT + MEGABYTE), size=MEGABYTE)
        assert_refused(wire.exchange(endpoint.address, [head, *chunks]), 413, "payload_too_large")
    elif endpoint.served.reads_chunked:
        chunk = b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE)
        assert_cut_off_while_sending(endpoint, chain([head], repeat(chunk)))
    else:
        assert_refused(wire.exchange(endpoint.address, [head]), 411, "length_required")


def assert_cut_off_while_sending(endpoint: Endpoint, pieces: Iterable[bytes]) -> None:
    """A sender of an endless body is answered 413 and cut off.

    It continues to send, so the end of the connection may overtake the response. What it receives of it is a 413.
    """
    before = endpoint.stored
    with socket.create_connection(endpoint.address, timeout=wire.PATIENCE) as connection:
        sending = threading.Thread(target=send_until_refused, args=(connection, pieces))
        sending.start()
        received = b""
        with suppress(ConnectionError):
            while not received.endswith(b"}") and (part := connection.recv(65_536)):
                received += part
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sending.join(wire.PATIENCE)
    assert received.startswith(b"HTTP/1.1 413 "[: len(received)])
    assert endpoint.stored == before
    endpoint.accepts(signed())


def send_until_refused(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    # The server answers and closes the connection.
    with suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)


def in_chunks(endpoint: Endpoint, delivery: Delivery, *, size: int, **changes: HeaderValue | None) -> wire.Answer:
    head = endpoint.head(delivery, headers={"Content-Length": None, "Transfer-Encoding": "chunked", **changes})
    pieces = [head, *wire.chunked(delivery.body, size=size)]
    # A server that does not read chunks may close the connection at once, so the whole request is sent first.
    return wire.exchange(endpoint.address, pieces if endpoint.served.reads_chunked else [b"".join(pieces)])


@pytest.mark.parametrize("size", [7, 1000, 65_536])
def test_a_chunked_body_arrives_complete_or_is_answered_411(endpoint: Endpoint, size: int) -> None:
    delivery = of_size(1000 + 10 * size) if endpoint.served.reads_chunked else signed()
    before = endpoint.stored
    answer = in_chunks(endpoint, delivery, size=size)
    if not endpoint.served.reads_chunked:
        assert_refused(answer, 411, "length_required")
        assert endpoint.stored == before
        return
    assert_received(answer)
    record = endpoint.record(delivery)
    assert record is not None
    assert record.event.body == delivery.body


def test_a_chunked_body_that_is_refused_for_another_reason(endpoint: Endpoint) -> None:
    before = endpoint.stored
    answer = in_chunks(endpoint, signed(), size=100, **{"Content-Type": "text/plain"})
    assert_refused(answer, 415, "unsupported_media_type")
    if endpoint.served.reads_chunked:
        assert_refused(in_chunks(endpoint, of_size(2 * MEGABYTE), size=65_536), 413, "payload_too_large")
    assert endpoint.stored == before


@pytest.mark.parametrize("chunk", [b"zz", b"-5", b"0x5", b"2\r\n{}x"])
def test_malformed_chunks(endpoint: Endpoint, chunk: bytes) -> None:
    before = endpoint.stored
    head = endpoint.head(signed(), headers={"Content-Length": None, "Transfer-Encoding": "chunked"})
    answer = wire.exchange(endpoint.address, [head + chunk + b"\r\nhello\r\n0\r\n\r\n"])
    if MALFORMED_CHUNKS_RAISE in endpoint.served.by_itself:
        assert_refused(answer, 400, "invalid_payload")
        assert endpoint.log.count("answered 400: unreadable_body") >= 1
    else:
        # The server has answered by itself, reported a disconnect, decoded it, or does not decode chunks at all.
        assert answer.status in {400, 401, 411, 499}
    assert endpoint.stored == before
    assert "Traceback" not in endpoint.log


def test_malformed_chunks_of_a_request_that_is_refused_anyway(endpoint: Endpoint) -> None:
    """The rest of a refused body is drained, which fails."""
    head = endpoint.head(
        signed(), headers={"Content-Length": None, "Transfer-Encoding": "chunked", "Content-Type": "text/plain"}
    )
    answer = wire.exchange(endpoint.address, [head + b"zz\r\n\r\n"])
    if MALFORMED_CHUNKS_RAISE in endpoint.served.by_itself:
        assert_refused(answer, 415, "unsupported_media_type")
    else:
        assert answer.status in {400, 415}
    assert "Traceback" not in endpoint.log


def test_a_post_without_a_length_has_an_empty_body(endpoint: Endpoint) -> None:
    request = endpoint.head(signed(b""), headers={"Content-Length": None})
    assert_refused(wire.exchange(endpoint.address, [request]), 400, "invalid_payload")
    request = endpoint.head(signed(), headers={"Content-Length": None})
    assert_refused(wire.exchange(endpoint.address, [request]), 401, "unauthorized")


def test_a_body_longer_than_its_declared_length_is_truncated_and_refused(endpoint: Endpoint) -> None:
    delivery = signed()
    one_less = {"Content-Length": str(len(delivery.body) - 1)}
    if REFUSES_WHAT_FOLLOWS in endpoint.served.by_itself:
        assert_refused_by_the_server(endpoint, delivery, headers=one_less)
    else:
        endpoint.refuses(401, "unauthorized", delivery, headers=one_less)


def test_a_sender_that_disconnects_before_the_end(endpoint: Endpoint) -> None:
    delivery = signed()
    before = endpoint.stored
    with begun(endpoint, delivery) as connection:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass
    assert endpoint.stored == before
    endpoint.accepts(delivery)


@contextmanager
def begun(endpoint: Endpoint, delivery: Delivery) -> Iterator[socket.socket]:
    """Open a connection and send all but the last byte."""
    with socket.create_connection(endpoint.address, timeout=wire.PATIENCE) as connection:
        connection.sendall(endpoint.head(delivery) + delivery.body[:-1])
        yield connection


def test_senders_whose_connections_break(endpoint: Endpoint) -> None:
    """More senders than a server has threads; one has sent everything and does not receive the response."""
    before = endpoint.stored
    delivery = signed()
    for _ in range(10):
        with begun(endpoint, signed()) as connection:
            break_off(connection)
    with begun(endpoint, delivery) as connection:
        connection.sendall(delivery.body[-1:])
        break_off(connection)
    answer = endpoint.send(delivery)
    assert_received(answer, duplicate="duplicate" in answer.document)
    assert endpoint.stored == before + 1
    assert "Traceback" not in endpoint.log


def break_off(connection: socket.socket) -> None:
    """Close the connection so that the server sees a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_stalled_sender_does_not_delay_others(endpoint: Endpoint) -> None:
    stalling, other = signed(), signed()
    before = endpoint.stored
    with begun(endpoint, stalling) as connection, ThreadPoolExecutor(1) as background:
        sent = background.submit(endpoint.send, other)
        if ONE_AT_A_TIME in endpoint.served.by_itself:
            # The sender has to wait, and the event is not lost.
            connection.sendall(stalling.body[-1:])
            assert_received(sent.result())
        else:
            assert_received(sent.result())
            assert endpoint.stored == before + 1
            connection.sendall(stalling.body[-1:])
        assert_received(wire.read_answer(connection))
    assert endpoint.stored == before + 2


def asking_first(endpoint: Endpoint, delivery: Delivery, **headers: HeaderValue) -> wire.Answer:
    """Return the final response to a sender that waits for `100 Continue` before it sends the body.

    It waits for a moment only, as RFC 9110 recommends, because not every server sends that.
    """
    with socket.create_connection(endpoint.address, timeout=wire.PATIENCE) as connection:
        connection.sendall(endpoint.head(delivery, headers={"Expect": "100-continue", **headers}))
        if not said_within(connection, 3.0) or wire.told_to_continue(connection):
            connection.sendall(delivery.body)
        return wire.read_answer(connection)


def said_within(connection: socket.socket, seconds: float) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


def test_a_sender_that_expects_100_continue(endpoint: Endpoint) -> None:
    delivery = signed()
    answer = asking_first(endpoint, delivery)
    assert_received(answer)
    record = endpoint.record(delivery)
    assert record is not None
    assert record.event.body == delivery.body


def test_a_sender_that_expects_100_continue_is_refused(endpoint: Endpoint) -> None:
    before = endpoint.stored
    answer = asking_first(endpoint, of_size(2 * MEGABYTE))
    assert_refused(answer, 413, "payload_too_large")
    answer = asking_first(endpoint, signed(), **{"Content-Type": "text/plain"})
    assert_refused(answer, 415, "unsupported_media_type")
    assert endpoint.stored == before


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "+5", "0x10", "²"])
def test_a_malformed_length_stores_nothing(endpoint: Endpoint, length: str) -> None:
    before = endpoint.stored
    with socket.create_connection(endpoint.address, timeout=wire.PATIENCE) as connection:
        delivery = signed()
        connection.sendall(endpoint.head(delivery, headers={"Content-Length": length}) + delivery.body)
        connection.shutdown(socket.SHUT_WR)
        answer = wire.read_answer(connection)
    assert 400 <= answer.status < 500
    assert endpoint.stored == before


def test_the_order_of_the_checks(endpoint: Endpoint) -> None:
    """Each delivery has one fault less than the one before."""
    headers: dict[str, HeaderValue | None] = {
        "X-EnvoyOU-Signature": None,
        "X-EnvoyOU-Event-Type": None,
        "X-EnvoyOU-Webhook-ID": "wh_0",
        "Content-Type": "text/plain",
    }
    too_large = Delivery(signed().headers, b"{" * (MEGABYTE + 1))
    endpoint.accepts(signed(nonce="order-of-checks"))
    endpoint.refuses(405, "method_not_allowed", too_large, method="PUT", headers=headers)
    endpoint.refuses(415, "unsupported_media_type", too_large, headers=headers)
    del headers["Content-Type"]
    endpoint.refuses(413, "payload_too_large", too_large, headers=headers)
    not_json = signed(b"{", nonce="order-of-checks")
    endpoint.refuses(401, "unauthorized", not_json, headers=headers)
    del headers["X-EnvoyOU-Signature"]
    endpoint.refuses(400, "invalid_payload", not_json, headers=headers)
    event = signed(nonce="order-of-checks")
    endpoint.refuses(400, "missing_header", event, headers=headers)
    del headers["X-EnvoyOU-Event-Type"]
    endpoint.refuses(400, "header_mismatch", event, headers=headers)
    del headers["X-EnvoyOU-Webhook-ID"]
    endpoint.refuses(401, "unauthorized", event, headers=headers)
    endpoint.accepts(event, headers={"X-EnvoyOU-Nonce": "order-of-checks-2"})
