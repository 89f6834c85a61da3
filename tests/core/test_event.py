"""Strict parsing of a verified body, its limits, and the types of `data.object`."""

import dataclasses
import json
import pickle
import re
import sys
from datetime import UTC, datetime
from typing import TypedDict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envoyou_core import EVENT_TYPES, Event, InvalidPayloadError, Login, User, WebhookRequest
from envoyou_core import event as event_module
from envoyou_core.event import MAX_CREATED, is_plain_text, object_key
from envoyou_core.testing import sample_event

DOCUMENT = {"id": "evt_1", "type": "user.created", "created": 1_640_995_200, "data": {"object": {"id": "user_1"}}}


def body_with(**changes) -> bytes:
    return json.dumps(DOCUMENT | changes).encode()


def body_without(name: str) -> bytes:
    return json.dumps({key: value for key, value in DOCUMENT.items() if key != name}).encode()


def test_the_guides_payload():
    body = b"""{
      "id": "evt_1234567890", "type": "user.created", "created": 1640995200,
      "data": {"object": {"id": "user_123", "email": "user@example.com", "name": "John Doe",
                          "created_at": "2024-01-01T00:00:00Z", "status": "active"}},
      "webhook_id": "wh_1234567890"
    }"""
    event = Event.from_body(body)
    assert (event.id, event.type, event.created) == ("evt_1234567890", "user.created", 1_640_995_200)
    assert event.created_at == datetime(2022, 1, 1, tzinfo=UTC)
    assert event.created_at.tzinfo is UTC
    assert event.webhook_id == "wh_1234567890"
    assert event.data.object["email"] == "user@example.com"
    assert event.body == body


def test_the_catalogue_has_the_guides_fourteen_types_in_its_order():
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES)) == 14
    assert EVENT_TYPES[0] == "user.created"
    assert EVENT_TYPES[-1] == "system.incident"
    assert [
        sum(type.startswith(family) for type in EVENT_TYPES) for family in ("user.", "auth.", "api.", "system.")
    ] == [
        4,
        4,
        3,
        3,
    ]


def test_unknown_types_and_additional_members_are_accepted():
    body = body_with(type="invoice.paid", livemode=True)
    event = Event.from_body(body)
    assert event.type == "invoice.paid"
    assert event.webhook_id is None
    assert b"livemode" in event.body


def test_data_may_have_additional_members():
    assert Event.from_body(body_with(data={"object": {"a": 1}, "previous": {}})).data.object == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"evt_1"',
        b"3",
        b"{}",
        b"{",
        b"not json",
        b"\xef\xbb\xbf" + body_with(),
        body_with().decode().encode("utf-16"),
        body_with() + b"x",
        body_with() + body_with(),
        body_with()[:-1],
        b"\xff" + body_with(),
        body_with(name="x").replace(b'"x"', b'"\xff"'),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b'"\xc3"'),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b"NaN"),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b"Infinity"),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b"'x'"),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b'"a\nb"'),
        body_with(data={"object": {"name": "x"}}).replace(b'"x"', b"01"),
        *(body_without(name) for name in ("id", "type", "created", "data")),
        *(body_with(**{name: None}) for name in ("id", "type", "created", "data")),
        *(body_with(id=value) for value in (3, True, [], {}, "")),
        *(body_with(type=value) for value in (3, ["user.created"], "")),
        *(body_with(created=value) for value in ("1640995200", 1.5, True, [], -1, 253_402_300_800, 10**30)),
        *(body_with(data=value) for value in ([], "x", 3, {}, {"object": None}, {"object": []}, {"object": "x"})),
        *(body_with(webhook_id=value) for value in (3, [], {})),
        b"[" * 100_000,
        body_with(data={"object": {"x": "y"}}).replace(b'"y"', b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_that_is_not_an_event_is_an_invalid_payload(body):
    with pytest.raises(InvalidPayloadError) as caught:
        Event.from_body(body).data.object  # noqa: B018 - a payload that is nested too deeply may show here
    assert caught.value.code == "invalid_payload"
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["id", "type", "webhook_id"])
@pytest.mark.parametrize("value", ["x" * 256, "a\nb", "a\0b", "a\x7fb", "a\x85b", "\t", "a\ud800b"])
def test_names_that_are_too_long_or_have_control_characters_are_refused(name, value):
    with pytest.raises(InvalidPayloadError):
        Event.from_body(body_with(**{name: value}))


