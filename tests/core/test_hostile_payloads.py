"""Authentic bodies that decoders disagree about: they raise only a `WebhookError`, and none is lost."""

import dataclasses
import enum
import json
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envoyou_core import (
    ConfigurationError,
    Event,
    InvalidPayloadError,
    Login,
    User,
    WebhookError,
    WebhookRequest,
    Webhooks,
    sign,
    verify,
)
from envoyou_core.inbox.records import NewEvent
from envoyou_core.testing import sign_delivery
from tests.hostile_json import INPUTS, json_texts, members_of, string_texts

SECRET = "whsec_test"
NOW = 1_640_995_200
HALF = '"\\ud800"'
ENVELOPE = '"id":"evt_1","type":"user.created","created":1700000000'


def body_of(object="{}", *, beside="", within="") -> bytes:
    """Create an event from JSON texts: its object, and additional members in the envelope and in `data`."""
    return f'{{{ENVELOPE},"data":{{"object":{object}{within}}}{beside}}}'.encode("utf-8", "surrogatepass")


class Kind(enum.Enum):
    GOOD = "good"


class Struct(msgspec.Struct):
    id: Any
    kind: Literal["good"] = "good"
    when: datetime | None = None
    amount: Decimal | None = None
    counts: dict[str, int] = {}


class Tagged(msgspec.Struct, tag_field="kind", tag="good"):
    id: str


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: str


@dataclasses.dataclass
class Data:
    id: str
    kind: Kind = Kind.GOOD


class Typed(TypedDict):
    id: str
    kind: Literal["good"]


class Model(pydantic.BaseModel, extra="forbid"):
    id: str
    kind: Literal["good"] = "good"
    when: datetime | None = None
    counts: dict[str, int] = {}


TYPES = [Struct, Tagged, Strict, Data, Typed, Model, User, Login, dict, dict[str, int], list, User | None]

_members = members_of(string_texts | st.sampled_from(['"id"', '"user_id"', '"kind"', '"when"', '"counts"']), json_texts)
_objects = _members.map(lambda members: f"{{{members}}}")
_further = members_of(string_texts, json_texts).map(lambda members: f",{members}" if members else "")
_envelope_names = st.sampled_from(['"id"', '"type"', '"created"', '"webhook_id"', '"data"', '"object"'])
_overriding = members_of(_envelope_names | string_texts, json_texts).map(lambda members: f",{members}")


@given(
    object=_members.map(lambda members: f"{{{members}}}") | json_texts, beside=_further | _overriding, within=_further
)
@settings(max_examples=INPUTS)
@example(object="{}", beside=f",{HALF}:1", within="")
@example(object="{}", beside="", within=f",{HALF}:1")
@example(object=f"{{{HALF}:1}}", beside="", within="")
@example(object='{"id":' + "1" * 5000 + "}", beside=f",{HALF}:1", within="")
@example(object="{}", beside=f",{HALF}:" + "1" * 5000, within="")
@example(object=f'{{"id":{HALF},"n":[{{"m":{"1" * 5000}}}]}}', beside="", within="")
@example(object="{}", beside=f",{HALF}:" + "[" * 600 + "]" * 600, within="")
def test_an_authentic_body_raises_only_a_webhook_error(object, beside, within):
    body = body_of(object, beside=beside, within=within)
    headers = {"X-EnvoyOU-Signature": sign(body, secret=SECRET, timestamp=NOW), "X-EnvoyOU-Timestamp": str(NOW)}
    try:
        event = verify(headers, body, secret=SECRET, now=NOW, required_headers=())
    except WebhookError:
        with pytest.raises(InvalidPayloadError):
            Event.from_body(body)
        return
    assert Event.from_body(body) == event
    assert event.object_id is None or len(event.object_id) <= 255
    for type_ in TYPES:
        for read in (event.data.as_type, event.typed_as):
            with suppress(WebhookError):
                read(type_)
    try:
        found = event.data.object
    except WebhookError:
        return
    short = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) <= 4300 else None)
    assert found == short["data"]["object"]


@settings(max_examples=INPUTS)
@given(name=string_texts, value=json_texts, place=st.sampled_from(["beside", "within", "object"]))
@example(name=HALF, value="1", place="beside")
def test_valid_json_is_accepted_at_the_first_delivery(name, value, place):
    """Additional members of any kind are accepted, except NaN, infinities and deeply nested ones."""
    if "NaN" in value or "Infinity" in value or value.count("[") > 500 or json.loads(name) in {*ENVELOPE.split('"')}:
        return
    object = f"{{{name}:{value}}}" if place == "object" else "{}"
    further = {place: f",{name}:{value}"} if place != "object" and json.loads(name) != "object" else {}
    body = body_of(object, **further)
    delivery = sign_delivery(body, secret=SECRET, webhook_id="wh_1", event_type="user.created")
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, body)).status == 200
    assert webhooks.inbox.get("evt_1").event.body == body


