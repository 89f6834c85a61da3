"""What is answered 503: an event that cannot be stored now, and which the sender will deliver again."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from envoyou_core import reception
from envoyou_core.inbox import Added
from envoyou_core.testing import Delivery, sample_event
from tests.contract.endpoint import Endpoint, signed
from tests.contract.wire import Answer


def refused_as_unavailable(endpoint: Endpoint, delivery: Delivery) -> Answer:
    answer = endpoint.refuses(503, "unavailable", delivery)
    assert answer.headers["Retry-After"] == "1"
    return answer


def test_a_database_that_another_writer_holds(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    delivery = signed(sample_event(object={"email": "confidential@example.com"}))
    with endpoint.locked():
        answer = refused_as_unavailable(endpoint, delivery)
    assert answer.document["message"] == "The event could not be stored; please deliver it again."
    assert "answered 503" in caplog.text
    assert "confidential@example.com" not in caplog.text
    endpoint.accepts(delivery)


class StorageError(Exception):
    pass


def raise_at_once(_: object) -> Future[Added]:
    raise StorageError("disk full at /var/lib/secret-place")


def fail_later(_: object) -> Future[Added]:
    future: Future[Added] = Future()
    future.set_exception(StorageError("disk full at /var/lib/secret-place"))
    return future


def hang(_: object) -> Future[Added]:
    return Future()


@pytest.mark.parametrize("add", [raise_at_once, fail_later, hang])
def test_an_inbox_that_fails(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, add: Any) -> None:
    delivery = signed(nonce=f"nonce-{add.__name__}")
    monkeypatch.setattr(reception, "ANSWER_BUDGET", 0.2)
    with monkeypatch.context() as broken:
        broken.setattr(endpoint.served.webhooks.inbox, "add", add)
        answer = refused_as_unavailable(endpoint, delivery)
    assert "secret-place" not in str(answer)
    # The nonce is free: it is bound after the commit, and there was none.
    endpoint.accepts(signed(nonce=f"nonce-{add.__name__}"))
    endpoint.accepts(delivery, headers={"X-EnvoyOU-Nonce": None})


def test_what_is_refused_needs_no_inbox(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint.served.webhooks.inbox, "add", raise_at_once)
    endpoint.refuses(401, "unauthorized", signed(secret="whsec_foreign"))
    endpoint.refuses(400, "invalid_payload", signed(b"[]"))


class BrokenNonces:
    """A nonce store that cannot be reached."""

    blocking = True

    def lookup(self, key: str) -> str | None:
        raise ConnectionError

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        raise ConnectionError


@pytest.mark.settings(nonces=BrokenNonces())
def test_a_nonce_store_that_fails_refuses_nothing(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(nonce="unknown-to-the-store"))
