"""Requests that are answered 400: authentic, but not usable."""

from __future__ import annotations

import pytest

from envoyou_core.testing import sample_event
from tests.contract.endpoint import Endpoint, signed
from tests.contract.wire import HeaderChanges

DEEP = 100_000


def event_body(**members: str) -> bytes:
    """Create an event with some members replaced, in JSON; an empty text omits the member."""
    document = {"id": '"evt_unusable"', "type": '"user.created"', "created": "1", "data": '{"object":{}}', **members}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in document.items() if value) + "}").encode()


UNUSABLE_BODIES = {
    "empty": b"",
    "not JSON": b"id=evt_unusable",
    "cut off": event_body()[:-1],
    "more after the end": event_body() + b"}",
    "two documents": event_body() * 2,
    "a trailing comma": event_body()[:-1] + b",}",
    "single quotes": event_body().replace(b'"', b"'"),
    "not UTF-8": event_body(data='{"object":{"name":"%"}}').replace(b"%", b"\xff"),
    "an encoded surrogate": event_body(data='{"object":{"name":"%"}}').replace(b"%", b"\xed\xa0\xbd"),
    "overlong UTF-8": event_body(data='{"object":{"name":"%"}}').replace(b"%", b"\xc0\xaf"),
    "a byte order mark": b"\xef\xbb\xbf" + event_body(),
    "UTF-16": event_body().decode().encode("utf-16"),
    "a bare control character": event_body(data='{"object":{"name":"%"}}').replace(b"%", b"\x01"),
    "a list": b"[" + event_body() + b"]",
    "a number": b"1",
    "a string": b'"evt_unusable"',
    "null": b"null",
    "true": b"true",
    "an empty object": b"{}",
    "NaN": event_body(data='{"object":{"n":NaN}}'),
    "Infinity": event_body(data='{"object":{"n":-Infinity}}'),
    "100,000 lists": b"[" * DEEP + b"]" * DEEP,
    "100,000 levels in the payload": event_body(data='{"object":{"n":' + "[" * DEEP + "]" * DEEP + "}}"),
    "100,000 objects in the payload": event_body(data='{"object":' + '{"n":' * DEEP + "1" + "}" * DEEP + "}"),
    "100,000 levels beside it": event_body(more="[" * DEEP + "]" * DEEP),
    "no id": event_body(id=""),
    "id null": event_body(id="null"),
    "id a number": event_body(id="7"),
    "id empty": event_body(id='""'),
    "id of 256 characters": event_body(id='"' + "x" * 256 + '"'),
    "id with a NUL": event_body(id='"evt\\u0000"'),
    "id with a new line": event_body(id='"evt\\n"'),
    "id with DEL": event_body(id='"evt\\u007f"'),
    "id with a C1 control": event_body(id='"evt\\u0085"'),
    "id with half a surrogate pair": event_body(id='"evt\\ud83d"'),
    "no type": event_body(type=""),
    "type null": event_body(type="null"),
    "type a list": event_body(type='["user.created"]'),
    "type empty": event_body(type='""'),
    "type of 256 characters": event_body(type='"' + "x" * 256 + '"'),
    "type with a control character": event_body(type='"user\\u001bcreated"'),
    "no created": event_body(created=""),
    "created null": event_body(created="null"),
    "created a bool": event_body(created="true"),
    "created text": event_body(created='"1"'),
    "created a fraction": event_body(created="1.5"),
    "created negative": event_body(created="-1"),
    "created past the year 9999": event_body(created="253402300800"),
    "created of 400 digits": event_body(created="1" * 400),
    "created of 5,000 digits": event_body(created="1" * 5000),
    "no data": event_body(data=""),
    "data null": event_body(data="null"),
    "data a list": event_body(data="[]"),
    "no object": event_body(data="{}"),
    "object null": event_body(data='{"object":null}'),
    "object a list": event_body(data='{"object":[]}'),
    "object a string": event_body(data='{"object":"{}"}'),
    "object a number": event_body(data='{"object":1}'),
    "webhook_id a number": event_body(webhook_id="1"),
    "webhook_id with a control character": event_body(webhook_id='"wh\\u0000"'),
    "webhook_id of 256 characters": event_body(webhook_id='"' + "x" * 256 + '"'),
    "half a surrogate pair, and no id": event_body(id="", data='{"object":{"name":"\\ud83d"}}'),
    "half a surrogate pair, and object a list": event_body(data='{"object":["\\ud83d"]}'),
    "half a surrogate pair, and created a bool": event_body(created="true", data='{"object":{"name":"\\ud83d"}}'),
}