@pytest.mark.parametrize("name", ["id", "type", "webhook_id"])
@pytest.mark.parametrize("value", ["x", "x" * 255, "é" * 255, "🎉" * 255, "a b", "a\u200db", "a\u2028b"])
def test_names_within_the_bounds_are_accepted(name, value):
    assert getattr(Event.from_body(body_with(**{name: value})), name) == value


def test_a_webhook_id_may_be_null_or_empty():
    assert Event.from_body(body_with(webhook_id=None)).webhook_id is None
    assert Event.from_body(body_with(webhook_id="")).webhook_id == ""


@pytest.mark.parametrize("created", [0, 253_402_300_799])
def test_the_bounds_of_created(created):
    event = Event.from_body(body_with(created=created))
    assert event.created == created
    assert event.created_at.timestamp() == created


@pytest.mark.parametrize("text", [r"\ud83d", r"cut \ud83d", r"\udc00\ud83d", r"\ud83d x"])
def test_half_of_a_surrogate_pair_in_the_payload_is_accepted(text):
    body = body_with(data={"object": {"name": "NAME"}}).replace(b"NAME", text.encode())
    event = Event.from_body(body)
    assert event.data.object == {"name": json.loads(f'"{text}"')}
    assert (event.id, event.type, event.created, event.body) == ("evt_1", "user.created", 1_640_995_200, body)


@pytest.mark.parametrize(
    "broken",
    [
        body_with(data={"object": {"name": "NAME"}}, created=-1),
        body_with(data={"object": {"name": "NAME"}}, id=3),
        body_with(data={"object": ["NAME"]}),
        body_with(data=["NAME"]),
        body_with(data="NAME"),
        b'["NAME"]',
        b'"NAME"',
        body_without("data")[:-1] + b', "name": "NAME"}',
        body_with(data={"object": {"name": "NAME", "x": "X"}}).replace(b'"X"', b"NaN"),
        body_with(data={"object": {"name": "NAME", "x": "X"}}).replace(b'"X"', b"[" * 100_000 + b"]" * 100_000),
        body_with(data={"object": {"name": "NAME"}})[:-1],
    ],
    ids=lambda body: repr(body[:60]),
)
def test_a_body_with_half_of_a_surrogate_pair_is_checked_as_strictly(broken):
    with pytest.raises(InvalidPayloadError):
        Event.from_body(broken.replace(b"NAME", rb"\ud83d")).data.object  # noqa: B018


def test_an_integer_with_too_many_digits_is_an_invalid_payload_when_it_is_accessed():
    event = Event.from_body(body_with(data={"object": {"n": "N"}}).replace(b'"N"', b"1" * 5000))
    assert event.id == "evt_1"
    with pytest.raises(InvalidPayloadError):
        event.data.object  # noqa: B018


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(body=st.binary() | _json.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_give_an_event_or_an_invalid_payload(body):
    try:
        event = Event.from_body(body)
        assert isinstance(event.data.object, dict)
    except InvalidPayloadError:
        return
    assert event.body == body


@given(changes=st.dictionaries(st.sampled_from([*DOCUMENT, "webhook_id", "more"]), _json, min_size=1))
def test_arbitrary_members_give_an_event_or_an_invalid_payload(changes):
    body = body_with(**changes)
    try:
        event = Event.from_body(body)
    except InvalidPayloadError:
        return
    document = json.loads(body)
    assert (event.id, event.type, event.created) == (document["id"], document["type"], document["created"])
    assert event.data.object == document["data"]["object"]


_names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=255)


