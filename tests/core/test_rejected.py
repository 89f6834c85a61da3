"""Genuine deliveries that are answered 400: they are kept, and retried when something else accepts them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import timedelta

import pytest
from msgspec.structs import replace

from envoyou_core import (
    HeaderMismatchError,
    InvalidPayloadError,
    MissingHeaderError,
    SignatureMismatchError,
    Status,
    WebhookRequest,
    Webhooks,
)
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import Accepted, Rejected, RejectedNotKept, RejectedPruned
from envoyou_core.reception import receiver
from envoyou_core.testing import sample_event, sign_delivery
from tests.inbox.acts import HandClock

SECRET = "whsec_test"
DAY = 86_400


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def inbox(clock):
    return MemoryInbox(clock=clock)


@pytest.fixture
def make(inbox, clock):
    """Makes the `Webhooks` of one process after the other, with the notices that each has emitted."""

    def make(**settings):
        defaults = {"secret": SECRET, "inbox": inbox, "handoff": "manual", "clock": clock}
        webhooks = Webhooks(**defaults | settings)
        webhooks.seen = []
        webhooks.subscribe(webhooks.seen.append)
        return webhooks

    return make


def request_of(body, clock, *, drop=(), secret=SECRET, **changes):
    delivery = sign_delivery(body, secret=secret, timestamp=int(clock.now))
    headers = {name: value for name, value in delivery.headers.items() if name not in drop}
    return replace(WebhookRequest.from_http("POST", headers, delivery.body), **changes)


def request_with_missing_header(clock):
    return request_of(sample_event("user.created", id="evt_1"), clock, drop={"X-EnvoyOU-Event-Type"})


GENUINE = {
    "not UTF-8": (b"\xff", {}, "invalid_payload"),
    "not JSON": (b"{", {}, "invalid_payload"),
    "a new shape": (b'{"event": {"id": "evt_1"}}', {}, "invalid_payload"),
    "out of range": (b'{"id": "", "type": "t", "created": 1, "data": {"object": {}}}', {}, "invalid_payload"),
    "another type": (sample_event().body, {"event_type": b"user.deleted"}, "header_mismatch"),
    "another endpoint": (sample_event().body, {"webhook_id": b"wh_other"}, "header_mismatch"),
    "no type": (sample_event().body, {"event_type": None}, "missing_header"),
}


@pytest.mark.parametrize("receive", [Webhooks.receive, lambda w, r: asyncio.run(w.areceive(r))], ids=["sync", "async"])
@pytest.mark.parametrize("kind", GENUINE)
def test_a_genuine_delivery_that_is_answered_400_is_kept(make, inbox, clock, kind, receive):
    body, changes, reason = GENUINE[kind]
    webhooks = make()
    request = request_of(body, clock, **changes)
    first = receive(webhooks, request)
    (kept,) = inbox.list_rejected()
    assert (kept.body, kept.reason, kept.received_at, kept.tenant) == (body, reason, clock.moment(), "")
    assert kept.headers["signature"] == request.signature
    assert kept.headers.keys() <= {"signature", "timestamp", "webhook_id", "event_type", "nonce"}
    assert reason in first.body.decode()
    # A redelivery has the same answer and is kept once.
    assert receive(webhooks, request) == first
    assert first.status == 400
    assert inbox.list_rejected() == [kept]
    assert inbox.stats().total == 0
    assert [(notice.reason, notice.kept) for notice in webhooks.seen if isinstance(notice, Rejected)] == [
        (reason, True)
    ] * 2


def test_nothing_unproven_is_kept(make, inbox, clock):
    webhooks = make(signed_content=("raw",))
    genuine = request_with_missing_header(clock)
    forged = [
        replace(genuine, body=genuine.body + b" "),
        replace(genuine, signature=b"v1," + b"0" * 64),
        replace(genuine, signature=None),
        replace(genuine, timestamp=str(int(clock.now) - 301).encode()),
        request_of(sample_event(), clock, secret="whsec_other", event_type=None),
        replace(genuine, method="PUT"),
        replace(genuine, content_type=b"text/plain"),
    ]
    assert [webhooks.receive(request).status for request in forged] == [401, 401, 401, 401, 401, 405, 415]
    clock.advance(301)
    assert webhooks.receive(genuine).status == 401
    assert inbox.list_rejected() == []
    assert {notice.kept for notice in webhooks.seen} == {False}


def test_verification_alone_keeps_nothing(make, inbox, clock):
    with pytest.raises(MissingHeaderError):
        make().verify(request_with_missing_header(clock))
    assert inbox.list_rejected() == []


@pytest.mark.parametrize("failure", ["raises", "fails", "hangs"])
def test_an_inbox_that_cannot_keep_it_does_not_change_the_answer(make, clock, monkeypatch, failure):
    class Failing(MemoryInbox):
        def keep_rejected(self, rejection):
            if failure == "raises":
                raise OSError("disk full")
            future = Future()
            if failure == "fails":
                future.set_exception(OSError("disk full"))
            return future

    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.02)
    webhooks = make(inbox=Failing(clock=clock))
    assert webhooks.receive(request_with_missing_header(clock)) == make().receive(request_with_missing_header(clock))
    not_kept, rejected = webhooks.seen
    assert (rejected.status, rejected.kept) == (400, False)
    assert isinstance(not_kept, RejectedNotKept)
    assert ("TimeoutError" if failure == "hangs" else "disk full") in not_kept.detail


def test_no_request_waits_for_an_inbox_that_is_down(make, clock, tmp_path):
    class Down(MemoryInbox):
        def add(self, entry):
            raise OSError("away")

        def keep_rejected(self, rejection):
            asked.append(rejection)
            return super().keep_rejected(rejection)

    asked = []
    webhooks = make(inbox=Down(clock=clock), spool=f"sqlite:///{tmp_path / 'spool.db'}")
    assert webhooks.receive(request_of(sample_event(), clock)).status == 200
    assert webhooks.receive(request_with_missing_header(clock)).status == 400
    assert (asked, len(webhooks.spool.list_rejected())) == ([], 1)
    webhooks.stop()
    webhooks.spool.close()


def test_deleted_ones_are_reported(make, inbox, clock, monkeypatch):
    monkeypatch.setattr("envoyou_core.inbox.rejected.MAX_REJECTED", 1)
    webhooks = make()
    for body in (b"1", b"2"):
        webhooks.receive(request_of(body, clock))
    assert [notice for notice in webhooks.seen if isinstance(notice, RejectedPruned)] == [RejectedPruned("default", 1)]


# Retries


def test_other_settings_accept_it_as_of_the_time_at_which_it_came(make, inbox, clock):
    assert make().receive(request_with_missing_header(clock)).status == 400
    (kept,) = inbox.list_rejected()
    received_at = clock.moment()
    clock.advance(20 * DAY)
    handled = []
    webhooks = make(required_headers=())
    webhooks.on("*")(lambda event, delivery: handled.append((event.id, delivery.received_at)))
    event = webhooks.retry_rejected(kept.key)
    assert (event.id, event.body) == ("evt_1", kept.body)
    assert (inbox.list_rejected(), inbox.stats().rejected) == ([], 0)
    assert [type(notice) for notice in webhooks.seen] == [Accepted]
    assert webhooks.drain() == 1
    assert handled == [("evt_1", received_at)]
    # Again, and in another process at the same time.
    assert webhooks.retry_rejected(kept.key) is None


def test_an_event_that_was_accepted_meanwhile_is_not_stored_again(make, inbox, clock):
    webhooks = make()
    webhooks.receive(request_with_missing_header(clock))
    assert webhooks.receive(request_of(sample_event("user.created", id="evt_1"), clock)).status == 200
    (kept,) = inbox.list_rejected()
    assert make(required_headers=()).retry_rejected(kept.key).id == "evt_1"
    assert (inbox.list_rejected(), inbox.stats().total) == ([], 1)


def test_one_that_is_still_rejected_stays_and_the_error_says_why(make, inbox, clock):
    webhooks = make()
    webhooks.receive(request_with_missing_header(clock))
    webhooks.receive(request_of(b"{}", clock))
    before = shapeless, headless = inbox.list_rejected()
    clock.advance(DAY)
    with pytest.raises(MissingHeaderError, match="the header X-EnvoyOU-Event-Type is missing"):
        webhooks.retry_rejected(headless.key)
    for use_signed_headers in (True, False):
        with pytest.raises(InvalidPayloadError, match="missing required field"):
            webhooks.retry_rejected(shapeless.key, use_signed_headers=use_signed_headers)
    with pytest.raises(SignatureMismatchError):
        make(secret="whsec_new", required_headers=()).retry_rejected(headless.key)
    assert tuple(inbox.list_rejected()) == tuple(before)
    # The secrets of now, among which the old one may still be.
    assert make(secret=["whsec_new", SECRET], required_headers=()).retry_rejected(headless.key).id == "evt_1"


@pytest.mark.parametrize(
    "changes", [{"event_type": b"user.deleted"}, {"webhook_id": b"wh_proxy"}, {"webhook_id": None}]
)
def test_headers_that_a_proxy_changed_can_be_replaced_by_what_was_signed(make, inbox, clock, changes):
    webhooks = make()
    event = sample_event("user.created", id="evt_1")
    assert webhooks.receive(request_of(event, clock, **changes)).status == 400
    (kept,) = inbox.list_rejected()
    with pytest.raises(InvalidPayloadError):
        webhooks.retry_rejected(kept.key)
    assert webhooks.retry_rejected(kept.key, use_signed_headers=True) == event
    record = inbox.get("evt_1")
    assert (record.status, record.webhook_id) == (Status.RECEIVED, event.webhook_id)


def test_the_endpoint_in_the_body_must_have_signed_it(make, inbox, clock):
    """The secret of one endpoint proves nothing about another."""
    webhooks = make(secret={"wh_1": "whsec_one", "wh_2": "whsec_two"})
    event = sample_event(id="evt_1", webhook_id="wh_2")
    webhooks.receive(request_of(event, clock, secret="whsec_one", webhook_id=b"wh_1"))
    (kept,) = inbox.list_rejected()
    assert kept.tenant == "wh_1"
    with pytest.raises(HeaderMismatchError):
        webhooks.retry_rejected(kept.key)
    with pytest.raises(SignatureMismatchError):
        webhooks.retry_rejected(kept.key, use_signed_headers=True)
    assert inbox.list_rejected() == [kept]


def test_retention_deletes_them_with_the_payloads(make, inbox, clock):
    webhooks = make()
    webhooks.receive(request_of(b"{}", clock))
    clock.advance(30 * DAY)
    assert webhooks.apply_retention().rejected == 0
    clock.advance(1)
    assert webhooks.apply_retention().rejected == 1
    assert inbox.list_rejected() == []
    assert inbox.prune_rejected(timedelta(0)) == 0


def test_neither_body_nor_signature_is_shown(make, inbox, clock, caplog):
    request = request_of(b'{"email": "private@example.com"}', clock)
    make().receive(request)
    (kept,) = inbox.list_rejected()
    assert repr(kept) == f"RejectedDelivery({kept.key}, 'invalid_payload', 32 bytes)"
    assert "the delivery is genuine and kept" in caplog.text
    for private in ("private@example.com", request.signature.decode()):
        assert private not in caplog.text + repr(kept)