HARD = {
    "a name": body_of(beside=f",{HALF}:1"),
    "a name within data": body_of(within=f",{HALF}:1"),
    "a name in the object": body_of(f'{{"id":"user_1",{HALF}:{{{HALF}:1}}}}'),
    "an id": body_of(f'{{"id":{HALF}}}'),
    "an integer and a name": body_of('{"id":"user_1","n":' + "1" * 5000 + "}", beside=f",{HALF}:1"),
    "an integer beside": body_of(beside=f",{HALF}:" + "1" * 5000),
}


@pytest.mark.parametrize("which", HARD)
def test_a_hostile_payload_is_stored_and_reaches_its_handler(any_inbox, which):
    event = Event.from_body(HARD[which])
    any_inbox.add(NewEvent(event)).result(20)
    [claim] = any_inbox.claim(1, 60)
    assert claim.event.body == HARD[which]
    assert claim.event.object_id == event.object_id
    assert any_inbox.get("evt_1").event == event


def test_an_unreadable_integer_matters_only_when_the_object_is_accessed():
    beside = Event.from_body(HARD["an integer beside"])
    assert beside.data.object == {}
    within = Event.from_body(HARD["an integer and a name"])
    assert within.object_id == "user_1"
    for ask in (lambda: within.data.object, lambda: within.data.as_type(dict), lambda: within.typed_as(User)):
        with pytest.raises(InvalidPayloadError, match="too many digits"):
            ask()


@pytest.mark.parametrize("member", ["id", "type", "webhook_id", "created"])
def test_leniently_parsed_members_are_checked_as_strictly(member):
    for value in (HALF, "1" * 5000, "[]"):
        with pytest.raises(InvalidPayloadError):
            Event.from_body(body_of(beside=f',{HALF}:1,"{member}":{value}'))


# Error messages

SENT = "ada@example.com"


RAISED = {
    "value": ValueError,
    "key": KeyError,
    "zero": ZeroDivisionError,
    "type": TypeError,
    "assertion": AssertionError,
}


class Validated(msgspec.Struct):
    id: str
    n: Any = None

    def __post_init__(self):
        _refuse(self.n)


class ValidatedModel(pydantic.BaseModel):
    id: str
    n: Any = None

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n):
        _refuse(n)
        return n


def _refuse(value):
    errors = {
        "value": ValueError,
        "key": KeyError,
        "zero": ZeroDivisionError,
        "type": TypeError,
        "assert": AssertionError,
    }
    if value is not None:
        raise errors[value](f"{SENT} - at `$.{SENT}`")


@pytest.mark.parametrize(
    ("object", "type_", "field"),
    [
        ({"id": "u", "kind": SENT}, Struct, "kind"),
        ({"id": "u", "kind": SENT}, Data, "kind"),
        ({"id": "u", "kind": SENT}, Typed, "kind"),
        ({"id": "u", "kind": SENT}, Model, "kind"),
        ({"id": "u", "kind": f"{SENT} - at `$.{SENT}`"}, Struct, "kind"),
        ({"id": "u", "kind": f"a\n{SENT}"}, Struct, "kind"),
        ({"id": "u", "kind": SENT}, Tagged, "kind"),
        ({"id": "u", "when": SENT}, Struct, "when"),
        ({"id": "u", "when": SENT}, Model, "when"),
        ({"id": "u", "amount": SENT}, Struct, "amount"),
        ({"id": "u", "counts": {SENT: SENT}}, Struct, "counts"),
        ({"id": "u", "counts": {SENT: SENT}}, Model, "counts"),
        ({"id": SENT, SENT: 1}, Strict, "Strict"),
        ({"id": SENT, SENT: 1}, Model, "Model"),
        ({"id": [SENT]}, User, "id"),
        ({SENT: SENT}, User, "id"),
        ({SENT: SENT}, dict[Annotated[str, msgspec.Meta(max_length=3)], str], "dict"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:60],
)
def test_an_error_names_the_field_and_contains_no_data(object, type_, field):
    with pytest.raises(InvalidPayloadError, match=field) as caught:
        Event.from_body(body_of(json.dumps(object))).data.as_type(type_)
    assert SENT not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("type_", [Validated, ValidatedModel])
@pytest.mark.parametrize("raises", RAISED)
def test_an_exception_of_a_types_validation_is_an_invalid_payload(type_, raises):
    with pytest.raises(InvalidPayloadError, match=type_.__name__) as caught:
        Event.from_body(body_of(json.dumps({"id": "u", "n": raises}))).typed_as(type_)
    assert "ada" not in str(caught.value)


def test_an_exception_of_a_nested_types_validation_names_its_path():
    class Outer(msgspec.Struct):
        inner: Validated

    with pytest.raises(InvalidPayloadError, match=r"raised ValueError - at `\$\.inner`$") as caught:
        Event.from_body(body_of('{"inner":{"id":"u","n":"value"}}')).data.as_type(Outer)
    assert SENT not in str(caught.value)


@pytest.mark.parametrize("type_", [3, "User", object()])
def test_an_invalid_type_is_a_configuration_error(type_):
    with pytest.raises(ConfigurationError, match="cannot convert data"):
        Event.from_body(body_of()).data.as_type(type_)
