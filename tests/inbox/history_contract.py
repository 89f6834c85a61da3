"""What is kept of the attempts that have ended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from envoyou_core.inbox import Attempt, Failure, Settlement, Status
from envoyou_core.inbox.history import MAX_HISTORY
from tests.inbox.acts import LEASE, MIXED, add, claim_one, settle

FAILURES = (
    Failure("welcome", "ValueError: no route", 'Traceback:\n  File "a.py", line 1\n\tZoë 🎉 \\ "quoted"\r\n'),
    Failure("Größe <locals>.bill", "", "x" * 5000),
)


def fail(inbox, seconds=0.25, failures=FAILURES, **values):
    claim = claim_one(inbox)
    assert settle(inbox, claim, Status.FAILED, seconds=seconds, failures=failures, retry_in=0.0, **values)


class HistoryContract:
    """For every inbox. See `InboxContract`."""

    def test_at_first_there_is_no_history(self, inbox):
        add(inbox)
        assert inbox.get("evt_1").history == ()
        assert inbox.get("evt_1").last_traceback is None
        assert claim_one(inbox).history == ()

    def test_an_attempt_is_kept_with_its_times_its_status_and_its_failures(self, inbox, clock):
        add(inbox)
        claim = claim_one(inbox)
        clock.advance(2.5)
        settle(inbox, claim, Status.FAILED, seconds=2.25, failures=FAILURES, retry_in=0.0)
        (attempt,) = inbox.get("evt_1").history
        assert attempt == Attempt(clock.moment(), "failed", 2.25, FAILURES)
        assert attempt.began_at == clock.moment(-2.25)
        assert attempt.ended_at.utcoffset() == timedelta(0)
        assert claim_one(inbox).history == (attempt,)

    def test_times_are_kept_to_the_microsecond(self, inbox, clock):
        clock.now += 0.123457
        add(inbox)
        fail(inbox, seconds=0.001234)
        (attempt,) = inbox.get("evt_1").history
        assert (attempt.ended_at, attempt.seconds) == (clock.moment(), 0.001234)

    @pytest.mark.parametrize("status", [Status.PROCESSED, Status.IGNORED, Status.DEAD, Status.FAILED])
    def test_an_attempt_has_the_status_in_which_it_left_the_event(self, inbox, status):
        add(inbox)
        settle(inbox, claim_one(inbox), status, seconds=1.0, retry_in=9.0 if status is Status.FAILED else None)
        assert [attempt.status for attempt in inbox.get("evt_1").history] == [status.value]

    def test_attempts_are_kept_in_their_order(self, inbox, clock):
        add(inbox)
        for seconds in (1.0, 2.0):
            clock.advance(seconds)
            fail(inbox, seconds)
        clock.advance(3.0)
        settle(inbox, claim_one(inbox), seconds=3.0)
        history = inbox.get("evt_1").history
        assert [(attempt.seconds, attempt.status) for attempt in history] == [
            (1.0, "failed"),
            (2.0, "failed"),
            (3.0, "processed"),
        ]
        assert [attempt.ended_at for attempt in history] == [clock.moment(-5), clock.moment(-3), clock.moment()]
        assert [attempt.failures for attempt in history] == [FAILURES, FAILURES, ()]

    def test_a_claim_tells_what_went_wrong_last(self, inbox):
        add(inbox)
        claim = claim_one(inbox)
        assert claim.last_error is None
        settle(inbox, claim, Status.FAILED, error="ValueError: no", retry_in=0.0)
        assert claim_one(inbox).last_error == "ValueError: no"

    def test_an_attempt_that_took_no_time_is_one(self, inbox):
        add(inbox)
        fail(inbox, seconds=0.0, failures=())
        assert [attempt.seconds for attempt in inbox.get("evt_1").history] == [0.0]

    def test_a_lease_that_ran_out_is_in_the_history(self, inbox, clock):
        add(inbox)
        claim_one(inbox)
        clock.advance(LEASE + 7)
        crash = Attempt(clock.moment(), None)
        again = claim_one(inbox)
        assert again.history == inbox.get("evt_1").history == (crash,)
        assert crash.began_at is None
        clock.advance(1)
        settle(inbox, again, seconds=1.0)
        assert inbox.get("evt_1").history == (crash, Attempt(clock.moment(), "processed", 1.0))

    def test_every_crash_is_in_the_history_behind_what_was_before(self, inbox, clock):
        add(inbox)
        fail(inbox)
        claim_one(inbox)
        for crashes in (1, 2):
            clock.advance(LEASE)
            again = claim_one(inbox)
            statuses = [attempt.status for attempt in again.history]
            assert statuses == ["failed"] + [None] * crashes
            assert again.history == inbox.get("evt_1").history

    def test_a_claim_that_is_given_back_adds_nothing(self, inbox, clock):
        add(inbox)
        claim_one(inbox)
        clock.advance(LEASE)
        claim = claim_one(inbox)
        settle(inbox, claim, Status.RECEIVED, attempts=0, retry_in=0.0)
        assert [attempt.status for attempt in inbox.get("evt_1").history] == [None]
        again = claim_one(inbox)
        assert again.history == claim.history

    def test_a_settlement_without_an_attempt_adds_nothing(self, inbox):
        add(inbox)
        settle(inbox, claim_one(inbox), Status.DEAD, error="crashed too often", failures=FAILURES)
        assert inbox.get("evt_1").history == ()

    def test_progress_and_renewing_leave_the_history_alone(self, inbox, clock):
        add(inbox)
        fail(inbox)
        claim = claim_one(inbox)
        inbox.record(claim, MIXED)
        inbox.renew([claim], LEASE)
        assert inbox.get("evt_1").history == claim.history
        assert len(claim.history) == 1

    def test_a_lost_lease_adds_nothing(self, inbox, clock):
        add(inbox)
        lost = claim_one(inbox)
        clock.advance(LEASE)
        holder = claim_one(inbox)
        assert settle(inbox, lost, Status.FAILED, seconds=1.0, retry_in=0.0) is False
        assert inbox.get("evt_1").history == holder.history

    def test_requeuing_keeps_the_history(self, inbox):
        add(inbox)
        settle(inbox, claim_one(inbox), Status.DEAD, seconds=1.0, failures=FAILURES)
        before = inbox.get("evt_1").history
        assert inbox.requeue("evt_1") == 1
        assert inbox.get("evt_1").history == before
        assert claim_one(inbox).history == before
        assert len(before) == 1

    def test_a_redelivery_that_arms_anew_keeps_the_history(self, inbox):
        add(inbox)
        settle(inbox, claim_one(inbox), Status.DEAD, seconds=1.0, failures=FAILURES)
        before = inbox.get("evt_1").history
        add(inbox)
        assert claim_one(inbox).history == before

    def test_of_many_attempts_the_newest_are_kept(self, inbox):
        add(inbox)
        for number in range(MAX_HISTORY + 3):
            fail(inbox, seconds=float(number))
        kept = [attempt.seconds for attempt in inbox.get("evt_1").history]
        assert kept == [float(number) for number in range(3, MAX_HISTORY + 3)]
        assert [attempt.seconds for attempt in claim_one(inbox).history] == kept

    def test_of_many_crashes_the_newest_are_kept(self, inbox, clock):
        add(inbox)
        fail(inbox)
        for _ in range(MAX_HISTORY + 2):
            again = claim_one(inbox)
            clock.advance(LEASE)
        assert [attempt.status for attempt in again.history] == [None] * MAX_HISTORY
        assert again.history[-1].ended_at == clock.moment(-LEASE)
        assert again.crashes == MAX_HISTORY + 1

    def test_the_last_traceback_is_that_of_the_last_failure(self, inbox, clock):
        add(inbox)
        fail(inbox, failures=(Failure("a", "first", "Traceback 1"),))
        assert inbox.get("evt_1").last_traceback == "Traceback 1"
        fail(inbox, failures=(Failure("a", "second", "Traceback 2"), Failure("b", "third", "Traceback 3")))
        claim_one(inbox)
        clock.advance(LEASE)
        settle(inbox, claim_one(inbox), seconds=1.0)
        assert len(inbox.get("evt_1").history) == 4
        assert inbox.get("evt_1").last_traceback == "Traceback 3"

    def test_lists_have_the_history_too(self, inbox):
        add(inbox)
        fail(inbox)
        assert [record.history for record in inbox.list()] == [inbox.get("evt_1").history]
        assert len(inbox.list()[0].history) == 1

    def test_settling_several_keeps_the_history_of_each(self, inbox, clock):
        add(inbox, "evt_1")
        add(inbox, "evt_2")
        first, second = inbox.claim(2, LEASE)
        settlements = [
            (first, Settlement(Status.DEAD, 1, seconds=1.0, failures=FAILURES)),
            (second, Settlement(Status.PROCESSED, 1, seconds=2.0)),
        ]
        assert inbox.settle_all(settlements) == [True, True]
        assert inbox.get("evt_1").history == (Attempt(clock.moment(), "dead", 1.0, FAILURES),)
        assert inbox.get("evt_2").history == (Attempt(clock.moment(), "processed", 2.0),)
