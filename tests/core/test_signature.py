"""Secrets, signed content and signatures, compared with the standard library's HMAC."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import (
    ConfigurationError,
    InvalidTimestampError,
    SignatureMismatchError,
    TimestampOutOfToleranceError,
    WebhookRequest,
    WebhookVerificationError,
    sign,
)
from envoyou_core.reception.canonical import SMALL_BODY, canonical_form
from envoyou_core.reception.signature import SigningKey, check_timestamp, signing_keys
from envoyou_core.reception.verification import VerificationPolicy

SECRET = "whsec_test"


def expected(secret: bytes, timestamp: str, content: bytes) -> str:
    return "v1," + hmac.new(secret, timestamp.encode() + b"." + content, hashlib.sha256).hexdigest()


def check(body, signature, *, secret=SECRET, timestamp=b"1", forms=("raw", "canonical")):
    signature = signature.encode() if isinstance(signature, str) else signature
    policy = VerificationPolicy(signed_content=forms, tolerance=1e12)
    request = WebhookRequest("POST", body, signature=signature, timestamp=timestamp)
    policy.authenticate(request, signing_keys(secret), now=1)


# sign


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_your_webhook_secret_key",
        b"\x00\xff bytes",
        "sécret ключ 🔑",
        "k",
        (b"a key " * 11)[:63],
        (b"a key " * 11)[:64],
        (b"a key " * 11)[:65],
        "long " * 100,
        b"ends with zeros\0\0",
        " spaces are kept ",
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", '{"name": "Zoë"}'.encode(), b"\xff\x00", b"x" * 200_000])
def test_a_signature_is_the_hmac_of_timestamp_stop_and_body(secret, body):
    key = secret.encode() if isinstance(secret, str) else secret
    assert sign(body, secret=secret, timestamp=1_640_995_200) == expected(key, "1640995200", body)


@given(secret=st.binary(min_size=1).filter(bytes.strip), timestamp=st.integers(0, 10**12 - 1), body=st.binary())
def test_every_secret_and_body_gives_the_standard_librarys_hmac(secret, timestamp, body):
    assert sign(body, secret=secret, timestamp=timestamp) == expected(secret, str(timestamp), body)


def test_the_timestamp_is_signed_as_it_is_spelt():
    assert sign(b"{}", secret=SECRET, timestamp="007") == expected(SECRET.encode(), "007", b"{}")
    assert sign(b"{}", secret=SECRET, timestamp="007") != sign(b"{}", secret=SECRET, timestamp=7)


def test_the_canonical_form_is_the_guides_python_recipe():
    body = '{"b": [1, 1.50, true, null], "a": "Zoë", "é": {"z": 1, "y": 2}}'.encode()
    recipe = json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode()
    assert recipe == rb'{"a":"Zo\u00eb","b":[1,1.5,true,null],"\u00e9":{"y":2,"z":1}}'
    assert canonical_form(body) == recipe
    signature = sign(body, secret=SECRET, timestamp=1, signed_content="canonical")
    assert signature == expected(SECRET.encode(), "1", recipe)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff{}", b'{"a": NaN}', b"[Infinity]", b"-Infinity", b"1e999", b"[" * 100_000, b"1" * 5000],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_without_a_canonical_form_cannot_be_signed_in_it(body):
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        sign(body, secret=SECRET, timestamp=1, signed_content="canonical")
    with pytest.raises(SignatureMismatchError):
        check(body, b"v1," + b"0" * 64, forms=("canonical",))


def test_only_the_two_forms_can_be_signed():
    with pytest.raises(ConfigurationError, match="pretty"):
        sign(b"{}", secret=SECRET, timestamp=1, signed_content="pretty")


# Secrets


@pytest.mark.parametrize("secret", ["", b"", " ", "\t\n", b" \r\n", [], (), [""], ["good", ""], iter([]), "\ud800"])
def test_an_empty_or_unusable_secret_is_a_configuration_error(secret):
    with pytest.raises(ConfigurationError, match="secret"):
        signing_keys(secret)


@pytest.mark.parametrize("secret", [None, 3, 3.5, True, object(), [None], [3], bytearray(b"x"), {1: 2}])
def test_a_secret_of_another_type_is_a_configuration_error(secret):
    with pytest.raises(ConfigurationError):
        signing_keys(secret)


def test_a_key_does_not_show_its_secret():
    assert "whsec" not in repr(SigningKey(SECRET))
    assert not hasattr(SigningKey(SECRET), "__dict__")


def test_both_secrets_are_accepted_during_rotation():
    for secret in ("newest", b"oldest"):
        check(b"{}", sign(b"{}", secret=secret, timestamp=1), secret=["newest", b"oldest"])
    with pytest.raises(SignatureMismatchError):
        check(b"{}", sign(b"{}", secret="gone", timestamp=1), secret=["newest", b"oldest"])


# The signature of a request

BODY = b'{"b": 1, "a": "x"}'


@pytest.mark.parametrize("form", ["raw", "canonical"])
def test_a_form_is_accepted_if_the_settings_include_it(form):
    signature = sign(BODY, secret=SECRET, timestamp=1, signed_content=form)
    check(BODY, signature)
    check(BODY, signature, forms=(form,))
    other = "canonical" if form == "raw" else "raw"
    with pytest.raises(SignatureMismatchError):
        check(BODY, signature, forms=(other,))


@given(
    place=st.sampled_from(["body", "signature", "timestamp"]),
    position=st.integers(0, 10_000),
    bit=st.integers(0, 7),
    form=st.sampled_from(["raw", "canonical"]),
)
def test_one_flipped_bit_anywhere_is_refused(place, position, bit, form):
    # The canonical form does not cover white space and order, so this body is canonical already.
    body = b'{"a":"x","b":1}'
    signed = {
        "body": body,
        "signature": sign(body, secret=SECRET, timestamp=1_640_995_200, signed_content=form).encode(),
        "timestamp": b"1640995200",
    }
    flipped = bytearray(signed[place])
    flipped[position % len(flipped)] ^= 1 << bit
    signed[place] = bytes(flipped)
    with pytest.raises(WebhookVerificationError):
        check(signed["body"], signed["signature"], timestamp=signed["timestamp"], forms=(form,))


@pytest.mark.parametrize(
    "mangle",
    [
        lambda signature: "",
        lambda signature: signature[3:],
        lambda signature: signature.upper(),
        lambda signature: signature + "0",
        lambda signature: signature[:-1],
        lambda signature: "v2" + signature[2:],
        lambda signature: signature + "," + signature,
        lambda signature: " " + signature,
        lambda signature: "v1,é" + signature[4:],
        lambda signature: "v1," + "0" * 64,
    ],
)
def test_only_the_exact_signature_is_accepted(mangle):
    with pytest.raises(WebhookVerificationError):
        check(b"{}", mangle(sign(b"{}", secret=SECRET, timestamp=1)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'[{"a": 1, "a": 1}]',
        rb'{"a": 1, "\u0061": 2}',
        # The escaped colon would compensate for the one that was dropped.
        rb'{"a": "\u003a", "a": "::"}',
        rb'{"a": 1, "a": "\u003A"}',
    ],
)
@pytest.mark.parametrize("size", [0, SMALL_BODY], ids=["small", "large"])
def test_a_canonical_signature_is_refused_if_two_members_have_the_same_name(body, size):
    body = body.ljust(size + 1)
    recipe = json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(SignatureMismatchError):
        check(body, expected(SECRET.encode(), "1", recipe))
    with pytest.raises(ValueError, match="same name"):
        sign(body, secret=SECRET, timestamp=1, signed_content="canonical")
    check(body, sign(body, secret=SECRET, timestamp=1))


@pytest.mark.parametrize(
    "body", [rb'{"a": "\u003a"}', rb'{"\u003a": 1, "b": "x:y"}', rb'{"a": "\u003c"}', b'{"t": "1:2"}']
)
def test_colons_within_strings_are_not_counted_as_members(body):
    check(body, sign(body, secret=SECRET, timestamp=1, signed_content="canonical"))


_names = st.text(alphabet='ab:\\u003"', max_size=3)
_documents = st.recursive(
    st.none() | st.integers() | _names, lambda inner: st.lists(st.tuples(_names, inner), max_size=3), max_leaves=8
)


def _written(document, escape) -> str:
    if not isinstance(document, list):
        return escape(json.dumps(document))
    return "{" + ",".join(f"{escape(json.dumps(name))}:{_written(value, escape)}" for name, value in document) + "}"


def _names_twice(document) -> bool:
    if not isinstance(document, list):
        return False
    return len({name for name, _ in document}) < len(document) or any(_names_twice(value) for _, value in document)


@given(document=_documents, escaped=st.booleans())
def test_a_canonical_signature_is_accepted_if_all_names_differ(document, escaped):
    body = _written(document, lambda text: text.replace(":", r"\u003a") if escaped else text).encode()
    recipe = json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode()
    signature = expected(SECRET.encode(), "1", recipe)
    if _names_twice(document):
        with pytest.raises(SignatureMismatchError):
            check(body, signature, forms=("canonical",))
    else:
        check(body, signature, forms=("canonical",))


# check_timestamp


@pytest.mark.parametrize("offset", [-300, -299.5, 0, 0.5, 300])
def test_within_the_tolerance_in_both_directions(offset):
    check_timestamp(b"1640995200", tolerance=300, now=1_640_995_200 + offset)


@pytest.mark.parametrize("offset", [-1e9, -301, -300.001, 300.001, 301, 1e9])
def test_beyond_the_tolerance_in_either_direction(offset):
    with pytest.raises(TimestampOutOfToleranceError):
        check_timestamp(b"1640995200", tolerance=300, now=1_640_995_200 + offset)


@pytest.mark.parametrize(
    "timestamp",
    [
        b"",
        b" ",
        b"+1640995200",
        b"-1640995200",
        b"1_640_995_200",
        b" 1640995200",
        b"1640995200 ",
        b"1640995200\n",
        b"1640995200.0",
        b"1.6e9",
        b"0x61CF9980",
        b"1" * 13,
        b"1640995200,1640995200",
        b"\xd9\xa1\xd9\xa6",
        "\uff11\uff16\uff14".encode(),
        b"\xb2",
        b"nan",
    ],
)
def test_a_timestamp_must_be_one_to_twelve_ascii_digits(timestamp):
    with pytest.raises(InvalidTimestampError):
        check_timestamp(timestamp, tolerance=1e15, now=1_640_995_200)


@pytest.mark.parametrize("timestamp", [b"0", b"000000000007", b"999999999999"])
def test_twelve_digits_and_leading_zeros_are_accepted(timestamp):
    check_timestamp(timestamp, tolerance=0, now=int(timestamp))
