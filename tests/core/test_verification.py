"""`verify`: authenticates the body, parses it, and compares it with the headers."""

import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import (
    ConfigurationError,
    HeaderMismatchError,
    InvalidPayloadError,
    InvalidTimestampError,
    MissingHeaderError,
    MissingSignatureError,
    SignatureMismatchError,
    TimestampOutOfToleranceError,
    WebhookError,
    WebhookRequest,
    WebhookVerificationError,
    sign,
    verify,
)
from envoyou_core.reception import verification
from envoyou_core.reception.verification import header_text
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"
NOW = 1_640_995_200
SIGNATURE, TIMESTAMP = "X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"
WEBHOOK_ID, EVENT_TYPE, NONCE = "X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type", "X-EnvoyOU-Nonce"


def delivery_of(event=None, **settings):
    event = sample_event("user.created", id="evt_1") if event is None else event
    return sign_delivery(event, secret=SECRET, timestamp=NOW, **settings)


def checked(delivery, *, headers=None, body=None, **settings):
    settings = {"secret": SECRET, "now": NOW} | settings
    return verify(delivery.headers | (headers or {}), delivery.body if body is None else body, **settings)


def without(delivery, *names):
    return {name: value for name, value in delivery.headers.items() if name not in names}


def test_verify_returns_the_event():
    delivery = delivery_of()
    event = checked(delivery)
    assert (event.id, event.type, event.body) == ("evt_1", "user.created", delivery.body)


def test_the_systems_clock_is_the_default():
    delivery = sign_delivery(sample_event(id="evt_1"), secret=SECRET, timestamp=int(time.time()))
    assert verify(delivery.headers, delivery.body, secret=SECRET).id == "evt_1"
    with pytest.raises(TimestampOutOfToleranceError):
        verify(delivery_of().headers, delivery_of().body, secret=SECRET)


@pytest.mark.parametrize(
    "form",
    [
        lambda headers: {name.upper(): value for name, value in headers.items()},
        lambda headers: {name.lower().encode(): value.encode() for name, value in headers.items()},
        lambda headers: list(headers.items()),
        lambda headers: iter([(name.encode(), f"  {value}\t".encode()) for name, value in headers.items()]),
    ],
    ids=["upper case", "bytes", "pairs", "pairs of bytes"],
)
def test_headers_may_have_many_types(form):
    delivery = delivery_of()
    assert verify(form(delivery.headers), delivery.body, secret=SECRET, now=NOW).id == "evt_1"


@pytest.mark.parametrize("body", ["{}", None, {"id": "evt_1"}])
def test_a_decoded_body_is_a_type_error(body):
    with pytest.raises(TypeError, match="raw bytes"):
        verify(delivery_of().headers, body, secret=SECRET)


@pytest.mark.parametrize("view", [bytearray, memoryview])
def test_a_body_may_be_any_bytes_like_object(view):
    delivery = delivery_of()
    event = checked(delivery, body=view(delivery.body))
    assert type(event.body) is bytes


# 401


def test_a_missing_or_empty_signature():
    delivery = delivery_of()
    for headers in (without(delivery, SIGNATURE), delivery.headers | {SIGNATURE: " "}):
        with pytest.raises(MissingSignatureError):
            verify(headers, delivery.body, secret=SECRET, now=NOW)


def test_a_missing_or_empty_timestamp():
    delivery = delivery_of()
    for headers in (without(delivery, TIMESTAMP), delivery.headers | {TIMESTAMP: ""}):
        with pytest.raises(InvalidTimestampError):
            verify(headers, delivery.body, secret=SECRET, now=NOW)


@pytest.mark.parametrize(("tolerance", "offset"), [(300, 301), (300, -301), (0, 1), (0, -1), (10.5, 11), (10.5, -11)])
def test_outside_the_tolerance(tolerance, offset):
    with pytest.raises(TimestampOutOfToleranceError):
        checked(delivery_of(), tolerance=tolerance, now=NOW + offset)