@given(
    id=_names,
    type=_names,
    created=st.integers(0, 253_402_300_799),
    object=st.dictionaries(st.text(st.characters(codec="utf-8")), _json, max_size=4),
    ascii=st.booleans(),
)
def test_every_valid_event_is_accepted(id, type, created, object, ascii):
    document = {"id": id, "type": type, "created": created, "data": {"object": object}}
    try:
        body = json.dumps(document, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        body = json.dumps(document).encode()
    event = Event.from_body(body)
    assert (event.id, event.type, event.created, event.body) == (id, type, created, body)
    assert event.data.object == json.loads(body)["data"]["object"]


# Types of the object


def test_the_object_is_decoded_once_and_kept():
    event = sample_event()
    assert event.data.object is event.data.object


def test_a_user():
    user = sample_event("user.created").data.as_type(User)
    assert (user.id, user.email, user.name) == ("user_123", "john.doe@example.com", "John Doe")
    assert (user.email_verified, user.metadata, user.status) == (False, {}, None)
    assert user.created_at == datetime(2024, 1, 1, tzinfo=UTC)


def test_a_login():
    login = sample_event("auth.login").data.as_type(Login)
    assert (login.user_id, login.ip_address) == ("user_123", "192.168.1.1")
    assert login.timestamp == datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    assert (login.location.country, login.location.city) == ("US", "New York")


def test_additional_fields_are_ignored():
    assert sample_event(object={"id": "user_1", "new": [1]}).data.as_type(User) == User(id="user_1")


def test_an_object_can_be_converted_to_any_type():
    @dataclasses.dataclass
    class Key:
        id: str

    class Named(TypedDict):
        id: str

    event = sample_event("api.key_expired", object={"id": "key_1"})
    assert event.data.as_type(Key) == Key("key_1")
    assert event.data.as_type(Named) == {"id": "key_1"}


@pytest.mark.parametrize("object", [{}, {"id": 3}, {"id": "user_1", "created_at": "yesterday"}])
def test_an_object_that_does_not_match_the_type_is_an_invalid_payload(object):
    with pytest.raises(InvalidPayloadError, match="not a User"):
        sample_event(object=object).data.as_type(User)


def test_an_event_can_be_typed():
    event = sample_event("user.created", object={"id": "user_1", "email": "ada@example.com"})
    typed = event.typed_as(User)
    assert typed.data.object == User(id="user_1", email="ada@example.com")
    assert (typed.id, typed.body, typed.object_id) == (event.id, event.body, "user_1")
    assert typed == event
    assert event.data.object == {"id": "user_1", "email": "ada@example.com"}
    assert typed.data.as_type(dict) == event.data.object
    with pytest.raises(InvalidPayloadError, match="not a Login"):
        event.typed_as(Login)


def test_a_leniently_parsed_event_can_be_typed():
    event = Event.from_body(body_with(data={"object": {"id": "user_1", "name": "\ud800"}}))
    typed = event.typed_as(User)
    assert (typed.data.object.name, typed.object_id) == ("\ud800", "user_1")


def test_a_type_parameter_has_no_effect_at_run_time():
    assert Event[User].from_body(body_with()) == Event.from_body(body_with())


# The object's id


def object_of(text: str) -> Event:
    """Create an event whose object is the given JSON text."""
    return Event.from_body(body_with(data={"object": {}}).replace(b"{}", text.encode()))


def identity(object):
    """Define the id by means of Python's own decoder."""
    for found in (object.get("id"), object.get("user_id")):
        if type(found) is int or (type(found) is str and found):
            return str(found)
    return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": "user_1", "user_id": "user_2"}', "user_1"),
        ('{"user_id": "user_2"}', "user_2"),
        ('{"id": null, "user_id": "user_2"}', "user_2"),
        ('{"id": "", "user_id": "user_2"}', "user_2"),
        ('{"id": [1], "user_id": "user_2"}', "user_2"),
        ('{"id": true, "user_id": 7}', "7"),
        ('{"id": 1.5, "user_id": {}}', None),
        ('{"id": 0}', "0"),
        ('{"id": -5}', "-5"),
        ('{"id": "5"}', "5"),
        ('{"id": 123456789012345678901234567890}', "123456789012345678901234567890"),
        ('{"id": "first", "id": "last"}', "last"),
        ('{"i\\u0064": "escaped"}', "escaped"),
        ('{"ID": "x", "data": {"id": "inner"}}', None),
        ("{}", None),
        ('{"id": " "}', " "),
        ('{"id": "user_1", "name": "cut \\ud83d"}', "user_1"),
    ],
)
def test_the_id_of_the_object(text, expected):
    event = object_of(text)
    assert event.object_id == event.data.identity() == expected == identity(json.loads(text))


_ids = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("user_1")


@given(
    object=_json.filter(lambda value: isinstance(value, dict)),
    id=_ids | _json,
    user_id=_ids | _json,
    ascii=st.booleans(),
)
def test_the_id_of_any_object(object, id, user_id, ascii):
    object = object | {"id": id, "user_id": user_id}
    try:
        body = json.dumps(DOCUMENT | {"data": {"object": object}}, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        body = json.dumps(DOCUMENT | {"data": {"object": object}}).encode()
    try:
        event = Event.from_body(body)
    except InvalidPayloadError:
        assert "Infinity" in body.decode()
        return
    expected = identity(json.loads(body)["data"]["object"])
    assert event.data.identity() == expected
    assert event.object_id == (None if expected is None else object_key(expected))
    event.data.object  # noqa: B018 - decoded, it is about the same
    assert event.data.identity() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": ' + "1" * 5000 + "}", None),
        ('{"id": [1], "user_id": "x", "n": ' + "1" * 5000 + "}", None),
        ('{"id": "user_1", "n": ' + "1" * 5000 + "}", "user_1"),
        ('{"id": 1e400, "user_id": "user_2"}', "user_2"),
    ],
    ids=["huge", "unreadable", "not-looked-at", "infinite"],
)
def test_an_unreadable_object_has_no_id(text, expected):
    assert object_of(text).object_id == expected


