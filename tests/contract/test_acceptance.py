"""Requests that are answered 200, and the state of the inbox afterwards."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core import EVENT_TYPES
from envoyou_core.inbox import Status
from envoyou_core.testing import Delivery, sample_event
from tests.contract.endpoint import NOW, SECRET, Endpoint, assert_received, signed
from tests.contract.wire import HeaderValue

OLD_SECRET = "whsec_rotated_out"


def test_a_delivery_is_stored_byte_for_byte(endpoint: Endpoint) -> None:
    event = sample_event(created=NOW - 5)
    record = endpoint.accepts(signed(event))
    assert record.status is Status.RECEIVED
    assert (record.event.id, record.event.type, record.event.created) == (event.id, event.type, NOW - 5)
    assert (record.event.webhook_id, record.webhook_id) == ("wh_1234567890", "wh_1234567890")
    assert record.event.data.object == event.data.object
    assert (record.attempts, record.received_at.timestamp(), record.last_error) == (0, NOW, None)


def test_a_redelivery_is_a_duplicate(endpoint: Endpoint) -> None:
    event = sample_event()
    endpoint.accepts(signed(event))
    before = endpoint.stored
    endpoint.accepts(signed(event), duplicate=True)
    endpoint.accepts(signed(event, timestamp=NOW - 60), duplicate=True)
    assert endpoint.stored == before


@pytest.mark.policy
def test_the_first_body_of_an_event_is_kept(endpoint: Endpoint) -> None:
    first = signed(sample_event(id="evt_sent_twice", object={"name": "first"}))
    second = signed(sample_event(id="evt_sent_twice", object={"name": "second"}))
    endpoint.accepts(first)
    assert_received(endpoint.send(second), duplicate=True)
    record = endpoint.record(first)
    assert record is not None
    assert record.event.body == first.body


def test_concurrent_deliveries_of_one_event(endpoint: Endpoint) -> None:
    senders = 8
    event = sample_event()
    together = threading.Barrier(senders)
    before = endpoint.stored

    def send() -> bool:
        delivery = signed(event)
        together.wait(timeout=30)
        answer = endpoint.send(delivery)
        assert_received(answer, duplicate="duplicate" in answer.document)
        return "duplicate" in answer.document

    with ThreadPoolExecutor(senders) as pool:
        duplicates = [sending.result() for sending in [pool.submit(send) for _ in range(senders)]]
    assert sorted(duplicates) == [False] + [True] * (senders - 1)
    assert endpoint.stored == before + 1


def test_concurrent_deliveries_of_different_events(endpoint: Endpoint) -> None:
    deliveries = [signed() for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(endpoint.send, deliveries))
    for delivery, answer in zip(deliveries, answers, strict=True):
        assert_received(answer)
        record = endpoint.record(delivery)
        assert record is not None
        assert record.event.body == delivery.body


@pytest.mark.policy
@pytest.mark.parametrize("event_type", [*EVENT_TYPES, "invoice.paid", "x", "😀" * 255])
def test_every_type_is_accepted_and_stored(endpoint: Endpoint, event_type: str) -> None:
    assert endpoint.accepts(signed(sample_event(event_type))).event.type == event_type


@pytest.mark.parametrize("ending", ["", "/"])
def test_the_path_with_and_without_a_final_slash(endpoint: Endpoint, ending: str) -> None:
    endpoint.accepts(signed(), path=endpoint.served.path + ending)


ACCEPTED_BODIES = {
    "additional members": b'{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{},"a":1},"b":true}',
    "no webhook id": b'{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{}}}',
    "webhook id null": b'{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{}},"webhook_id":null}',
    "spaces and new lines": b'\r\n {"id": "evt_%d",\t"type": "user.created", "created": 1, "data": {"object": {} } }\n',
    "not ASCII": '{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{"name":"Zoë 😀"}}}'.encode(),
    "half a surrogate pair": (
        b'{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{"name":"cut \\ud83d"}}}'
    ),
    "NUL in the payload": b'{"id":"evt_%d","type":"user.created","created":1,"data":{"object":{"name":"\\u0000"}}}',
    "first second": b'{"id":"evt_%d","type":"user.created","created":0,"data":{"object":{}}}',
    "last second": b'{"id":"evt_%d","type":"user.created","created":253402300799,"data":{"object":{}}}',
}


@pytest.mark.policy
@pytest.mark.parametrize("position", range(len(ACCEPTED_BODIES)), ids=list(ACCEPTED_BODIES))
def test_the_spelling_of_a_body_is_preserved(endpoint: Endpoint, position: int) -> None:
    body = list(ACCEPTED_BODIES.values())[position] % position
    assert endpoint.accepts(signed(body)).event.id == f"evt_{position}"


@pytest.mark.policy
def test_half_a_surrogate_pair_reaches_the_handler(endpoint: Endpoint) -> None:
    event = sample_event(object={"name": "cut \ud83d"})
    assert endpoint.accepts(signed(event)).event.data.object == {"name": "cut \ud83d"}


@pytest.mark.policy
@pytest.mark.parametrize("event_id", ["e", "é" * 255, "evt 1'; DROP TABLE envoyou_inbox; --", "😀" * 255])
def test_ids_of_any_text(endpoint: Endpoint, event_id: str) -> None:
    assert endpoint.accepts(signed(sample_event(id=event_id))).event.id == event_id


@pytest.mark.policy
def test_ids_are_compared_byte_by_byte(endpoint: Endpoint) -> None:
    for event_id in ("evt_case", "EVT_CASE", "evt_casé", "evt_case\u0301", "evt_case "):
        endpoint.accepts(signed(sample_event(id=event_id)))


ACCEPTED_CONTENT_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8;version=1",
    "Application/JSON",
    "application/json ; charset=utf-8",
    "application/cloudevents+json",
    "application/vnd.envoyou.v1+json; charset=utf-8",
]


@pytest.mark.parametrize("content_type", ACCEPTED_CONTENT_TYPES)
def test_content_types_of_json(endpoint: Endpoint, content_type: str) -> None:
    endpoint.accepts(signed(), headers={"Content-Type": content_type})


def test_header_names_in_any_case(endpoint: Endpoint) -> None:
    delivery = signed()
    endpoint.accepts(Delivery({name.upper(): value for name, value in delivery.headers.items()}, delivery.body))


@pytest.mark.policy
@pytest.mark.parametrize("timestamp", [NOW - 300, NOW, NOW + 300])
def test_a_timestamp_at_the_limit_of_the_tolerance(endpoint: Endpoint, timestamp: int) -> None:
    endpoint.accepts(signed(timestamp=timestamp))


@pytest.mark.policy
@pytest.mark.settings(tolerance=0)
def test_a_tolerance_of_zero_accepts_the_current_second(endpoint: Endpoint) -> None:
    endpoint.accepts(signed())
    endpoint.refuses(401, "unauthorized", signed(timestamp=NOW - 1))
    endpoint.refuses(401, "unauthorized", signed(timestamp=NOW + 1))


@pytest.mark.policy
@pytest.mark.settings(secret=[SECRET, OLD_SECRET])
@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
@pytest.mark.parametrize("form", ["raw", "canonical"])
def test_each_of_several_secrets(endpoint: Endpoint, secret: str, form: str) -> None:
    endpoint.accepts(signed(secret=secret, signed_content=form))


@pytest.mark.policy
@pytest.mark.settings(secret=[SECRET, OLD_SECRET])
@pytest.mark.parametrize("secret", ["whsec_foreign", SECRET + OLD_SECRET, SECRET[len("whsec_") :]])
def test_none_of_several_secrets(endpoint: Endpoint, secret: str) -> None:
    endpoint.refuses(401, "unauthorized", signed(secret=secret))


@pytest.mark.policy
@pytest.mark.settings(secret="whsec_" + "ü" * 40)
def test_a_secret_may_be_text_or_bytes(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(secret=("whsec_" + "ü" * 40).encode()))


@pytest.mark.policy
def test_the_canonical_form(endpoint: Endpoint) -> None:
    event = sample_event(object={"z": 1, "a": ["é", {"y": None, "b": 1.5}]})
    spaced = json.dumps(json.loads(event.body), indent=4, ensure_ascii=False).encode()
    assert endpoint.accepts(signed(spaced, signed_content="canonical")).event.data.object == event.data.object


@pytest.mark.policy
@pytest.mark.settings(signed_content=("canonical",))
def test_only_the_canonical_form(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(signed_content="canonical"))
    endpoint.refuses(401, "unauthorized", signed())


@pytest.mark.policy
@pytest.mark.settings(signed_content=("raw",))
def test_the_strict_setting_accepts_the_raw_form_only(endpoint: Endpoint) -> None:
    endpoint.accepts(signed())
    endpoint.refuses(401, "unauthorized", signed(signed_content="canonical"))


def test_the_webhook_id_of_the_header_is_stored_if_the_body_has_none(endpoint: Endpoint) -> None:
    record = endpoint.accepts(signed(sample_event(webhook_id=None), webhook_id="wh_header"))
    assert (record.event.webhook_id, record.webhook_id) == (None, "wh_header")


@pytest.mark.policy
@pytest.mark.settings(required_headers=())
@pytest.mark.parametrize(
    "absent", [["X-EnvoyOU-Webhook-ID"], ["X-EnvoyOU-Event-Type"], ["X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type"]]
)
def test_headers_that_are_not_required(endpoint: Endpoint, absent: list[str]) -> None:
    endpoint.accepts(signed(), headers=dict.fromkeys(absent))


@pytest.mark.parametrize("nonce", [None, "", "n" * 2000, b"\xff\xfe", "ü"])
def test_nonces_of_any_text(endpoint: Endpoint, nonce: HeaderValue | None) -> None:
    endpoint.accepts(signed(), headers={"X-EnvoyOU-Nonce": nonce})


def test_a_nonce_of_the_same_event_is_a_redelivery(endpoint: Endpoint) -> None:
    event = sample_event()
    endpoint.accepts(signed(event, nonce="nonce-of-one"))
    endpoint.accepts(signed(event, nonce="nonce-of-one"), duplicate=True)


def test_a_nonce_of_another_event_is_a_replay(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(nonce="nonce-of-two"))
    replay = signed(nonce="nonce-of-two")
    endpoint.refuses(401, "unauthorized", replay)
    assert endpoint.record(replay) is None


def test_a_refused_delivery_does_not_bind_its_nonce(endpoint: Endpoint) -> None:
    endpoint.refuses(401, "unauthorized", signed(secret="whsec_foreign", nonce="nonce-of-three"))
    endpoint.refuses(400, "invalid_payload", signed(b"[]", nonce="nonce-of-three"))
    endpoint.refuses(400, "header_mismatch", signed(nonce="nonce-of-three", event_type="user.deleted"))
    endpoint.accepts(signed(nonce="nonce-of-three"))


@pytest.mark.settings(max_body_size=4 * 1_048_576)
def test_a_large_body_within_the_limit_arrives_complete(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(sample_event(object={"notes": "n" * (3 * 1_048_576)})))
