"""How payloads are deleted: by their age, as soon as they are no longer needed, or because a person asked for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from envoyou_core.inbox import Added, Failure, HandlerStatus, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from tests.inbox.acts import (
    CREATED,
    LEASE,
    ORDERED,
    PATIENCE,
    add,
    add_about,
    add_settled,
    claim_one,
    ids,
    settle,
    status_of,
)

FINISHED = [Status.PROCESSED, Status.IGNORED, Status.DEAD]
SECRET = "private@example.com"
SECOND = timedelta(seconds=1)
FAILURES = (Failure("welcome", f"no mail to {SECRET}", f"Traceback\n  to = {SECRET!r}"),)


def finish(inbox, claim, status=Status.PROCESSED, **values):
    """End an attempt, with errors that name a person."""
    error = f"no mail to {SECRET}"
    assert settle(inbox, claim, status, seconds=1.0, failures=FAILURES, error=error, **values)


def is_private(inbox, id, tenant=None) -> bool:
    """Whether anything that the inbox shows of an event names the person."""
    record = inbox.get(id, tenant=tenant)
    shown = [record, record.event.data.object, record.event.body, record.last_traceback]
    return SECRET in " ".join(map(repr, shown))


def assert_scrubbed(inbox, clock, id, object_id="user_1"):
    record = inbox.get(id)
    assert not is_private(inbox, id)
    assert record.event.data.object == {}
    assert (record.last_error, record.last_traceback) == (None, None)
    assert all(attempt.failures == () for attempt in record.history)
    assert record.scrubbed_at == clock.moment()
    assert record.scrubbed_at.utcoffset() == timedelta(0)
    assert ids(inbox.list(object_id=object_id)) == [id]


class ScrubContract:
    """For every inbox. See `InboxContract`."""

    @pytest.mark.parametrize("status", FINISHED)
    def test_scrubbing_deletes_the_payload_and_what_errors_said(self, inbox, clock, status):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox), status)
        assert is_private(inbox, "evt_1")
        assert inbox.get("evt_1").scrubbed_at is None
        clock.advance(5)
        assert inbox.scrub(SECOND, tuple(FINISHED), dry_run=True) == 1
        assert inbox.scrub(SECOND, tuple(FINISHED)) == 1
        assert_scrubbed(inbox, clock, "evt_1")
        assert inbox.scrub(SECOND, tuple(FINISHED), dry_run=True) == 0

    def test_what_an_event_is_known_by_stays(self, inbox, clock):
        event = sample_event("user.created", id="evt_é", created=CREATED + 3, webhook_id="wh_body")
        inbox.add(NewEvent(event, "acme", "wh_header")).result(PATIENCE)
        finish(inbox, claim_one(inbox), progress={"welcome": HandlerStatus.DONE})
        before = inbox.get("evt_é")
        clock.advance(5)
        assert inbox.scrub(SECOND) == 1
        after = inbox.get("evt_é")
        for name in ("id", "type", "created", "webhook_id"):
            assert getattr(after.event, name) == getattr(before.event, name)
        for name in ("status", "attempts", "crashes", "received_at", "settled_at", "tenant", "webhook_id"):
            assert getattr(after, name) == getattr(before, name)
        assert (after.progress, after.next_attempt_at) == (before.progress, None)
        assert after.event.webhook_id == "wh_body"
        (attempt,), (kept,) = before.history, after.history
        assert (kept.ended_at, kept.status, kept.seconds) == (attempt.ended_at, attempt.status, attempt.seconds)

    def test_an_event_without_a_webhook_id_stays_without_one(self, inbox, clock):
        inbox.add(NewEvent(sample_event(id="evt_1", webhook_id=None))).result(PATIENCE)
        settle(inbox, claim_one(inbox))
        clock.advance(5)
        assert inbox.scrub(SECOND) == 1
        assert inbox.get("evt_1").event.webhook_id is None

    @pytest.mark.parametrize("status", FINISHED)
    def test_a_redelivery_is_a_duplicate_and_brings_nothing_back(self, inbox, clock, status):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox), status)
        clock.advance(5)
        inbox.scrub(SECOND, tuple(FINISHED))
        assert add_about(inbox, "user_1", "evt_1") is Added.DUPLICATE
        assert_scrubbed(inbox, clock, "evt_1")
        assert inbox.claim(10, LEASE) == []
        assert status_of(inbox, "evt_1") is status

    @pytest.mark.parametrize("status", [Status.DEAD, Status.IGNORED])
    def test_what_has_no_payload_is_not_requeued(self, inbox, clock, status):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox), status)
        clock.advance(5)
        inbox.scrub(SECOND, tuple(FINISHED))
        assert inbox.requeue("evt_1") == inbox.requeue(status=status) == inbox.requeue(type="user.updated") == 0
        assert status_of(inbox, "evt_1") is status
        assert inbox.claim(10, LEASE) == []

    def test_what_has_its_payload_is_requeued_beside_what_has_none(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.DEAD)
        clock.advance(5)
        inbox.scrub(SECOND, ("dead",))
        add_settled(inbox, "evt_2", Status.DEAD)
        assert inbox.requeue(status="dead") == 1
        assert status_of(inbox, "evt_2") is Status.RECEIVED

    def test_it_is_done_once(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.PROCESSED)
        clock.advance(5)
        assert inbox.scrub(SECOND) == 1
        first = inbox.get("evt_1")
        clock.advance(5)
        assert inbox.scrub(SECOND) == 0
        assert inbox.get("evt_1") == first

    def test_only_what_was_settled_long_enough_ago_is_scrubbed(self, inbox, clock):
        add_settled(inbox, "evt_old", Status.PROCESSED)
        clock.advance(3600)
        add_settled(inbox, "evt_new", Status.PROCESSED)
        assert inbox.scrub(timedelta(hours=1)) == 0
        clock.advance(1)
        assert inbox.scrub(timedelta(hours=1)) == 1
        assert inbox.get("evt_old").scrubbed_at == clock.moment()
        assert inbox.get("evt_new").scrubbed_at is None

    def test_what_is_unfinished_or_dead_is_spared(self, inbox, clock):
        for status in FINISHED:
            add_settled(inbox, f"evt_{status}", status)
        add_settled(inbox, "evt_failed", Status.FAILED, retry_in=1e6)
        add(inbox, "evt_processing")
        claim_one(inbox, lease=1e6)
        add(inbox, "evt_received")
        clock.advance(1e5)
        assert inbox.scrub(SECOND) == 2
        scrubbed = [record.event.id for record in inbox.list() if record.scrubbed_at is not None]
        assert scrubbed == ["evt_ignored", "evt_processed"]
        assert inbox.scrub(SECOND, ("dead", "ignored")) == 1
        assert inbox.get("evt_dead").scrubbed_at is not None

    @pytest.mark.parametrize("status", ["received", "processing", "failed", "lost"])
    def test_only_finished_events_can_be_scrubbed(self, inbox, status):
        with pytest.raises(ValueError):  # noqa: PT011 - any text
            inbox.scrub(timedelta(0), (Status.PROCESSED, status))

    def test_a_requeued_event_is_not_scrubbed(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.DEAD)
        inbox.requeue("evt_1")
        clock.advance(100)
        assert inbox.scrub(SECOND, tuple(FINISHED)) == 0
        assert claim_one(inbox).event.data.object != {}

    def test_what_was_scrubbed_is_pruned_as_anything_else(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.PROCESSED)
        clock.advance(5)
        inbox.scrub(SECOND)
        assert inbox.prune(timedelta(seconds=5)) == 0
        clock.advance(1)
        assert inbox.prune(timedelta(seconds=5)) == 1
        assert add(inbox, "evt_1") is Added.NEW
        assert inbox.get("evt_1").scrubbed_at is None

    # As soon as it is no longer needed

    @pytest.mark.parametrize("status", FINISHED)
    def test_a_settlement_can_delete_the_payload(self, inbox, clock, status):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox), Status.FAILED, retry_in=0.0)
        clock.advance(5)
        finish(inbox, claim_one(inbox), status, scrub=True)
        assert_scrubbed(inbox, clock, "evt_1")
        record = inbox.get("evt_1")
        assert [attempt.status for attempt in record.history] == ["failed", status.value]
        assert (record.status, record.attempts, record.settled_at) == (status, 2, clock.moment())
        assert add_about(inbox, "user_1", "evt_1") is Added.DUPLICATE
        assert inbox.requeue("evt_1") == 0

    def test_of_several_settlements_each_says_whether_to_delete_the_payload(self, inbox, clock):
        for number in range(3):
            add_about(inbox, f"user_{number}", f"evt_{number}")
        claims = inbox.claim(3, LEASE)
        scrubs = (True, False, True)
        settlements = [
            (claim, Settlement(Status.PROCESSED, 1, seconds=1.0, failures=FAILURES, scrub=scrub))
            for claim, scrub in zip(claims, scrubs, strict=True)
        ]
        assert inbox.settle_all(settlements) == [True] * 3
        assert [is_private(inbox, f"evt_{number}") for number in range(3)] == [False, True, False]
        assert_scrubbed(inbox, clock, "evt_0", "user_0")

    def test_a_worker_that_has_lost_its_lease_deletes_no_payload(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        lost = claim_one(inbox)
        clock.advance(LEASE)
        claim_one(inbox)
        assert settle(inbox, lost, scrub=True) is False
        assert inbox.get("evt_1").event.data.object["email"] == SECRET


class EraseContract:
    """For every inbox. See `InboxContract`."""

    def bring_into_every_status(self, inbox):
        """One event about `user_1` in each; returns the claim of the one in work."""
        for status in FINISHED:
            add_about(inbox, "user_1", f"evt_{status}")
            finish(inbox, claim_one(inbox), status)
        add_about(inbox, "user_1", "evt_failed")
        finish(inbox, claim_one(inbox), Status.FAILED, retry_in=30.0)
        add_about(inbox, "user_1", "evt_processing")
        claim = claim_one(inbox)
        add_about(inbox, "user_1", "evt_received")
        return claim

    def test_finished_events_lose_their_payloads_at_once(self, inbox, clock):
        self.bring_into_every_status(inbox)
        clock.advance(3)
        assert inbox.erase("user_1") == 6
        for status in FINISHED:
            record = inbox.get(f"evt_{status}")
            assert not is_private(inbox, f"evt_{status}")
            assert (record.event.data.object, record.scrubbed_at) == ({}, clock.moment())
            assert (record.last_error, record.last_traceback) == (None, None)
            assert (record.status, record.settled_at) == (status, clock.moment(-3))
        assert inbox.requeue("evt_dead") == inbox.requeue("evt_ignored") == 0
        assert add_about(inbox, "user_1", "evt_dead") is Added.DUPLICATE
        assert status_of(inbox, "evt_dead") is Status.DEAD

    def test_unfinished_events_are_worked_on_with_their_payload(self, inbox, clock):
        in_work = self.bring_into_every_status(inbox)
        inbox.erase("user_1")
        for id in ("evt_failed", "evt_processing", "evt_received"):
            assert inbox.get(id).scrubbed_at is None
        assert inbox.record(in_work, {"welcome": HandlerStatus.DONE})
        clock.advance(30)
        claims = inbox.claim(10, LEASE)
        assert sorted(ids(claims)) == ["evt_failed", "evt_received"]
        assert all(claim.event.data.object["email"] == SECRET for claim in claims)

    @pytest.mark.parametrize("status", FINISHED)
    def test_unfinished_events_lose_their_payload_when_they_are_finished(self, inbox, clock, status):
        in_work = self.bring_into_every_status(inbox)
        inbox.erase("user_1")
        clock.advance(30)
        claims = [in_work, *inbox.claim(10, LEASE)]
        assert len(claims) == 3
        for claim in claims:
            finish(inbox, claim, status)
            record = inbox.get(claim.event.id)
            assert not is_private(inbox, claim.event.id)
            assert (record.event.data.object, record.scrubbed_at) == ({}, clock.moment())
            assert (record.status, record.settled_at) == (status, clock.moment())
            assert [attempt.status for attempt in record.history][-1] == status.value
            assert add_about(inbox, "user_1", claim.event.id) is Added.DUPLICATE
            assert inbox.requeue(claim.event.id) == 0

    def test_an_event_that_fails_again_keeps_its_payload_until_it_is_finished(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        assert inbox.erase("user_1") == 1
        for _ in range(2):
            finish(inbox, claim_one(inbox), Status.FAILED, retry_in=0.0)
            assert inbox.get("evt_1").event.data.object["email"] == SECRET
            assert inbox.get("evt_1").scrubbed_at is None
        settle(inbox, claim_one(inbox), Status.RECEIVED, attempts=0, retry_in=0.0)
        assert inbox.get("evt_1").scrubbed_at is None
        clock.advance(7)
        finish(inbox, claim_one(inbox), Status.DEAD)
        assert_scrubbed(inbox, clock, "evt_1")
        assert len(inbox.get("evt_1").history) == 3

    def test_a_crash_does_not_make_it_forget(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        claim_one(inbox)
        inbox.erase("user_1")
        clock.advance(LEASE)
        finish(inbox, claim_one(inbox))
        assert_scrubbed(inbox, clock, "evt_1")

    def test_requeuing_does_not_make_it_forget(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox), Status.FAILED, retry_in=1e6)
        assert inbox.erase("user_1") == 1
        assert inbox.requeue("evt_1") == 1
        claim = claim_one(inbox)
        assert claim.event.data.object["email"] == SECRET
        finish(inbox, claim)
        assert_scrubbed(inbox, clock, "evt_1")

    def test_settling_several_at_once_does_not_make_it_forget(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        add_about(inbox, "user_2", "evt_2")
        inbox.erase("user_1")
        settlements = [(claim, Settlement(Status.PROCESSED, 1)) for claim in inbox.claim(2, LEASE)]
        assert inbox.settle_all(settlements) == [True, True]
        assert_scrubbed(inbox, clock, "evt_1")
        assert inbox.get("evt_2").event.data.object["email"] == SECRET

    def test_each_event_is_counted_once(self, inbox):
        claim = self.bring_into_every_status(inbox)
        assert inbox.erase("user_1") == 6
        assert inbox.erase("user_1") == 0
        finish(inbox, claim)
        assert inbox.erase("user_1") == 0
        add_about(inbox, "user_1", "evt_new")
        assert inbox.erase("user_1") == 1

    def test_what_was_scrubbed_before_is_not_counted(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox))
        clock.advance(5)
        inbox.scrub(SECOND)
        first = inbox.get("evt_1")
        clock.advance(5)
        assert inbox.erase("user_1") == 0
        assert inbox.get("evt_1") == first

    def test_what_was_erased_is_not_scrubbed_again(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox))
        inbox.erase("user_1")
        clock.advance(5)
        assert inbox.scrub(SECOND) == 0

    def test_an_event_that_arrives_afterwards_is_another(self, inbox):
        add_about(inbox, "user_1", "evt_1")
        inbox.erase("user_1")
        add_about(inbox, "user_1", "evt_2")
        for claim in inbox.claim(2, LEASE):
            finish(inbox, claim)
        assert [is_private(inbox, id) for id in ("evt_1", "evt_2")] == [False, True]

    def test_other_objects_keep_theirs(self, inbox):
        others = ("user_2", "USER_1", "user_1 ", "user_", "user_%", "")
        add_about(inbox, "user_1", "evt_1")
        for number, object_id in enumerate(others):
            add_about(inbox, object_id, f"evt_other_{number}")
        add_about(inbox, None, "evt_none", object={"email": SECRET})
        for claim in inbox.claim(10, LEASE):
            finish(inbox, claim)
        assert inbox.erase("user_1") == 1
        assert [record.event.id for record in inbox.list() if record.scrubbed_at is not None] == ["evt_1"]
        assert inbox.erase("nobody") == inbox.erase("") == 0

    def test_one_tenant_alone(self, inbox):
        for tenant in ("", "acme", "Acme"):
            add_about(inbox, "user_1", "evt_1", tenant=tenant)
        for claim in inbox.claim(10, LEASE):
            finish(inbox, claim)
        assert inbox.erase("user_1", tenant="acme") == 1
        assert [is_private(inbox, "evt_1", tenant) for tenant in ("", "acme", "Acme")] == [True, False, True]
        assert inbox.erase("user_1", tenant="") == 1
        assert inbox.erase("user_1") == 1
        assert not is_private(inbox, "evt_1", "Acme")

    def test_all_types_and_the_users_of_objects_without_an_id(self, inbox):
        add_about(inbox, "user_1", "evt_1", type="user.deleted")
        add_about(inbox, None, "evt_2", type="auth.login", object={"user_id": "user_1", "email": SECRET})
        for claim in inbox.claim(10, LEASE):
            finish(inbox, claim)
        assert inbox.erase("user_1") == 2
        assert not is_private(inbox, "evt_1")
        assert not is_private(inbox, "evt_2")

    def test_a_number_and_its_text_are_one_id(self, inbox):
        add_about(inbox, 5, "evt_1")
        add_about(inbox, "5", "evt_2")
        add_about(inbox, 51, "evt_3")
        for claim in inbox.claim(10, LEASE):
            finish(inbox, claim)
        assert ids(inbox.list(object_id="5")) == ["evt_2", "evt_1"]
        assert inbox.erase("5") == 2

    @pytest.mark.parametrize("object_id", ["x" * 255, "x" * 256, "é" * 300, "line\nbreak", "cut \ud83d"])
    def test_ids_that_are_long_or_unprintable(self, inbox, clock, object_id):
        add_about(inbox, object_id, "evt_1")
        add_about(inbox, object_id + "y", "evt_2")
        for claim in inbox.claim(10, LEASE):
            finish(inbox, claim)
        assert ids(inbox.list(object_id=object_id)) == ["evt_1"]
        assert inbox.erase(object_id) == 1
        assert_scrubbed(inbox, clock, "evt_1", object_id)
        assert is_private(inbox, "evt_2")

    def test_as_an_event_shows_its_id_it_can_be_asked_for(self, inbox):
        add_about(inbox, "x" * 300, "evt_1")
        shown = inbox.get("evt_1").event.object_id
        assert ids(inbox.list(object_id=shown)) == ["evt_1"]
        assert inbox.erase(shown) == 1

    def test_order_is_kept_afterwards(self, inbox):
        for number in range(3):
            add_about(inbox, "user_1", f"evt_{number}")
        assert inbox.erase("user_1") == 3
        for number in range(3):
            (claim,) = inbox.claim(10, LEASE, ORDERED)
            assert claim.event.id == f"evt_{number}"
            assert inbox.claim(10, LEASE, ORDERED) == []
            finish(inbox, claim)

    def test_what_was_erased_is_pruned_as_anything_else(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1")
        finish(inbox, claim_one(inbox))
        inbox.erase("user_1")
        clock.advance(5)
        assert inbox.prune(SECOND) == 1
        assert inbox.list(object_id="user_1") == []

    # Looking

    def test_lists_of_one_object(self, inbox):
        add_about(inbox, "user_1", "evt_1")
        add_about(inbox, "user_2", "evt_2")
        add_about(inbox, "user_1", "evt_3", type="user.deleted", tenant="acme")
        add_about(inbox, None, "evt_4", type="auth.login", object={"user_id": "user_1"})
        add_about(inbox, None, "evt_5", object={})
        settle(inbox, claim_one(inbox), Status.DEAD)
        assert ids(inbox.list(object_id="user_1")) == ["evt_4", "evt_3", "evt_1"]
        assert ids(inbox.list(object_id="user_1", limit=2)) == ["evt_4", "evt_3"]
        assert ids(inbox.list(object_id="user_1", type="user.deleted")) == ["evt_3"]
        assert ids(inbox.list(object_id="user_1", status="dead")) == ["evt_1"]
        assert ids(inbox.list(object_id="user_1", status="received", type="auth.login")) == ["evt_4"]
        for other in ("USER_1", "user_1 ", "user_", "user%", "", "None"):
            assert inbox.list(object_id=other) == []
