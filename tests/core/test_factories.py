"""`make_event`: a sample of each type with some values replaced."""

import json

import pytest

from envoyou_core import EVENT_TYPES, InvalidPayloadError, verify
from envoyou_core.testing import EventFields, make_event, sample_event, sign_delivery


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_an_event_of_each_type_is_its_sample_with_the_given_values(type):
    sample = sample_event(type).data.object
    for name, value in sample.items():
        if isinstance(value, str):
            changed = make_event(type, **{name: "changed"}).data.object
            assert changed == sample | {name: "changed"}
            assert name in EventFields.__annotations__
    delivery = sign_delivery(make_event(type), secret="whsec_test")
    assert verify(delivery.headers, delivery.body, secret="whsec_test").type == type


def test_the_fields_of_the_envelope_have_names_of_their_own():
    event = make_event("user.deleted", event_id="evt_9", created=5, webhook_id="wh_9", id="user_9")
    assert (event.id, event.created, event.webhook_id, event.object_id) == ("evt_9", 5, "wh_9", "user_9")
    assert "webhook_id" not in json.loads(make_event(webhook_id=None).body)


def test_a_mapping_replaces_only_what_it_names():
    login = make_event("auth.login", location={"city": "Oslo"}).data.object
    assert login["location"] == {"country": "US", "city": "Oslo"}
    assert make_event("auth.login", location=None).data.object["location"] is None
    nested = make_event(metadata={"plan": {"name": "pro"}}).data.object["metadata"]
    assert nested == {"plan": {"name": "pro"}}


def test_a_field_of_the_guide_that_the_sample_lacks_is_known():
    assert make_event("user.updated", status="suspended").data.object["status"] == "suspended"


@pytest.mark.parametrize(
    ("type", "fields", "message"),
    [
        ("user.created", {"emial": "x"}, r"user\.created has no field 'emial'; did you mean 'email'\?"),
        ("auth.login", {"location": {"citty": "x"}}, r"location of auth\.login has no field 'citty'; .*'city'\?"),
        ("auth.login", {"email": "x"}, r"auth\.login has no field 'email'; known fields: ip_address, .* extra="),
        ("invoice.paid", {"email": "x"}, r"invoice\.paid has no field 'email'; EnvoyOU's guide does not .* extra="),
    ],
)
def test_a_field_that_the_type_does_not_have_is_an_error_with_a_remedy(type, fields, message):
    with pytest.raises(TypeError, match=message):
        make_event(type, **fields)


def test_fields_of_the_applications_own_are_asked_for():
    assert make_event("user.created", extra={"plan": "pro"}).data.object["plan"] == "pro"
    assert make_event("invoice.paid", extra={"total": 5}).data.object == {"total": 5}


def test_invalid_values_are_refused():
    with pytest.raises(InvalidPayloadError):
        make_event(created=-1)
