"""What every inbox does with a new event and with a redelivery."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from envoyou_core import Event
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.testing import sample_event
from tests.inbox.acts import (
    DONE,
    LEASE,
    MIXED,
    PATIENCE,
    HandClock,
    add,
    add_settled,
    claim_one,
    entry,
    settle,
    status_of,
)


class InboxFixtures:
    """The fixtures of every inbox contract. A subclass gives `make_inbox`; see `contract.py`."""

    @pytest.fixture
    def clock(self):
        return HandClock()

    @pytest.fixture
    def make_inbox(self):
        raise NotImplementedError("give the fixture make_inbox")

    @pytest.fixture
    def inbox(self, make_inbox, clock):
        inbox = make_inbox(clock)
        inbox.open()
        return inbox


class AcceptanceContract(InboxFixtures):
    """Adding events."""

    def test_a_new_event_is_due_at_once(self, inbox, clock):
        assert add(inbox) is Added.NEW
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.crashes) == (Status.RECEIVED, 0, 0)
        assert (record.received_at, record.next_attempt_at) == (clock.moment(), clock.moment())
        assert (record.settled_at, record.last_error, dict(record.progress)) == (None, None, {})
        assert inbox.seconds_until_due() == 0

    def test_the_headers_come_back(self, inbox):
        headers = {"X-Region": "eu \N{EURO SIGN}", "x-empty": ""}
        inbox.add(replace(entry("evt_1"), headers=headers)).result(PATIENCE)
        assert claim_one(inbox).headers == headers
        add(inbox, "evt_2")
        assert claim_one(inbox).headers == {}

    def test_the_trace_context_comes_back(self, inbox):
        """In one transaction, only one of two events has a trace context."""
        traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
        traced, other = replace(entry("evt_1"), traceparent=traceparent), entry("evt_2")
        for added in [inbox.add(each) for each in (other, traced)]:
            assert added.result(PATIENCE) is Added.NEW
        claims = {claim.event.id: claim.traceparent for claim in inbox.claim(10, 30)}
        assert claims == {"evt_1": traceparent, "evt_2": None}
        assert inbox.get("evt_1").traceparent == traceparent

    def test_the_event_comes_back_byte_for_byte(self, inbox):
        body = (
            ' {"webhook_id":"wh_1", "type":"user.created",\n"id":"evt_bytes","created":1640995200,"extra":[1.50,1e2],'
            '"data":{"object":{"name":"Zoë \\u00e9 \\ud83d 🎉","n":1.0}}}\r\n'
        ).encode()
        assert inbox.add(NewEvent(Event.from_body(body), "acme", "wh_header")).result(PATIENCE) is Added.NEW
        record = inbox.get("evt_bytes")
        claim = claim_one(inbox)
        for found in (record, claim):
            assert found.event.body == body
            assert (found.event.id, found.event.type, found.event.created) == ("evt_bytes", "user.created", 1640995200)
            assert found.event.data.object["name"] == "Zoë é \ud83d 🎉"
            assert (found.tenant, found.webhook_id) == ("acme", "wh_header")

    def test_a_missing_webhook_id_stays_missing(self, inbox):
        add(inbox)
        assert inbox.get("evt_1").webhook_id is None
        assert claim_one(inbox).webhook_id is None

    def test_the_longest_names_fit(self, inbox):
        id, type, tenant = "é" * 255, "t" * 255, "ü" * 255
        stored = inbox.add(NewEvent(sample_event(type, id=id), tenant, "w" * 255)).result(PATIENCE)
        assert stored is Added.NEW
        record = inbox.get(id, tenant=tenant)
        assert (record.event.id, record.event.type, record.tenant, record.webhook_id) == (id, type, tenant, "w" * 255)

    def test_the_last_second_of_the_calendar_fits(self, inbox):
        inbox.add(NewEvent(sample_event(id="evt_late", created=253_402_300_799))).result(PATIENCE)
        assert inbox.get("evt_late").event.created == 253_402_300_799

    def test_an_event_of_a_mebibyte_fits(self, inbox):
        event = sample_event(id="evt_large", object={"text": "x" * 1_048_576})
        inbox.add(NewEvent(event)).result(PATIENCE)
        assert inbox.get("evt_large").event.body == event.body

    @pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-9, minutes=-30))], ids=["utc", "elsewhere"])
    def test_an_event_that_was_accepted_elsewhere_keeps_its_time_and_is_due_at_once(self, inbox, clock, zone):
        accepted = datetime(2023, 11, 14, 20, 59, 58, 123457, tzinfo=UTC).astimezone(zone)
        event = entry().event
        assert inbox.add(NewEvent(event, received_at=accepted)).result(PATIENCE) is Added.NEW
        record = inbox.get("evt_1")
        assert (record.received_at, record.next_attempt_at) == (accepted, clock.moment())
        assert record.received_at.utcoffset() == timedelta(0)
        assert inbox.seconds_until_due() == 0
        claim = claim_one(inbox)
        assert (claim.received_at, claim.received_at.utcoffset()) == (accepted, timedelta(0))

    def test_when_a_duplicate_was_accepted_changes_nothing(self, inbox, clock):
        add(inbox)
        again = NewEvent(entry().event, received_at=clock.moment(-100))
        assert inbox.add(again).result(PATIENCE) is Added.DUPLICATE
        assert inbox.get("evt_1").received_at == clock.moment()

    def test_a_second_delivery_with_another_body_is_told_apart_and_changes_nothing(self, inbox, clock):
        add(inbox)
        first = inbox.get("evt_1")
        clock.advance(5)
        other = NewEvent(sample_event("user.deleted", id="evt_1", object={"id": "other"}), "", "wh_other")
        assert inbox.add(other).result(PATIENCE) is Added.BODY_DIFFERS
        assert inbox.add(NewEvent(first.event, "", "wh_other")).result(PATIENCE) is Added.DUPLICATE
        assert inbox.get("evt_1") == first
        assert inbox.stats().total == 1

    @pytest.mark.parametrize("status", [Status.PROCESSED, Status.IGNORED])
    def test_a_redelivery_of_a_finished_event_is_a_duplicate_and_is_not_done_again(self, inbox, status):
        add_settled(inbox, "evt_1", status)
        assert add(inbox) is Added.DUPLICATE
        assert inbox.claim(10, LEASE) == []
        assert status_of(inbox, "evt_1") is status

    def test_a_redelivery_of_an_event_in_work_is_a_duplicate(self, inbox):
        add(inbox)
        claim = claim_one(inbox)
        assert add(inbox) is Added.DUPLICATE
        assert settle(inbox, claim)

    def test_a_redelivery_of_a_failed_event_does_not_bring_its_retry_forward(self, inbox):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=30.0)
        assert add(inbox) is Added.DUPLICATE
        assert inbox.seconds_until_due() == 30

    def test_a_redelivery_of_a_dead_event_arms_it_anew(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.DEAD, attempts=3, progress=MIXED, error="out of ideas")
        body = inbox.get("evt_1").event.body
        received_at = inbox.get("evt_1").received_at
        clock.advance(100)
        again = NewEvent(sample_event("user.created", id="evt_1", object={"id": "another body"}))
        assert inbox.add(again).result(PATIENCE) is Added.REARMED
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.crashes) == (Status.RECEIVED, 0, 0)
        assert (record.received_at, record.next_attempt_at, record.settled_at) == (received_at, clock.moment(), None)
        assert dict(record.progress) == DONE
        assert record.event.body == body
        assert add(inbox) is Added.DUPLICATE
        assert claim_one(inbox).attempts == 0

    def test_one_id_under_other_tenants_is_another_event(self, inbox):
        assert [add(inbox, tenant=tenant) for tenant in ("", "acme", "Acme", "acme ")] == [Added.NEW] * 4
        assert add(inbox, tenant="acme") is Added.DUPLICATE
        assert inbox.stats().total == 4
        assert inbox.get("evt_1", tenant="acme").tenant == "acme"
        assert inbox.get("evt_1", tenant="nobody") is None

    @pytest.mark.parametrize(
        "others",
        [
            ("evt_a", "EVT_A", "Evt_a"),
            ("evt_a", "evt_a ", " evt_a", "evt_a\u00a0"),
            ("evt_\u00e9", "evt_e\u0301", "evt_e"),
            ("evt_\u00df", "evt_ss", "evt_\u017f\u017f"),
            ("evt_\u0131", "evt_i", "evt_I", "evt_\uff49"),
            ("1", "1.0", "01", "1e0"),
            ("evt_%", "evt__", "evt_\\", "evt_'"),
        ],
        ids=["case", "space", "accent", "sharp-s", "dotless", "number", "wildcard"],
    )
    def test_ids_compare_by_their_bytes(self, inbox, others):
        assert [add(inbox, id) for id in others] == [Added.NEW] * len(others)
        assert [add(inbox, id) for id in others] == [Added.DUPLICATE] * len(others)
        assert [inbox.get(id).event.id for id in others] == list(others)
        assert inbox.requeue(others[0]) == 0
        claims = {claim.event.id: claim for claim in inbox.claim(10, LEASE)}
        assert settle(inbox, claims[others[0]], Status.DEAD)
        assert inbox.requeue(others[0]) == 1
        assert [status_of(inbox, id) for id in others[1:]] == [Status.PROCESSING] * (len(others) - 1)

    def test_tenants_compare_by_their_bytes(self, inbox):
        tenants = ("t\u00e9", "te\u0301", "T\u00e9")
        assert [add(inbox, tenant=tenant) for tenant in tenants] == [Added.NEW] * 3
        assert [inbox.get("evt_1", tenant=tenant).tenant for tenant in tenants] == list(tenants)

    def test_many_deliveries_at_once_of_one_event_store_it_once(self, inbox):
        start = threading.Barrier(8)

        def deliver(_: int) -> list[Added]:
            start.wait(PATIENCE)
            return [add(inbox, f"evt_{number}") for number in range(10)]

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(deliver, range(8)))
        for number in range(10):
            assert Counter(result[number] for result in results) == {Added.NEW: 1, Added.DUPLICATE: 7}
        assert inbox.stats().total == 10

    def test_deliveries_that_were_not_waited_for_are_told_apart_too(self, inbox):
        futures = [inbox.add(entry(id)) for id in ("evt_1", "evt_2", "evt_1", "evt_1", "evt_2", "evt_3")]
        new, again = Added.NEW, Added.DUPLICATE
        assert [future.result(PATIENCE) for future in futures] == [new, new, again, again, again, new]

    def test_many_redeliveries_at_once_of_a_dead_event_arm_it_once(self, inbox):
        add_settled(inbox, "evt_1", Status.DEAD)
        futures = [inbox.add(entry()) for _ in range(6)]
        assert Counter(future.result(PATIENCE) for future in futures) == {Added.REARMED: 1, Added.DUPLICATE: 5}