@pytest.mark.policy
@pytest.mark.parametrize("body", UNUSABLE_BODIES.values(), ids=list(UNUSABLE_BODIES))
def test_authentic_bodies_that_are_not_events(endpoint: Endpoint, body: bytes) -> None:
    delivery = signed(body, event_type="user.created", webhook_id="wh_1234567890")
    endpoint.refuses(400, "invalid_payload", delivery)


@pytest.mark.parametrize("body", [b"", b"id=evt_unusable", b"\xff"], ids=["empty", "not JSON", "not UTF-8"])
def test_authentic_bodies_that_are_not_events_on_every_server(endpoint: Endpoint, body: bytes) -> None:
    endpoint.refuses(400, "invalid_payload", signed(body, event_type="user.created", webhook_id="wh_1234567890"))


@pytest.mark.policy
def test_the_unchanged_body_of_these_tests_is_an_event(endpoint: Endpoint) -> None:
    assert endpoint.accepts(signed(event_body())).event.id == "evt_unusable"


MISMATCHES: dict[str, HeaderChanges] = {
    "another type": {"X-EnvoyOU-Event-Type": "user.deleted"},
    "the type in upper case": {"X-EnvoyOU-Event-Type": "USER.CREATED"},
    "the type twice": {"X-EnvoyOU-Event-Type": ["user.created", "user.created"]},
    "a type that is not ASCII": {"X-EnvoyOU-Event-Type": "user.créated"},
    "a type that is not UTF-8": {"X-EnvoyOU-Event-Type": b"user.\xffcreated"},
    "another webhook id": {"X-EnvoyOU-Webhook-ID": "wh_0"},
    "a longer webhook id": {"X-EnvoyOU-Webhook-ID": "wh_12345678901"},
    "a webhook id that is not ASCII": {"X-EnvoyOU-Webhook-ID": b"wh_\xe9"},
}


@pytest.mark.parametrize("headers", MISMATCHES.values(), ids=list(MISMATCHES))
def test_headers_that_contradict_the_body(endpoint: Endpoint, headers: HeaderChanges) -> None:
    endpoint.refuses(400, "header_mismatch", signed(), headers=headers)


@pytest.mark.policy
@pytest.mark.settings(required_headers=())
@pytest.mark.parametrize("headers", MISMATCHES.values(), ids=list(MISMATCHES))
def test_optional_headers_must_match_the_body(endpoint: Endpoint, headers: HeaderChanges) -> None:
    endpoint.refuses(400, "header_mismatch", signed(), headers=headers)


@pytest.mark.policy
def test_a_genuine_delivery_that_is_unusable_is_kept(endpoint: Endpoint) -> None:
    delivery = signed()
    endpoint.refuses(401, "unauthorized", delivery, headers={"X-EnvoyOU-Timestamp": "1640995200"})
    endpoint.refuses(400, "header_mismatch", delivery, headers={"X-EnvoyOU-Event-Type": "user.deleted"})
    (kept,) = endpoint.served.webhooks.inbox.list_rejected(limit=1)
    assert (kept.body, kept.event_type) == (delivery.body, "user.deleted")


def test_a_header_beyond_ascii_may_match_the_body(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(sample_event("prénom.changé", webhook_id="wh_é")))


@pytest.mark.parametrize("name", ["X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type"])
@pytest.mark.parametrize("value", [None, "", "  "], ids=["absent", "empty", "blank"])
def test_required_headers_that_are_missing(endpoint: Endpoint, name: str, value: str | None) -> None:
    answer = endpoint.refuses(400, "missing_header", signed(), headers={name: value})
    assert name in answer.document["message"]


@pytest.mark.policy
@pytest.mark.settings(required_headers=("X-EnvoyOU-Nonce",))
def test_a_nonce_can_be_required(endpoint: Endpoint) -> None:
    endpoint.accepts(signed())
    endpoint.refuses(400, "missing_header", signed(nonce=""))