@pytest.mark.parametrize(("tolerance", "offset"), [(300, 300), (300, -300), (0, 0), (10.5, 10.5), (1e9, 1e8)])
def test_within_the_tolerance(tolerance, offset):
    assert checked(delivery_of(), tolerance=tolerance, now=NOW + offset).id == "evt_1"


def test_another_secret_body_or_timestamp_is_refused():
    delivery = delivery_of()
    for broken in (
        lambda: checked(delivery, secret="whsec_other"),
        lambda: checked(delivery, body=delivery.body.replace(b"evt_1", b"evt_2")),
        lambda: checked(delivery, headers={TIMESTAMP: str(NOW + 1)}),
        lambda: checked(delivery, headers={TIMESTAMP: f"0{NOW}"}),
    ):
        with pytest.raises(SignatureMismatchError):
            broken()


def test_a_repeated_signature_header_is_refused():
    delivery = delivery_of()
    pairs = [*delivery.headers.items(), (SIGNATURE, delivery.headers[SIGNATURE])]
    with pytest.raises(SignatureMismatchError):
        verify(pairs, delivery.body, secret=SECRET, now=NOW)


@pytest.mark.parametrize("signature", ["é", "\u20ac", "\udc80", "v1,\u0660", b"\xff\xfe"])
def test_a_signature_beyond_ascii_is_a_mismatch_and_not_a_crash(signature):
    headers = [(name, value) for name, value in without(delivery_of(), SIGNATURE).items()]
    with pytest.raises(SignatureMismatchError):
        verify([*headers, (SIGNATURE, signature)], delivery_of().body, secret=SECRET, now=NOW)


def test_the_body_is_authenticated_before_it_is_parsed():
    for body in (b"", b"not json", b"\xff", b"[" * 100_000):
        with pytest.raises(SignatureMismatchError):
            checked(delivery_of(), body=body)


def test_every_verification_error_has_the_same_public_message():
    errors = []
    for kind in (MissingSignatureError, InvalidTimestampError, TimestampOutOfToleranceError, SignatureMismatchError):
        error = kind()
        assert isinstance(error, WebhookVerificationError)
        errors.append((error.status, error.code, error.public_message))
    assert set(errors) == {(401, "unauthorized", "The request could not be authenticated.")}


# 400


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"id": "evt_1"}'])
def test_an_authentic_but_unusable_body(body):
    with pytest.raises(InvalidPayloadError) as caught:
        checked(delivery_of(body))
    assert caught.value.code == "invalid_payload"


@pytest.mark.parametrize("name", [WEBHOOK_ID, EVENT_TYPE])
def test_a_required_header_that_is_missing(name):
    delivery = delivery_of()
    for headers in (without(delivery, name), delivery.headers | {name: ""}):
        with pytest.raises(MissingHeaderError, match=name):
            verify(headers, delivery.body, secret=SECRET, now=NOW)
    assert verify(without(delivery, name), delivery.body, secret=SECRET, now=NOW, required_headers=()).id == "evt_1"


def test_headers_can_be_required_by_name():
    delivery = delivery_of()
    assert checked(delivery, required_headers=["x-envoyou-nonce", SIGNATURE]).id == "evt_1"
    with pytest.raises(MissingHeaderError, match="x-envoyou-nonce"):
        verify(without(delivery, NONCE), delivery.body, secret=SECRET, now=NOW, required_headers="x-envoyou-nonce")


@pytest.mark.parametrize("value", ["user.deleted", "User.Created", "user.created,user.created", "é"])
def test_an_event_type_header_that_contradicts_the_body(value):
    with pytest.raises(HeaderMismatchError, match="Event-Type") as caught:
        checked(delivery_of(), headers={EVENT_TYPE: value})
    assert (caught.value.status, caught.value.code) == (400, "header_mismatch")


def test_a_webhook_id_header_that_contradicts_the_body():
    with pytest.raises(HeaderMismatchError, match="Webhook-ID"):
        checked(delivery_of(), headers={WEBHOOK_ID: "wh_other"})


