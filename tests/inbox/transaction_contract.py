"""What handlers may rely on whose work shares a transaction with its record in the inbox.

A subclass gives the fixtures `inbox` and `clock`, as `InboxContract` has them, and two more: `write(connection, text)`,
which does a handler's work in such a transaction, and `written()`, the texts that were committed, sorted.
"""

from __future__ import annotations

import pytest

from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import Attempt, Failure, HandlerStatus, Settlement, Status, TransactionalInbox
from tests.inbox.acts import DONE, LEASE, MIXED, ORDERED, add, add_about, claim_one, ids, settle

FAILURES = (Failure("welcome", "ValueError: no route", "Traceback"),)


class TransactionContract:
    """For every inbox that is a `TransactionalInbox`."""

    @pytest.fixture
    def write(self):
        raise NotImplementedError("give the fixture write")

    @pytest.fixture
    def written(self):
        raise NotImplementedError("give the fixture written")

    def test_it_has_transactions(self, inbox):
        assert isinstance(inbox, TransactionalInbox)

    def test_work_and_progress_are_committed_together_while_the_attempt_goes_on(self, inbox, clock, write, written):
        add(inbox)
        claim = claim_one(inbox)
        with inbox.transaction(claim, DONE) as connection:
            write(connection, "work")
            assert written() == []
            assert dict(inbox.get("evt_1").progress) == {}
        assert written() == ["work"]
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, dict(record.progress)) == (Status.PROCESSING, 0, DONE)
        assert (record.next_attempt_at, record.history) == (clock.moment(LEASE), ())
        assert settle(inbox, claim, progress=DONE)

    def test_several_transactions_in_one_attempt(self, inbox, write, written):
        add(inbox)
        claim = claim_one(inbox)
        with inbox.transaction(claim, DONE) as connection:
            write(connection, "first")
        with inbox.transaction(claim, MIXED) as connection:
            write(connection, "second")
        assert written() == ["first", "second"]
        assert dict(inbox.get("evt_1").progress) == MIXED

    def test_an_error_leaves_nothing_behind(self, inbox, write, written):
        add(inbox)
        claim = claim_one(inbox)
        before = inbox.get("evt_1")

        def work(connection):
            write(connection, "work")
            raise ZeroDivisionError

        for settlement in (None, lambda: Settlement(Status.PROCESSED, 1, DONE, seconds=1.0)):
            with (
                pytest.raises(ZeroDivisionError),
                inbox.transaction(claim, DONE, settlement) as connection,
            ):
                work(connection)
            assert written() == []
            assert inbox.get("evt_1") == before
        assert settle(inbox, claim)

    def test_a_lost_lease_rolls_the_work_back(self, inbox, clock, write, written):
        add(inbox)
        lost = claim_one(inbox)
        clock.advance(LEASE)
        holder = claim_one(inbox)
        before = inbox.get("evt_1")
        for settlement in (None, lambda: Settlement(Status.PROCESSED, 1, DONE, seconds=1.0, scrub=True)):
            with (
                pytest.raises(LeaseLostError),
                inbox.transaction(lost, DONE, settlement) as connection,
            ):
                write(connection, "late")
            assert written() == []
            assert inbox.get("evt_1") == before
        with inbox.transaction(holder, DONE, lambda: Settlement(Status.PROCESSED, 1, DONE)) as connection:
            write(connection, "work")
        assert written() == ["work"]

    # With the end of the attempt

    def test_work_and_the_end_of_the_attempt_are_committed_together(self, inbox, clock, write, written):
        add(inbox)
        claim = claim_one(inbox)
        clock.advance(3)
        with inbox.transaction(claim, DONE, lambda: Settlement(Status.PROCESSED, 1, DONE, seconds=3.0)) as connection:
            write(connection, "work")
            assert inbox.get("evt_1").status is Status.PROCESSING
        assert written() == ["work"]
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, dict(record.progress)) == (Status.PROCESSED, 1, DONE)
        assert (record.next_attempt_at, record.settled_at) == (None, clock.moment())
        assert record.history == (Attempt(clock.moment(), "processed", 3.0),)
        assert settle(inbox, claim, Status.DEAD) is False
        assert inbox.record(claim, MIXED) is False
        clock.advance(LEASE)
        assert inbox.claim(10, LEASE) == []

    def test_an_attempt_may_end_with_another_handlers_failure(self, inbox, clock, write, written):
        add(inbox)
        settlement = Settlement(Status.FAILED, 1, DONE, retry_in=2.5, error="no route", seconds=1.0, failures=FAILURES)
        with inbox.transaction(claim_one(inbox), DONE, lambda: settlement) as connection:
            write(connection, "work")
        assert written() == ["work"]
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.last_error) == (Status.FAILED, 1, "no route")
        assert (record.next_attempt_at, record.settled_at) == (clock.moment(2.5), None)
        assert record.history == (Attempt(clock.moment(), "failed", 1.0, FAILURES),)
        clock.advance(2.5)
        claim = claim_one(inbox)
        assert (claim.attempts, dict(claim.progress), claim.history) == (1, DONE, record.history)

    def test_its_end_may_delete_the_payload(self, inbox, clock, write):
        add_about(inbox, "user_1", "evt_1")
        settlement = Settlement(Status.PROCESSED, 1, DONE, seconds=1.0, scrub=True)
        with inbox.transaction(claim_one(inbox), DONE, lambda: settlement) as connection:
            write(connection, "work")
        record = inbox.get("evt_1")
        assert (record.event.data.object, record.scrubbed_at) == ({}, clock.moment())
        assert ids(inbox.list(object_id="user_1")) == ["evt_1"]

    def test_its_end_deletes_the_payload_of_what_was_erased_meanwhile(self, inbox, clock, write):
        add_about(inbox, "user_1", "evt_1")
        claim = claim_one(inbox)
        assert inbox.erase("user_1") == 1
        with inbox.transaction(claim, DONE, lambda: Settlement(Status.PROCESSED, 1, DONE)) as connection:
            write(connection, "work")
        assert inbox.get("evt_1").event.data.object == {}
        assert inbox.get("evt_1").scrubbed_at == clock.moment()

    def test_its_end_lets_the_next_event_of_the_object_pass(self, inbox, write):
        add_about(inbox, "user_1", "evt_1")
        add_about(inbox, "user_1", "evt_2", later=5)
        (first,) = inbox.claim(10, LEASE, ORDERED)
        with inbox.transaction(first, DONE, lambda: Settlement(Status.PROCESSED, 1, DONE)) as connection:
            write(connection, "work")
        (second,) = inbox.claim(10, LEASE, ORDERED)
        assert second.event.id == "evt_2"
        assert inbox.newest_applied(second) == first.event.created

    def test_what_was_done_in_a_transaction_is_applied(self, inbox, write):
        add_about(inbox, "user_1", "evt_1")
        claim = claim_one(inbox)
        with inbox.transaction(claim, {"bill": HandlerStatus.GIVEN_UP}) as connection:
            write(connection, "work")
        assert inbox.newest_applied(claim) is None
        with inbox.transaction(claim, MIXED) as connection:
            write(connection, "more")
        assert inbox.newest_applied(claim) == claim.event.created
