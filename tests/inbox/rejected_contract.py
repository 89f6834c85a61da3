"""What every inbox does with rejected deliveries: genuine ones that were answered 400."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from envoyou_core.inbox import Added, NewEvent, NewRejection, Status, rejected
from envoyou_core.testing import sample_event
from tests.inbox.acts import CREATED, PATIENCE, add, status_of

HEADERS = {"signature": b"v1,00", "timestamp": b"1640995200", "webhook_id": b"wh_1", "event_type": b"\x00\xff, x"}


def rejection(clock, body=b'{"id": 1}', **values):
    default = NewRejection(body, HEADERS, "invalid_payload", "the body is not an event", clock.moment())
    return replace(default, **values)


def keep(inbox, clock, body=b'{"id": 1}', **values):
    return inbox.keep_rejected(rejection(clock, body, **values)).result(PATIENCE)


def bodies(inbox):
    return [delivery.body for delivery in inbox.list_rejected()]


class RejectedContract:
    """For every inbox."""

    def test_a_rejected_delivery_comes_back_byte_for_byte(self, inbox, make_inbox, clock):
        body = b'\xff{"id": "evt_1"}\x00\r\n'
        assert inbox.list_rejected() == []
        assert keep(inbox, clock, body, tenant="ü" * 255, error="é\n") == 0
        (kept,) = inbox.list_rejected()
        assert (kept.body, kept.size, dict(kept.headers)) == (body, len(body), HEADERS)
        assert (kept.reason, kept.error, kept.tenant) == ("invalid_payload", "é\n", "ü" * 255)
        assert (kept.received_at, kept.webhook_id, kept.event_type) == (clock.moment(), "wh_1", "\x00�, x")
        assert inbox.get_rejected(kept.key) == kept
        assert inbox.get_rejected(kept.key + 1) is None
        other = make_inbox(clock, name="billing")
        assert (other.list_rejected(), other.get_rejected(kept.key)) == ([], None)

    def test_rejected_deliveries_are_counted_apart_from_events_and_listed_newest_first(self, inbox, clock):
        add(inbox)
        for body in (b"1", b"2", b"3"):
            keep(inbox, clock, body)
        assert (inbox.stats().rejected, inbox.stats().total) == (3, 1)
        assert bodies(inbox) == [b"3", b"2", b"1"]
        assert [kept.body for kept in inbox.list_rejected(limit=2)] == [b"3", b"2"]

    def test_the_same_body_is_kept_once_for_each_tenant(self, inbox, make_inbox, clock):
        keep(inbox, clock)
        first = inbox.list_rejected()
        other = make_inbox(clock)
        clock.advance(10)
        at_once = [place.keep_rejected(rejection(clock, error="again")) for place in (inbox, other)]
        assert [future.result(PATIENCE) for future in at_once] == [0, 0]
        assert inbox.list_rejected() == first
        keep(inbox, clock, tenant="acme")
        assert [kept.tenant for kept in inbox.list_rejected()] == ["acme", ""]

    def test_if_there_are_too_many_the_oldest_are_deleted(self, inbox, make_inbox, clock, monkeypatch):
        monkeypatch.setattr(rejected, "MAX_REJECTED", 2)
        monkeypatch.setattr(rejected, "MAX_REJECTED_SIZE", 100)
        other = make_inbox(clock, name="billing")
        keep(other, clock)
        assert [keep(inbox, clock, body) for body in (b"1", b"2", b"3")] == [0, 0, 1]
        assert bodies(inbox) == [b"3", b"2"]
        assert keep(inbox, clock, b"x" * 99) == 1
        assert keep(inbox, clock, b"y" * 98) == 2
        assert bodies(inbox) == [b"y" * 98]
        with pytest.raises(ValueError, match="its body has 101 bytes"):
            keep(inbox, clock, b"z" * 101)
        assert bodies(inbox) == [b"y" * 98]
        assert len(other.list_rejected()) == 1

    def test_an_accepted_one_becomes_an_event_and_is_deleted(self, inbox, clock):
        received_at = clock.moment()
        keep(inbox, clock, b"1")
        keep(inbox, clock, b"2")
        later, earlier = inbox.list_rejected()
        clock.advance(3600)
        event = sample_event(id="evt_1", created=CREATED)
        new = NewEvent(event, "acme", "wh_1", received_at)
        assert inbox.accept_rejected(earlier.key, new) is Added.NEW
        assert bodies(inbox) == [b"2"]
        record = inbox.get("evt_1")
        assert (record.event, record.status, record.tenant) == (event, Status.RECEIVED, "acme")
        assert (record.received_at, record.next_attempt_at) == (received_at, clock.moment())
        # A second process that retries it, and another delivery of the same event.
        for key in (earlier.key, later.key):
            assert inbox.accept_rejected(key, new) is Added.DUPLICATE
        assert bodies(inbox) == []
        assert status_of(inbox, "evt_1") is Status.RECEIVED

    def test_old_ones_are_pruned(self, inbox, clock):
        keep(inbox, clock, b"old")
        clock.advance(60)
        keep(inbox, clock, b"new")
        clock.advance(1)
        assert inbox.prune_rejected(timedelta(seconds=61)) == 0
        assert inbox.prune_rejected(timedelta(seconds=60), dry_run=True) == 1
        assert inbox.prune_rejected(timedelta(seconds=60)) == 1
        assert bodies(inbox) == [b"new"]

    def test_erasing_an_object_deletes_those_about_it(self, inbox, clock):
        event = sample_event("user.created", id="evt_1", object={"id": "user_1"})
        shapeless = b'{"data": {"object": {"user_id": "user_1"}}, "id": 5}'
        for tenant in ("", "acme"):
            keep(inbox, clock, event.body, tenant=tenant)
        keep(inbox, clock, shapeless)
        others = [b'{"data": {"object": {"id": "user_2"}}}', b'{"data": [{"id": "user_1"}]}', b"user_1"]
        for body in others:
            keep(inbox, clock, body)
        assert inbox.erase("user_1", tenant="") == 0
        assert bodies(inbox) == [*reversed(others), event.body]
        inbox.erase("user_1")
        assert bodies(inbox) == [*reversed(others)]