def test_a_webhook_id_header_is_accepted_if_the_body_has_none():
    event = sample_event(webhook_id=None, id="evt_1")
    assert checked(delivery_of(event), headers={WEBHOOK_ID: "wh_any"}).webhook_id is None


def test_headers_that_are_not_required_are_still_compared_with_the_body():
    with pytest.raises(HeaderMismatchError):
        checked(delivery_of(), headers={EVENT_TYPE: "user.deleted"}, required_headers=())


# Forms of the signed content


def test_each_form_is_accepted_unless_the_settings_exclude_it():
    document = json.loads(sample_event(id="evt_1").body)
    canonical = delivery_of(json.dumps(document, indent=1).encode(), signed_content="canonical")
    assert checked(canonical).id == "evt_1"
    assert checked(canonical, signed_content=("canonical",)).id == "evt_1"
    with pytest.raises(SignatureMismatchError):
        checked(canonical, signed_content=("raw",))
    with pytest.raises(SignatureMismatchError):
        checked(delivery_of(), signed_content="canonical")
    assert checked(delivery_of(), signed_content=["canonical", "raw"]).id == "evt_1"


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": ""},
        {"secret": []},
        {"secret": None},
        {"tolerance": -1},
        {"tolerance": float("nan")},
        {"tolerance": float("inf")},
        {"signed_content": ()},
        {"signed_content": ("pretty",)},
        {"signed_content": "pretty"},
        {"required_headers": ["X-Custom-Header"]},
    ],
    ids=str,
)
def test_invalid_settings(wrong):
    with pytest.raises(ConfigurationError):
        checked(delivery_of(), **wrong)


# Hostile input


_values = st.text() | st.binary() | st.sampled_from([str(NOW), "v1,", "user.created", "wh_1"])
_header_names = st.sampled_from([SIGNATURE, TIMESTAMP, WEBHOOK_ID, EVENT_TYPE, NONCE, "Content-Type"]) | st.text()


@given(headers=st.lists(st.tuples(_header_names, _values)), body=st.binary())
def test_arbitrary_requests_raise_only_webhook_errors(headers, body):
    with pytest.raises(WebhookError):
        verify(headers, body, secret=SECRET, now=NOW)


@given(body=st.binary(), headers=st.dictionaries(st.sampled_from([WEBHOOK_ID, EVENT_TYPE, NONCE]), _values))
def test_arbitrary_signed_requests_raise_only_webhook_errors(body, headers):
    signed = {SIGNATURE: sign(body, secret=SECRET, timestamp=NOW), TIMESTAMP: str(NOW)}
    with pytest.raises(InvalidPayloadError):
        verify([*signed.items(), *headers.items()], body, secret=SECRET, now=NOW)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (b"", None),
        (b"wh_1", "wh_1"),
        ("é".encode(), "é"),
        (b"\xff", None),
        (b"a\x00", None),
        (b"x" * 256, None),
    ],
)
def test_an_unsigned_header_is_stored_only_if_it_is_plain_text(value, text):
    assert header_text(value) == text


# The fast path


def outcome(headers, body, **settings):
    try:
        event = verify(headers, body, now=NOW, **settings)
    except WebhookError as error:
        return type(error), str(error)
    return event.id, event.type, event.created, event.webhook_id, event.body, event.data.object


def with_one_change(headers):
    """Headers as the platform sends them, and the same with one of them respelled, changed, repeated or missing."""
    yield headers
    yield {name.lower(): value for name, value in headers.items()}
    yield {name.encode(): value.encode() for name, value in headers.items()}
    for name, value in headers.items():
        others = {key: other for key, other in headers.items() if key != name}
        yield others
        for spelling in (name.lower(), name.upper(), name.encode(), name.replace("k", "\N{KELVIN SIGN}")):
            yield others | {spelling: value.encode() if isinstance(spelling, bytes) else value}
        for repeated in (name.lower(), name.lower().encode()):
            yield headers | {repeated: ""}
            yield headers | {repeated: value}
        for changed in (f" {value}\t", f"{value}\n", f"\u00a0{value}", value.encode(), value[:-1], value.upper()):
            yield others | {name: changed}
        for changed in ("", " ", "\u00a0", b" ", "é", "\u0661", "\udc80", "x" * len(value)):
            yield others | {name: changed}


