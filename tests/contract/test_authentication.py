"""Requests that are answered 401: all that are not authentic, always with the same text."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from envoyou_core import Tenant
from envoyou_core.reception.signature import SigningKey
from envoyou_core.testing import Delivery, sample_event
from tests.contract.endpoint import NOW, SECRET, Endpoint, signed, signed_at
from tests.contract.wire import HeaderChanges, HeaderValue

SIGNATURE = "X-EnvoyOU-Signature"
TIMESTAMP = "X-EnvoyOU-Timestamp"

GENUINE = signed(sample_event(id="evt_not_to_be_stored"))
RIGHT = GENUINE.headers[SIGNATURE]
DIGEST = RIGHT.removeprefix("v1,")

WRONG_SIGNATURES: dict[str, HeaderValue] = {
    "last digit wrong": RIGHT[:-1] + ("0" if RIGHT[-1] != "0" else "1"),
    "no scheme": DIGEST,
    "no digest": "v1,",
    "other scheme": "v2," + DIGEST,
    "scheme in upper case": "V1," + DIGEST,
    "digest in upper case": "v1," + DIGEST.upper(),
    "too short": RIGHT[:-1],
    "too long": RIGHT + "0",
    "space inside": "v1, " + DIGEST,
    "not hexadecimal": "v1," + "z" * 64,
    "base64": "v1,bm90IHdoYXQgaXMgYXNrZWQgZm9y",
    "several in one": f"v1,{'0' * 64} {RIGHT}",
    "digits of another script": "v1," + "\uff11" * 64,
}


@pytest.mark.policy
@pytest.mark.parametrize("signature", WRONG_SIGNATURES.values(), ids=list(WRONG_SIGNATURES))
def test_invalid_signatures(endpoint: Endpoint, signature: HeaderValue) -> None:
    endpoint.refuses(401, "unauthorized", GENUINE, headers={SIGNATURE: signature})


ODD_SIGNATURE_HEADERS: dict[str, HeaderValue | list[HeaderValue] | None] = {
    "missing": None,
    "empty": "",
    "wrong": "v1," + "0" * 64,
    "sent twice": [RIGHT, RIGHT],
    "a wrong one before": ["v1," + "0" * 64, RIGHT],
    "not ASCII": "v1,é" + DIGEST[1:],
    "not UTF-8": b"v1,\xff" + DIGEST[1:].encode(),
    "very long": "v1," + "0" * 5000,
}


@pytest.mark.parametrize("signature", ODD_SIGNATURE_HEADERS.values(), ids=list(ODD_SIGNATURE_HEADERS))
def test_signature_headers_that_a_server_may_change(
    endpoint: Endpoint, signature: HeaderValue | list[HeaderValue] | None
) -> None:
    endpoint.refuses(401, "unauthorized", GENUINE, headers={SIGNATURE: signature})


TIMESTAMPS_OUT_OF_TOLERANCE = {
    "stale": str(NOW - 301),
    "of the future": str(NOW + 301),
    "of the epoch": "0",
    "of a far future": "999999999999",
    "in milliseconds": f"{NOW}00",
}
MALFORMED_TIMESTAMPS = {
    "letters": "yesterday",
    "hexadecimal": hex(NOW),
    "underscores": "1_767_225_600",
    "plus sign": f"+{NOW}",
    "minus sign": f"-{NOW}",
    "space inside": "1767 225600",
    "fraction": f"{NOW}.0",
    "exponent": "17672256e2",
    "Arabic digits": str(NOW).translate({ord("0") + digit: 0x660 + digit for digit in range(10)}),
    "fullwidth digits": str(NOW).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
    "superscript": str(NOW)[:-1] + "²",
    "13 digits": str(NOW).rjust(13, "0"),
    "very many digits": "1" * 5000,
    "RFC 3339": "2026-01-01T00:00:00Z",
}


@pytest.mark.policy
@pytest.mark.parametrize(
    "timestamp",
    [*TIMESTAMPS_OUT_OF_TOLERANCE.values(), *MALFORMED_TIMESTAMPS.values()],
    ids=[*TIMESTAMPS_OUT_OF_TOLERANCE, *MALFORMED_TIMESTAMPS],
)
def test_signed_but_unacceptable_timestamps(endpoint: Endpoint, timestamp: str) -> None:
    endpoint.refuses(401, "unauthorized", signed_at(timestamp))


@pytest.mark.policy
def test_a_timestamp_of_12_digits_is_accepted(endpoint: Endpoint) -> None:
    endpoint.accepts(signed_at(str(NOW).rjust(12, "0")))


@pytest.mark.parametrize("timestamp", [None, "", str(NOW + 1), [str(NOW), str(NOW)]])
def test_timestamps_that_were_not_signed(endpoint: Endpoint, timestamp: HeaderValue | list[HeaderValue] | None) -> None:
    endpoint.refuses(401, "unauthorized", GENUINE, headers={TIMESTAMP: timestamp})


TAMPERED_BODIES = {
    "a member changed": GENUINE.body.replace(b"john.doe", b"jane.doe"),
    "a byte more": GENUINE.body + b"\n",
    "a byte less": GENUINE.body[:-1],
    "empty": b"",
    "another": b"{}",
    "a byte order mark": b"\xef\xbb\xbf" + GENUINE.body,
    "not UTF-8": GENUINE.body.replace(b"john", b"j\xffhn"),
    "spaces taken out": json.dumps(json.loads(GENUINE.body), separators=(",", ":")).encode(),
    "100,000 levels": b"[" * 100_000,
    "a number of 10,000 digits": b"1" * 10_000,
}


@pytest.mark.policy
@pytest.mark.parametrize("body", TAMPERED_BODIES.values(), ids=list(TAMPERED_BODIES))
def test_tampered_bodies_parseable_or_not(endpoint: Endpoint, body: bytes) -> None:
    endpoint.refuses(401, "unauthorized", Delivery(GENUINE.headers, body))


def canonically_signed(body: bytes, *, as_if: bytes) -> Delivery:
    """Create a delivery of `body`, signed in the canonical form that a careless parser would compute."""
    mac = hmac.new(SECRET.encode(), b"%d." % NOW + as_if, hashlib.sha256).hexdigest()
    return Delivery(signed(body).headers | {SIGNATURE: f"v1,{mac}"}, body)


@pytest.mark.policy
def test_the_canonical_signature_of_these_tests_is_the_real_one(endpoint: Endpoint) -> None:
    event = b'{"type":"user.created","id":"evt_canonical","created":1,"data":{"object":{}}}'
    canonical = b'{"created":1,"data":{"object":{}},"id":"evt_canonical","type":"user.created"}'
    endpoint.accepts(canonically_signed(event, as_if=canonical))


AMBIGUOUS_BODIES = {
    "a member twice": (
        b'{"id":"evt_1","created":1,"data":{"object":{}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{}},"id":"evt_2","type":"user.created"}',
    ),
    "a member twice, once escaped": (
        b'{"id":"evt_1","created":1,"data":{"object":{}},"\\u0069d":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{}},"id":"evt_2","type":"user.created"}',
    ),
    "a member twice, hidden by an escaped colon": (
        b'{"id":"evt_1","created":1,"data":{"object":{"a":"\\u003a"}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{"a":":"}},"id":"evt_2","type":"user.created"}',
    ),
    "a member twice, deep inside": (
        b'{"created":1,"data":{"object":{"a":[{"role":"user","role":"admin"}]}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{"a":[{"role":"admin"}]}},"id":"evt_2","type":"user.created"}',
    ),
    "NaN": (
        b'{"created":1,"data":{"object":{"a": NaN}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{"a":NaN}},"id":"evt_2","type":"user.created"}',
    ),
    "Infinity": (
        b'{"created":1,"data":{"object":{"a": Infinity}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{"a":Infinity}},"id":"evt_2","type":"user.created"}',
    ),
    "a number beyond every float": (
        b'{"created":1,"data":{"object":{"a": -1e999}},"id":"evt_2","type":"user.created"}',
        b'{"created":1,"data":{"object":{"a":-Infinity}},"id":"evt_2","type":"user.created"}',
    ),
}


@pytest.mark.policy
@pytest.mark.parametrize(("body", "canonical"), AMBIGUOUS_BODIES.values(), ids=list(AMBIGUOUS_BODIES))
def test_a_canonical_signature_does_not_cover_dropped_members(
    endpoint: Endpoint, body: bytes, canonical: bytes
) -> None:
    endpoint.refuses(401, "unauthorized", canonically_signed(body, as_if=canonical))


SECRETS: dict[str, Tenant | str | list[str]] = {
    "wh_acme": "whsec_acme",
    "wh_globex": Tenant("globex", ["whsec_globex_new", "whsec_globex"]),
    "wh_retired": "",
    "wh_none": [],
}


def find_secret(webhook_id: str) -> Tenant | str | list[str] | None:
    if webhook_id == "wh_broken":
        raise LookupError("cannot reach the vault at vault://root:hunter2@10.0.0.1")
    return SECRETS.get(webhook_id)


by_webhook_id = pytest.mark.settings(secret=find_secret)


def delivered_to(webhook_id: str, **options: str) -> Delivery:
    return signed(sample_event(id=f"evt_of_{webhook_id}", webhook_id=webhook_id), **options)


@by_webhook_id
def test_each_webhook_id_has_its_own_secret(endpoint: Endpoint) -> None:
    shared_id = sample_event(webhook_id=None)
    acme = signed(shared_id, secret="whsec_acme", webhook_id="wh_acme")
    globex = signed(shared_id, secret="whsec_globex", webhook_id="wh_globex")
    of_acme = f"fingerprint:{SigningKey('whsec_acme').fingerprint()}"
    assert endpoint.accepts(acme, tenant=of_acme).tenant == of_acme
    assert endpoint.accepts(globex, tenant="globex").tenant == "globex"
    endpoint.accepts(acme, tenant=of_acme, duplicate=True)
    again = signed(shared_id, secret="whsec_globex_new", webhook_id="wh_globex")
    endpoint.accepts(again, tenant="globex", duplicate=True)


@pytest.mark.policy
@by_webhook_id
def test_one_tenant_cannot_sign_for_another(endpoint: Endpoint) -> None:
    endpoint.refuses(401, "unauthorized", delivered_to("wh_acme", secret="whsec_globex"))
    stolen = delivered_to("wh_acme", secret="whsec_acme")
    endpoint.refuses(401, "unauthorized", stolen, headers={"X-EnvoyOU-Webhook-ID": "wh_globex"})


@pytest.mark.policy
@by_webhook_id
@pytest.mark.parametrize("webhook_id", ["wh_unknown", "wh_retired", "wh_none"])
def test_a_webhook_id_without_a_secret(endpoint: Endpoint, webhook_id: str) -> None:
    endpoint.refuses(401, "unauthorized", delivered_to(webhook_id, secret=SECRET))


@by_webhook_id
@pytest.mark.parametrize("header", [None, "", b"wh_\xff", "w" * 256, ["wh_acme", "wh_acme"]])
def test_secrets_by_webhook_id_require_a_usable_webhook_id(endpoint: Endpoint, header: HeaderValue | None) -> None:
    delivery = delivered_to("wh_acme", secret="whsec_acme")
    endpoint.refuses(401, "unauthorized", delivery, headers={"X-EnvoyOU-Webhook-ID": header})


async def find_secret_later(webhook_id: str) -> Tenant | str | list[str] | None:
    return find_secret(webhook_id.lower())


@pytest.mark.settings(secret=find_secret_later)
def test_an_async_secret_callable_and_a_replay_under_another_webhook_id(endpoint: Endpoint) -> None:
    event = sample_event(webhook_id=None)
    captured = signed(event, secret="whsec_acme", webhook_id="wh_acme")
    tenant = f"fingerprint:{SigningKey('whsec_acme').fingerprint()}"
    endpoint.accepts(captured, tenant=tenant)
    again = signed(event, secret="whsec_acme", webhook_id="WH_ACME")
    endpoint.accepts(again, tenant=tenant, duplicate=True)
    endpoint.refuses(401, "unauthorized", signed(event, secret="whsec_foreign", webhook_id="wh_acme"))
    endpoint.refuses(503, "unavailable", signed(event, secret="whsec_acme", webhook_id="wh_broken"))


@by_webhook_id
def test_a_secret_callable_that_fails(endpoint: Endpoint) -> None:
    answer = endpoint.refuses(503, "unavailable", delivered_to("wh_broken", secret=SECRET))
    assert answer.headers["Retry-After"] == "1"
    assert "vault" not in str(answer)


REFUSALS: dict[str, tuple[Delivery, HeaderChanges]] = {
    "no signature": (GENUINE, {SIGNATURE: None}),
    "wrong signature": (GENUINE, {SIGNATURE: "v1," + "0" * 64}),
    "wrong secret": (signed(secret="whsec_foreign"), {}),
    "no timestamp": (GENUINE, {TIMESTAMP: None}),
    "malformed timestamp": (signed_at("yesterday"), {}),
    "stale timestamp": (signed_at(str(NOW - 301)), {}),
    "tampered body": (Delivery(GENUINE.headers, b"{"), {}),
    "ambiguous body": (canonically_signed(*AMBIGUOUS_BODIES["NaN"][:1], as_if=AMBIGUOUS_BODIES["NaN"][1]), {}),
    "nonce of another event": (signed(nonce="bound-already"), {}),
}


def test_every_401_has_the_same_bytes(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(nonce="bound-already"))
    answers = {
        reason: endpoint.refuses(401, "unauthorized", delivery, headers=headers)
        for reason, (delivery, headers) in REFUSALS.items()
    }
    told = {
        (answer.status, answer.body, tuple(pair for pair in answer.headers.items() if pair[0].lower() != "date"))
        for answer in answers.values()
    }
    assert len(told) == 1
    assert answers["no signature"].document["message"] == "The request could not be authenticated."


@by_webhook_id
def test_every_401_for_a_webhook_id_has_the_same_bytes(endpoint: Endpoint) -> None:
    wrong = endpoint.refuses(401, "unauthorized", delivered_to("wh_acme", secret=SECRET))
    unknown = endpoint.refuses(401, "unauthorized", delivered_to("wh_unknown", secret=SECRET))
    missing = endpoint.refuses(
        401, "unauthorized", delivered_to("wh_acme", secret="whsec_acme"), headers={"X-EnvoyOU-Webhook-ID": None}
    )
    assert wrong.body == unknown.body == missing.body