def test_the_object_id_is_available_at_any_recursion_depth():
    """An object that could be parsed may be nested too deeply for the recursion depth of the code that accesses it."""
    depth = sys.getrecursionlimit() - 120
    event = object_of('{"id": "user_1", "x": ' + "[" * depth + "]" * depth + "}")

    def ask(deeper: int) -> str | None:
        return ask(deeper - 1) if deeper else event.object_id

    assert ask(200) in {None, "user_1"}


@given(text=st.text(st.characters()))
@example(text="x" * 255)
@example(text="x" * 256)
@example(text="")
def test_every_database_can_store_an_object_key(text):
    key = object_key(text)
    assert 0 < len(key) <= 255
    assert is_plain_text(key)
    assert object_key(key) == key
    assert (key == text) is (0 < len(text) <= 255 and is_plain_text(text))


def test_different_ids_have_different_keys():
    others = ["", "x" * 255, "x" * 256, "x" * 257, "a\nb", "a\rb", "\ud83d", "\ud83e", "é" * 256, "e\u0301" * 256]
    assert len({object_key(text) for text in others}) == len(others)


# Equality and repr


def test_events_with_the_same_body_are_equal():
    body = body_with()
    assert Event.from_body(body) == Event.from_body(body)
    assert hash(Event.from_body(body)) == hash(Event.from_body(body))
    assert Event.from_body(body) != Event.from_body(body_with(id="evt_2"))
    assert Event.from_body(body) != "evt_1"


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        sample_event().id = "evt_2"


def test_a_repr_does_not_show_the_payload():
    event = sample_event(id="evt_1", created=5, object={"email": "private@example.com"})
    event.data.object  # noqa: B018 - decoded, so that there would be something to show
    for text in (repr(event), str(event), repr(event.data), f"{event}"):
        assert "private" not in text
    assert repr(event) == "Event(id='evt_1', type='user.created', created=5)"


# The fast path of the parser


_names = (
    st.sampled_from(["evt_1", "", "é", "\x7f", "\u3000", "\ud800", "x" * 255, "x" * 256, "é" * 255])
    | st.text()
    | st.none()
)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "id": _names,
            "type": _names,
            "webhook_id": _names,
            "created": st.sampled_from([0, -1, MAX_CREATED, MAX_CREATED + 1, 10**30, 1.0, 1.5, "1", True, None]),
            "data": st.sampled_from([{"object": it} for it in ({}, [], "{", 1, None, {"a": "\ud800"}, {"\ud800": 1})]),
        },
    ),
    escaped=st.booleans(),
)
def test_the_fast_path_accepts_nothing_that_the_strict_parser_refuses_and_gives_the_same_event(changes, escaped):
    body = json.dumps(DOCUMENT | changes, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    try:
        envelope, data = event_module._parse_strictly(body)
    except InvalidPayloadError as error:
        with pytest.raises(InvalidPayloadError, match=f"^{re.escape(str(error))}$"):
            Event.from_body(body)
    else:
        event = Event.from_body(body)
        assert (event.id, event.type, event.webhook_id) == (envelope.id, envelope.type, envelope.webhook_id)
        assert (event.created, event.data.object, event.body) == (envelope.created, data.object, body)


def test_an_event_in_a_pretty_printers_output_shows_no_payload():
    event = sample_event("user.created")
    request = WebhookRequest("POST", event.body, signature=b"v1,0")
    shown = [event.__rich_repr__(), event.data.__rich_repr__(), request.__rich_repr__()]
    assert "user@" not in repr(shown)
    assert "v1" not in repr(shown)
    assert "@" in event.body.decode()


def test_an_events_data_can_be_pickled():
    for event in (Event.from_body(body_with()), Event.from_body(body_with(data={"object": {"name": "\ud800"}}))):
        copied = pickle.loads(pickle.dumps(event))
        assert (copied, copied.data.object) == (event, event.data.object)
