"""CPU time to verify and parse one delivery, beside other libraries and the least that any implementation must do.

Each library verifies the same body, signed in its own scheme.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from benchmarks.guide_sample import verify_signature
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core import verify
from envoyou_core.testing import sample_event, sign_delivery

__all__ = ["comparisons"]

SECRET = "whsec_YmVuY2htYXJrLXNlY3JldC0wMTIzNDU2Nzg5"

FLOOR_TARGETS = {300: 1.6, 2048: 1.3, 65_536: 1.1}
"""By the size of the body in bytes: the maximum cost, in costs of the floor."""

PEER_TARGETS = {"the guide's sample": 3, "slack_sdk, json.loads": 1.6, "standardwebhooks": 2.5, "stripe": 15}
"""The minimum cost, in costs of ours. They apply to the smallest body, the most usual one."""

BYTES = 20_000_000
"""How much is hashed in a round at most, because some candidates parse slowly."""

BATCHES = 5
"""Parts of a round. The fastest one counts: other work on the machine only adds to the time."""

MEMBER = len(', "key_00001": ""') + 40
"""The size of a member of the object, in bytes."""

Candidate = Callable[[], object]


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Envelope(msgspec.Struct):
    id: str
    type: str
    created: int
    data: _Data
    webhook_id: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode = msgspec.json.Decoder().decode


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    found = []
    for size, limit in FLOOR_TARGETS.items():
        candidates = candidates_for(body_of(size))
        peers = PEER_TARGETS if size == min(FLOOR_TARGETS) else dict.fromkeys(PEER_TARGETS)
        found.append(
            Comparison(
                f"CPU microseconds to verify and parse {size} bytes",
                {name: partial(measure, run, candidate, size) for name, candidate in candidates.items()},
                [
                    Ratio("envoyou_core", "floor, payload left raw", at_most=limit),
                    Ratio("envoyou_core", "floor, fully decoded", at_most=limit),
                    *(Ratio(peer, "envoyou_core", target=target) for peer, target in peers.items()),
                    Ratio("slack_sdk, no parsing", "envoyou_core"),
                ],
            )
        )
    return found


def body_of(size: int) -> bytes:
    """Return an event of exactly `size` bytes, whose object has members of some forty characters."""
    metadata = {"padding": ""}

    def made() -> bytes:
        return sample_event(id="evt_1234567890", object={"id": "user_123", "metadata": metadata}).body

    while len(body := made()) + MEMBER <= size:
        metadata[f"key_{len(metadata):05}"] = "x" * 40
    metadata["padding"] = "x" * (size - len(body))
    return made()


def candidates_for(body: bytes) -> dict[str, Candidate]:
    """Return what verifies `body`, by name. Each is checked to refuse another body."""
    now = int(time.time())
    factories: dict[str, Callable[[bytes, int], Callable[[bytes], object]]] = {
        "floor, payload left raw": partial(floor, _decode_envelope),
        "floor, fully decoded": partial(floor, _decode),
        "envoyou_core": envoyou,
        "the guide's sample": guide_sample,
        "stripe": stripe,
        "svix": svix,
        "standardwebhooks": standardwebhooks,
        "slack_sdk, no parsing": slack,
        "slack_sdk, json.loads": slack_parsed,
        "gidgethub": gidgethub,
    }
    found: dict[str, Candidate] = {}
    for name, factory in factories.items():
        check = factory(body, now)
        check(body)
        try:
            check(body.replace(b"user_123", b"user_124"))
        except Exception:  # each library has its own errors
            found[name] = partial(check, body)
        else:
            raise MeasurementError(f"{name} accepts a body that was not signed")
    return found


def measure(run: Run, candidate: Candidate, size: int) -> Round:
    """Measure the CPU time of one call, in microseconds."""
    calls = max(1, min(run.events * 5, BYTES // size) // BATCHES)
    costs = []
    for _ in range(BATCHES):
        started = time.process_time()
        for _ in range(calls):
            candidate()
        costs.append((time.process_time() - started) / calls * 1e6)
    return Round(done=calls * BATCHES, rate=min(costs))


def envoyou_headers(body: bytes, now: int) -> dict[str, str]:
    return sign_delivery(body, secret=SECRET, timestamp=now).headers


def floor(decode: Callable[[bytes], object], body: bytes, now: int) -> Callable[[bytes], object]:
    """The MAC from a prepared one, the comparison, and msgspec's decoder: no checks of headers and time."""
    headers = envoyou_headers(body, now)
    prepared = hmac.new(SECRET.encode(), digestmod="sha256")

    def check(body: bytes) -> object:
        mac = prepared.copy()
        mac.update(headers["X-EnvoyOU-Timestamp"].encode() + b".")
        mac.update(body)
        _require(hmac.compare_digest("v1," + mac.hexdigest(), headers["X-EnvoyOU-Signature"]))
        return decode(body)

    return check


def envoyou(body: bytes, now: int) -> Callable[[bytes], object]:
    headers = envoyou_headers(body, now)
    return lambda body: verify(headers, body, secret=SECRET)


def guide_sample(body: bytes, now: int) -> Callable[[bytes], object]:
    headers = sign_delivery(body, secret=SECRET, timestamp=now, signed_content="canonical").headers

    def check(body: bytes) -> object:
        payload = json.loads(body)
        _require(
            verify_signature(SECRET.encode(), payload, headers["X-EnvoyOU-Signature"], headers["X-EnvoyOU-Timestamp"])
        )
        return payload

    return check


def stripe(body: bytes, now: int) -> Callable[[bytes], object]:
    from stripe import Webhook, WebhookSignature

    header = WebhookSignature.generate_signature_header(body.decode(), SECRET, now)
    return lambda body: Webhook.construct_event(body, header, SECRET)


def svix(body: bytes, now: int) -> Callable[[bytes], object]:
    from svix.webhooks import Webhook

    webhook = Webhook(SECRET)
    headers = _standard_headers(webhook, body, now)

    def check(body: bytes) -> object:
        webhook.verify(body, headers)
        return json.loads(body)

    return check


def standardwebhooks(body: bytes, now: int) -> Callable[[bytes], object]:
    from standardwebhooks import Webhook

    webhook = Webhook(SECRET)
    headers = _standard_headers(webhook, body, now)
    return lambda body: webhook.verify(body, headers)


def _standard_headers(webhook: Any, body: bytes, now: int) -> dict[str, str]:
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": webhook.sign("msg_1", datetime.fromtimestamp(now, UTC), body.decode()),
    }


def slack(body: bytes, now: int) -> Callable[[bytes], object]:
    from slack_sdk.signature import SignatureVerifier

    verifier = SignatureVerifier(SECRET)
    signature = verifier.generate_signature(timestamp=str(now), body=body)
    headers = {"X-Slack-Request-Timestamp": str(now), "X-Slack-Signature": str(signature)}
    return lambda body: _require(verifier.is_valid_request(body, headers))


def slack_parsed(body: bytes, now: int) -> Callable[[bytes], object]:
    check = slack(body, now)

    def check_and_parse(body: bytes) -> object:
        check(body)
        return json.loads(body)

    return check_and_parse


def gidgethub(body: bytes, now: int) -> Callable[[bytes], object]:
    from gidgethub.sansio import Event

    headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": "1",
        "x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
    return lambda body: Event.from_http(headers, body, secret=SECRET)


def _require(valid: bool) -> None:
    if not valid:
        raise ValueError("the signature does not match")
