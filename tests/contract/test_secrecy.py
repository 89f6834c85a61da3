"""Secrets, signatures and bodies appear in no response and in no log."""

from __future__ import annotations

import pytest

from envoyou_core.testing import Delivery, sample_event
from tests.contract.endpoint import NOW, SECRET, Endpoint, signed, signed_at
from tests.contract.wire import Answer, HeaderChanges

CONFIDENTIAL = "confidential@example.com"
"""Part of every body that these tests send."""


def confidential(**members: object) -> Delivery:
    return signed(sample_event(object={"email": CONFIDENTIAL, **members}))


def as_body(template: bytes) -> Delivery:
    return signed(template % CONFIDENTIAL.encode(), event_type="user.created")


DELIVERIES: dict[str, tuple[int, Delivery, HeaderChanges]] = {
    "accepted": (200, confidential(), {}),
    "another event's signature": (401, Delivery(confidential().headers, confidential().body), {}),
    "wrong signature": (401, confidential(), {"X-EnvoyOU-Signature": "v1," + "ab" * 32}),
    "stale": (401, signed_at(str(NOW - 301), body=confidential().body), {}),
    "another type": (400, confidential(), {"X-EnvoyOU-Event-Type": "user.deleted"}),
    "no type": (400, confidential(), {"X-EnvoyOU-Event-Type": None}),
    "not JSON": (400, as_body(b'{"id": %s'), {}),
    "not UTF-8": (400, as_body(b'{"id": "%s\xff"}'), {}),
    "id an object": (400, as_body(b'{"id":{"email":"%s"},"type":"user.created","created":1,"data":{"object":{}}}'), {}),
    "id too long": (
        400,
        as_body(b'{"id":"%s' + b"x" * 256 + b'","type":"user.created","created":1,"data":{"object":{}}}'),
        {},
    ),
    "created text": (400, as_body(b'{"id":"1","type":"user.created","created":"%s","data":{"object":{}}}'), {}),
    "object text": (400, as_body(b'{"id":"1","type":"user.created","created":1,"data":{"object":"%s"}}'), {}),
    "lone surrogate": (400, as_body(b'{"id":"1","type":["%s","\\ud83d"],"created":1,"data":{"object":{}}}'), {}),
    "wrong content type": (415, confidential(), {"Content-Type": "text/plain"}),
    "too large": (413, confidential(notes="n" * 2_000_000), {}),
}


ON_EVERY_SERVER = ("accepted", "wrong signature", "not UTF-8", "too large")


@pytest.mark.policy
@pytest.mark.parametrize(("status", "delivery", "headers"), DELIVERIES.values(), ids=list(DELIVERIES))
def test_responses_and_logs_reveal_nothing(
    endpoint: Endpoint, status: int, delivery: Delivery, headers: HeaderChanges
) -> None:
    answer_and_log_reveal_nothing(endpoint, status, delivery, headers)


@pytest.mark.parametrize("case", ON_EVERY_SERVER)
def test_servers_reveal_nothing(endpoint: Endpoint, case: str) -> None:
    answer_and_log_reveal_nothing(endpoint, *DELIVERIES[case])


def answer_and_log_reveal_nothing(endpoint: Endpoint, status: int, delivery: Delivery, headers: HeaderChanges) -> None:
    answer = endpoint.send(delivery, headers=headers)
    assert answer.status == status
    # The server's process may not have loaded the endpoint before its first request.
    assert " envoyou" in endpoint.log
    assert_nothing_told(delivery, headers, answer, endpoint.log)


def assert_nothing_told(delivery: Delivery, headers: HeaderChanges, answer: Answer, log: str) -> None:
    told = log + repr(answer.headers.items()) + answer.body.decode()
    for name in ("X-EnvoyOU-Signature", "X-EnvoyOU-Nonce"):
        for source in (delivery.headers, headers):
            assert str(source.get(name, "nothing of the kind")).removeprefix("v1,") not in told
    assert SECRET not in told
    assert CONFIDENTIAL not in told