BODIES = [
    json.dumps(
        {"id": "evt_1", "type": "user.created", "created": NOW, "data": {"object": {}}, "webhook_id": "wh_1"} | it
    )
    for it in (
        {},
        {"webhook_id": None},
        {"webhook_id": "é"},
        {"type": "é"},
        {"type": "\x7f"},
        {"type": 1},
        {"data": {"object": [1]}},
    )
]


@pytest.mark.parametrize(
    ("timestamp", "form"),
    [(NOW, "raw"), (NOW, "canonical"), *((each, "raw") for each in (NOW - 301, f"0{NOW}", f"000{NOW}", f"+{NOW}"))],
)
def test_the_spelling_of_headers_changes_no_decision(timestamp, form):
    for text, secret, settings in itertools.product(
        BODIES,
        (SECRET, ["whsec_newer", SECRET]),
        ({"required_headers": ()}, {}, {"required_headers": (NONCE,)}, {"signed_content": "canonical"}),
    ):
        body, event = text.encode(), json.loads(text)
        signature = sign(body, secret=SECRET, timestamp=timestamp, signed_content=form)
        for headers in with_one_change(
            {
                SIGNATURE: signature,
                TIMESTAMP: str(timestamp),
                WEBHOOK_ID: event["webhook_id"] or "wh_any",
                EVENT_TYPE: str(event["type"]),
            }
        ):
            # Only a dict whose names of headers are known from an authentic delivery can take the fast path.
            decided = outcome(list(headers.items()), body, secret=secret, **settings)
            assert outcome(headers, body, secret=secret, **settings) == decided
            assert outcome(headers, body, secret=secret, **settings) == decided


def test_a_delivery_as_the_platform_sends_it_takes_the_fast_path(monkeypatch):
    delivery = delivery_of()
    first = verify(delivery.headers, delivery.body, secret=SECRET, now=NOW)
    monkeypatch.setattr(WebhookRequest, "from_http", None)
    assert verify(dict(delivery.headers), delivery.body, secret=SECRET, now=NOW) == first
    assert verify(dict(delivery.headers), delivery.body, secret=["whsec_newer", SECRET], now=NOW) == first


def test_names_of_headers_are_learned_from_authentic_deliveries_only_and_not_without_bound(monkeypatch):
    monkeypatch.setattr(verification, "_pickers", pickers := {})
    delivery = delivery_of()
    with pytest.raises(SignatureMismatchError):
        checked(delivery, headers={SIGNATURE: "v1," + "0" * 64})
    assert pickers == {}
    for number in range(2 * verification.MAX_CACHED + 1):
        checked(delivery, headers={f"X-{number}": "1"})
        assert 1 <= len(pickers) <= verification.MAX_CACHED
    assert SECRET not in repr(pickers)


def test_a_list_of_secrets_that_changes_between_calls_is_read_anew():
    delivery = sign_delivery(sample_event(), secret="whsec_first")
    secrets = ["whsec_first"]
    assert verify(delivery.headers, delivery.body, secret=secrets).type == "user.created"
    secrets[0] = "whsec_second"
    with pytest.raises(SignatureMismatchError):
        verify(delivery.headers, delivery.body, secret=secrets)


def test_a_setting_that_equals_an_earlier_one_is_still_checked():
    delivery = sign_delivery(sample_event(), secret="whsec_first")
    verify(delivery.headers, delivery.body, secret="whsec_first", max_canonical_size=1)
    with pytest.raises(ConfigurationError, match="max_canonical_size"):
        verify(delivery.headers, delivery.body, secret="whsec_first", max_canonical_size=True)
