"""Requests that are answered 503: the event cannot be stored now, and the sender delivers it again.

That the answer and the spool work is shown on every server, with a locked database. Which other faults of a store lead
to them is decided by the core, so these tests run on one entry of each kind.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from envoyou_core import Handlers
from envoyou_core.inbox import InboxRecord
from envoyou_core.testing import Delivery, sample_event
from tests.contract.clients import EACH_PROCESS_FINDS_OUT
from tests.contract.conftest import Serve
from tests.contract.endpoint import Endpoint, assert_received, assert_refused, signed
from tests.contract.faults import FAULTS
from tests.contract.wire import Answer
from tests.servers.processes import wait_for

PATIENCE = 20.0


def refused_as_unavailable(endpoint: Endpoint, delivery: Delivery) -> Answer:
    answer = endpoint.refuses(503, "unavailable", delivery)
    assert answer.headers["Retry-After"] == "1"
    return answer


def test_a_database_locked_by_another_writer(endpoint: Endpoint) -> None:
    delivery = signed(sample_event(object={"email": "confidential@example.com"}))
    with endpoint.locked():
        answer = refused_as_unavailable(endpoint, delivery)
    assert answer.document["message"] == "The event could not be stored; please deliver it again."
    assert "answered 503" in endpoint.log
    assert "confidential@example.com" not in endpoint.log
    endpoint.accepts(delivery)


@pytest.mark.policy
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_inbox(endpoint: Endpoint, fault: str) -> None:
    delivery = signed(nonce=f"nonce-{fault}")
    with endpoint.failing(fault, "inbox"):
        answer = refused_as_unavailable(endpoint, delivery)
    assert "secret-place" not in str(answer)
    # The nonce is not bound, because there was no commit.
    endpoint.accepts(signed(nonce=f"nonce-{fault}"))
    endpoint.accepts(delivery, headers={"X-EnvoyOU-Nonce": None})


@pytest.fixture
def with_spool(serve: Serve, tmp_path: Path) -> Endpoint:
    """An endpoint with a spool, on the system's clock, without a worker."""
    handlers = Handlers()
    handlers.on("user.*")(print)
    endpoint = serve(handlers, handoff="manual", spool=f"sqlite:///{tmp_path / 'spool.db'}")
    # Creating its tables takes time, which must not count towards the spool's part of the budget.
    endpoint.served.webhooks.spool.open()
    return endpoint


def accepts_into_the_spool(endpoint: Endpoint, delivery: Delivery) -> InboxRecord:
    before = endpoint.stored
    assert_received(endpoint.send(delivery))
    assert endpoint.stored == before
    spool = endpoint.served.webhooks.spool
    assert spool is not None
    record = spool.get(json.loads(delivery.body)["id"])
    assert record is not None
    assert record.event.body == delivery.body
    return record


def until_moved(endpoint: Endpoint, delivery: Delivery) -> InboxRecord:
    """Wait until the event is in the inbox only: until then, a redelivery may be answered as new."""
    spool = endpoint.served.webhooks.spool
    assert spool is not None
    deadline = time.monotonic() + PATIENCE
    while (record := endpoint.record(delivery)) is None or spool.stats().total:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return record


def is_moved(endpoint: Endpoint, delivery: Delivery, spooled: InboxRecord) -> None:
    """The event is moved to the inbox by itself, as it was accepted."""
    record = until_moved(endpoint, delivery)
    assert record.event.body == delivery.body
    assert record.webhook_id == spooled.webhook_id
    assert record.received_at == spooled.received_at
    is_a_duplicate(endpoint, delivery)


@pytest.mark.policy
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_inbox_with_a_spool(with_spool: Endpoint, fault: str) -> None:
    delivery = sent_now(nonce="nonce-of-the-first")
    with with_spool.failing(fault, "inbox"):
        spooled = accepts_into_the_spool(with_spool, delivery)
        assert_received(with_spool.send(delivery), duplicate=True)
        assert_refused(with_spool.send(sent_now(nonce="nonce-of-the-first")), 401, "unauthorized")
    is_moved(with_spool, delivery, spooled)


def test_a_database_locked_by_another_writer_with_a_spool(with_spool: Endpoint) -> None:
    delivery = sent_now()
    with with_spool.locked():
        spooled = accepts_into_the_spool(with_spool, delivery)
    is_moved(with_spool, delivery, spooled)


@pytest.mark.policy
def test_a_failing_inbox_and_a_failing_spool(with_spool: Endpoint) -> None:
    delivery = sent_now()
    with with_spool.failing("raises_at_once", "inbox", "spool"):
        answer = refused_as_unavailable(with_spool, delivery)
    assert "secret-place" not in str(answer)
    assert_received(with_spool.send(delivery))
    until_moved(with_spool, delivery)
    is_a_duplicate(with_spool, delivery)


def is_a_duplicate(endpoint: Endpoint, delivery: Delivery) -> None:
    """A redelivery is recognised. A process that has not yet noticed that the inbox is up may need to ask it."""
    before = endpoint.stored
    if EACH_PROCESS_FINDS_OUT in endpoint.served.by_itself:
        wait_for(lambda: "duplicate" in endpoint.send(delivery).document)
    else:
        assert_received(endpoint.send(delivery), duplicate=True)
    assert endpoint.stored == before


def sent_now(**options: Any) -> Delivery:
    return signed(timestamp=int(time.time()), **options)


@pytest.mark.policy
def test_refusals_do_not_need_the_inbox(endpoint: Endpoint) -> None:
    with endpoint.failing("raises_at_once", "inbox"):
        endpoint.refuses(401, "unauthorized", signed(secret="whsec_foreign"))
        endpoint.refuses(400, "invalid_payload", signed(b"[]"))


class BrokenNonces:
    """A nonce store that cannot be reached."""

    blocking = True

    def lookup(self, key: str) -> str | None:
        raise ConnectionError

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        raise ConnectionError


@pytest.mark.policy
@pytest.mark.settings(nonces=BrokenNonces())
def test_a_failing_nonce_store_does_not_refuse_events(endpoint: Endpoint) -> None:
    endpoint.accepts(signed(nonce="unknown-to-the-store"))
