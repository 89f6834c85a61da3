"""Support for users' tests: sample events and signed deliveries."""

import json
import time

import pytest

from envoyou_core import EVENT_TYPES, ConfigurationError, InvalidPayloadError, Login, User, sign, verify
from envoyou_core.testing import Delivery, sample_event, sign_delivery

SECRET = "whsec_test"


@pytest.mark.parametrize("signed_content", ["raw", "canonical"])
@pytest.mark.parametrize("type", [*EVENT_TYPES, "invoice.paid"])
def test_a_sample_of_each_type_can_be_delivered(type, signed_content):
    delivery = sign_delivery(sample_event(type), secret=SECRET, signed_content=signed_content)
    event = verify(delivery.headers, delivery.body, secret=SECRET, signed_content=(signed_content,))
    assert event.type == type
    assert event.data.object
    assert abs(event.created - time.time()) < 3600


@pytest.mark.parametrize("type", [type for type in EVENT_TYPES if type.startswith("user.")])
def test_user_events_contain_the_guides_user(type):
    assert sample_event(type).data.as_type(User).email == "john.doe@example.com"


@pytest.mark.parametrize("type", [type for type in EVENT_TYPES if type.startswith("auth.")])
def test_auth_events_contain_the_guides_login(type):
    assert sample_event(type).data.as_type(Login).location.city == "New York"


def test_arguments_replace_the_defaults():
    event = sample_event("user.deleted", id="evt_9", created=5, object={"id": "user_9"}, webhook_id="wh_9")
    assert (event.id, event.type, event.created, event.webhook_id) == ("evt_9", "user.deleted", 5, "wh_9")
    assert event.data.object == {"id": "user_9"}
    assert sample_event(object={}).data.object == {}
    assert "webhook_id" not in json.loads(sample_event(webhook_id=None).body)


def test_each_sample_has_a_new_id():
    assert len({sample_event().id for _ in range(50)}) == 50


def test_invalid_arguments_are_refused():
    for wrong in ({"created": -1}, {"id": "x" * 256}, {"type": ""}):
        with pytest.raises(InvalidPayloadError):
            sample_event(**wrong)


def test_a_delivery_has_all_headers_of_the_guide():
    event = sample_event("auth.login", webhook_id="wh_9")
    delivery = sign_delivery(event, secret=SECRET, timestamp=1_640_995_200, nonce="n")
    assert delivery == Delivery(
        headers={
            "Content-Type": "application/json",
            "X-EnvoyOU-Signature": sign(event.body, secret=SECRET, timestamp=1_640_995_200),
            "X-EnvoyOU-Timestamp": "1640995200",
            "X-EnvoyOU-Webhook-ID": "wh_9",
            "X-EnvoyOU-Event-Type": "auth.login",
            "X-EnvoyOU-Nonce": "n",
        },
        body=event.body,
    )


def test_the_default_is_the_current_time_and_a_new_nonce():
    first, second = (sign_delivery(sample_event(), secret=SECRET) for _ in range(2))
    assert abs(int(first.headers["X-EnvoyOU-Timestamp"]) - time.time()) < 3600
    assert first.headers["X-EnvoyOU-Nonce"] != second.headers["X-EnvoyOU-Nonce"]


def test_headers_can_be_omitted_or_contradict_the_body():
    without = sign_delivery(sample_event(), secret=SECRET, nonce="", webhook_id="", event_type="")
    assert without.headers.keys() == {"Content-Type", "X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"}
    contradictory = sign_delivery(sample_event(), secret=SECRET, webhook_id="wh_other", event_type="user.other")
    assert contradictory.headers["X-EnvoyOU-Webhook-ID"] == "wh_other"
    assert contradictory.headers["X-EnvoyOU-Event-Type"] == "user.other"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"not json", b"[" * 100_000, b'{"type": 3}'])
def test_a_body_that_is_not_an_event_is_signed_unchanged(body):
    delivery = sign_delivery(body, secret=SECRET, timestamp=1)
    assert delivery.body == body
    assert delivery.headers["X-EnvoyOU-Signature"] == sign(body, secret=SECRET, timestamp=1)
    assert "X-EnvoyOU-Event-Type" not in delivery.headers


def test_a_mapping_is_serialized_as_json():
    delivery = sign_delivery({"type": "user.created", "webhook_id": "wh_9"}, secret=SECRET)
    assert json.loads(delivery.body) == {"type": "user.created", "webhook_id": "wh_9"}
    assert delivery.headers["X-EnvoyOU-Event-Type"] == "user.created"
    assert delivery.headers["X-EnvoyOU-Webhook-ID"] == "wh_9"


def test_invalid_secrets_and_bodies_are_refused():
    with pytest.raises(ConfigurationError):
        sign_delivery(sample_event(), secret="")
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        sign_delivery(b"not json", secret=SECRET, signed_content="canonical")
