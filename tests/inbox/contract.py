"""What every inbox must do, whatever it is made of.

A subclass of `InboxContract`, or of `DurableInboxContract` where a second object sees what the first one stored, gives
the fixture `make_inbox`: a callable `make_inbox(clock, name="default")` that returns an inbox on one and the same empty
database each time it is called, and that sees to closing what it made.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from envoyou_core import Event
from envoyou_core.event import EventData
from envoyou_core.inbox import FINISHED, Added, Claim, Failure, HandlerStatus, NewEvent, Settlement, Status, WorkerInbox
from tests.inbox.acceptance_contract import AcceptanceContract
from tests.inbox.acts import (
    CREATED,
    DONE,
    LEASE,
    MIXED,
    ORDERED,
    PATIENCE,
    add,
    add_about,
    add_settled,
    claim_one,
    entry,
    ids,
    settle,
    status_of,
)
from tests.inbox.history_contract import HistoryContract
from tests.inbox.order_contract import NewestAppliedContract, OrderContract
from tests.inbox.recovery_contract import RecoveryContract
from tests.inbox.rejected_contract import RejectedContract
from tests.inbox.retention_contract import EraseContract, ScrubContract
from tests.inbox.selection_contract import SelectionContract
from tests.inbox.telemetry_contract import TelemetryContract
from tests.inbox.waiting_contract import WaitingContract


class InboxContract(
    AcceptanceContract,
    SelectionContract,
    OrderContract,
    WaitingContract,
    RecoveryContract,
    NewestAppliedContract,
    HistoryContract,
    ScrubContract,
    EraseContract,
    RejectedContract,
    TelemetryContract,
):
    """For every inbox."""

    # What it is

    def test_it_is_an_inbox_of_its_name(self, inbox, make_inbox, clock):
        assert isinstance(inbox, WorkerInbox)
        assert inbox.name == "default"
        assert make_inbox(clock, name="billing").name == "billing"

    def test_opening_is_idempotent(self, inbox):
        add(inbox)
        inbox.open()
        assert inbox.stats().total == 1

    def test_it_can_be_used_again_after_it_was_closed(self, inbox):
        inbox.close()
        assert add(inbox, "evt_after") is Added.NEW
        inbox.close()
        assert status_of(inbox, "evt_after") is Status.RECEIVED

    # Claiming

    def test_a_database_without_a_limit_of_connections_has_none(self, inbox):
        assert inbox.connection_limit() is None

    def test_there_is_nothing_to_claim_in_an_empty_inbox(self, inbox):
        assert inbox.claim(10, LEASE) == []
        assert inbox.seconds_until_due() is None

    def test_a_claim_says_what_an_attempt_needs_to_know(self, inbox, clock):
        add(inbox, tenant="acme")
        received_at = clock.moment()
        clock.advance(3)
        claim = claim_one(inbox)
        assert (claim.attempts, claim.crashes, dict(claim.progress)) == (0, 0, {})
        assert (claim.tenant, claim.received_at) == ("acme", received_at)
        record = inbox.get("evt_1")
        assert (record.status, record.next_attempt_at) == (Status.PROCESSING, clock.moment(LEASE))

    def test_what_arrived_first_is_claimed_first(self, inbox):
        for number in range(5):
            add(inbox, f"evt_{number}")
        assert [claim_one(inbox).event.id for _ in range(3)] == ["evt_0", "evt_1", "evt_2"]
        assert ids(inbox.claim(10, LEASE)) == ["evt_3", "evt_4"]

    def test_what_came_due_first_is_claimed_first(self, inbox, clock):
        add_settled(inbox, "evt_retried", Status.FAILED, retry_in=30.0)
        clock.advance(10)
        add(inbox, "evt_younger")
        clock.advance(50)
        assert [claim_one(inbox).event.id for _ in range(2)] == ["evt_younger", "evt_retried"]

    @pytest.mark.parametrize("limit", [1, 3])
    def test_no_more_is_claimed_than_was_asked_for(self, inbox, limit):
        for number in range(5):
            add(inbox, f"evt_{number}")
        assert len(inbox.claim(limit, LEASE)) == limit
        assert inbox.stats().by_status[Status.PROCESSING] == limit

    def test_what_is_claimed_is_not_claimed_again_while_the_lease_holds(self, inbox, clock):
        add(inbox)
        claim_one(inbox)
        clock.advance(LEASE - 0.001)
        assert inbox.claim(10, LEASE) == []

    def test_a_lease_that_runs_out_lets_another_take_the_event_and_counts_a_crash(self, inbox, clock):
        add(inbox)
        first = claim_one(inbox)
        for crashes in (1, 2, 3):
            clock.advance(LEASE)
            again = claim_one(inbox)
            assert (again.crashes, again.attempts) == (crashes, 0)
            assert again.token != first.token
        assert inbox.get("evt_1").crashes == 3

    def test_crashes_are_kept_over_a_failed_attempt(self, inbox, clock):
        add(inbox)
        claim_one(inbox)
        clock.advance(LEASE)
        settle(inbox, claim_one(inbox), Status.FAILED, retry_in=0.0)
        again = claim_one(inbox)
        assert (again.crashes, again.attempts) == (1, 1)

    def test_a_retry_is_not_claimed_before_its_time(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=2.0)
        clock.advance(1.999)
        assert inbox.claim(10, LEASE) == []
        clock.advance(0.001)
        assert ids(inbox.claim(10, LEASE)) == ["evt_1"]

    def test_many_workers_at_once_never_claim_one_event_twice(self, inbox):
        for future in [inbox.add(entry(f"evt_{number}")) for number in range(60)]:
            future.result(PATIENCE)
        start = threading.Barrier(6)

        def work(_: int) -> list[str]:
            start.wait(PATIENCE)
            taken = []
            # What another worker has locked for a moment is passed over, so one empty answer is not the end.
            while inbox.stats().by_status[Status.RECEIVED]:
                taken += ids(inbox.claim(4, LEASE))
            return taken

        with ThreadPoolExecutor(6) as pool:
            taken = [id for found in pool.map(work, range(6)) for id in found]
        assert sorted(taken) == sorted(f"evt_{number}" for number in range(60))

    # Leases

    def test_a_renewed_lease_holds_from_now(self, inbox, clock):
        add(inbox)
        claim = claim_one(inbox)
        clock.advance(40)
        inbox.renew([claim], LEASE)
        assert inbox.seconds_until_due() == LEASE
        clock.advance(LEASE - 0.001)
        assert inbox.claim(10, LEASE) == []
        clock.advance(0.001)
        assert claim_one(inbox).crashes == 1

    def test_a_whole_batch_is_renewed(self, inbox, clock):
        for number in range(3):
            add(inbox, f"evt_{number}")
        claims = inbox.claim(10, LEASE)
        clock.advance(40)
        inbox.renew(claims, LEASE)
        clock.advance(40)
        assert inbox.claim(10, LEASE) == []

    def test_renewing_nothing_is_nothing(self, inbox):
        add(inbox)
        inbox.renew([], LEASE)
        assert inbox.seconds_until_due() == 0

    def test_a_lease_that_has_run_out_but_passed_to_nobody_can_still_settle(self, inbox, clock):
        add(inbox)
        claim = claim_one(inbox)
        clock.advance(LEASE + 5)
        assert inbox.record(claim, DONE) is True
        assert settle(inbox, claim) is True
        assert status_of(inbox, "evt_1") is Status.PROCESSED

    def test_a_lost_lease_can_neither_renew_nor_record_nor_settle(self, inbox, clock):
        add(inbox)
        lost = claim_one(inbox)
        clock.advance(LEASE)
        holder = claim_one(inbox)
        before = inbox.get("evt_1")
        inbox.renew([lost], 10 * LEASE)
        assert inbox.record(lost, DONE) is False
        assert settle(inbox, lost) is False
        assert inbox.get("evt_1") == before
        assert inbox.record(holder, DONE) is True
        assert settle(inbox, holder) is True

    def test_one_lease_among_several_is_lost_alone(self, inbox, clock):
        add(inbox, "evt_lost")
        lost = claim_one(inbox, lease=10)
        add(inbox, "evt_kept")
        kept = claim_one(inbox, lease=100)
        clock.advance(20)
        claim_one(inbox, lease=50)
        inbox.renew([lost, kept], 1000)
        assert inbox.get("evt_lost").next_attempt_at == clock.moment(50)
        assert inbox.get("evt_kept").next_attempt_at == clock.moment(1000)

    def test_what_was_settled_cannot_be_settled_again(self, inbox):
        add(inbox)
        claim = claim_one(inbox)
        assert settle(inbox, claim) is True
        assert settle(inbox, claim, Status.DEAD) is False
        assert inbox.record(claim, DONE) is False
        inbox.renew([claim], LEASE)
        record = inbox.get("evt_1")
        assert (record.status, record.next_attempt_at) == (Status.PROCESSED, None)

    def test_a_claim_given_back_costs_neither_an_attempt_nor_a_crash(self, inbox):
        add(inbox)
        claim = claim_one(inbox)
        assert settle(inbox, claim, Status.RECEIVED, attempts=0, retry_in=0.0)
        again = claim_one(inbox)
        assert (again.attempts, again.crashes, again.event.id) == (0, 0, "evt_1")

    # Settling

    @pytest.mark.parametrize("status", [Status.PROCESSED, Status.IGNORED, Status.DEAD])
    def test_a_finished_event_is_never_due_again(self, inbox, clock, status):
        add(inbox)
        claim = claim_one(inbox)
        clock.advance(7)
        assert settle(inbox, claim, status, progress=DONE, error="it went wrong")
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.last_error) == (status, 1, "it went wrong")
        assert (record.next_attempt_at, record.settled_at) == (None, clock.moment())
        assert dict(record.progress) == DONE
        clock.advance(1e8)
        assert inbox.claim(10, LEASE) == []
        assert inbox.seconds_until_due() is None

    def test_a_failed_event_says_when_it_is_tried_again(self, inbox, clock):
        add(inbox)
        clock.advance(1)
        settle(inbox, claim_one(inbox), Status.FAILED, retry_in=2.5, progress=MIXED, error="no route")
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.last_error) == (Status.FAILED, 1, "no route")
        assert (record.next_attempt_at, record.settled_at) == (clock.moment(2.5), None)
        assert inbox.seconds_until_due() == 2.5
        clock.advance(2.5)
        claim = claim_one(inbox)
        assert (claim.attempts, dict(claim.progress)) == (1, MIXED)

    def test_a_success_clears_the_last_error(self, inbox):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=0.0, error="no route")
        settle(inbox, claim_one(inbox))
        assert inbox.get("evt_1").last_error is None

    def test_progress_recorded_during_an_attempt_survives_a_crash(self, inbox, clock):
        add(inbox)
        assert inbox.record(claim_one(inbox), MIXED) is True
        assert dict(inbox.get("evt_1").progress) == MIXED
        clock.advance(LEASE)
        again = claim_one(inbox)
        assert dict(again.progress) == MIXED
        assert all(isinstance(became, HandlerStatus) for became in again.progress.values())

    def test_names_of_handlers_are_kept_as_they_are(self, inbox):
        progress = {'Größe "quoted" \\ <locals>.handler': HandlerStatus.DONE, "x" * 300: HandlerStatus.GIVEN_UP}
        add(inbox)
        assert inbox.record(claim_one(inbox), progress)
        assert dict(inbox.get("evt_1").progress) == progress

    # Settling several

    def test_several_are_settled_at_once_each_in_its_own_way(self, inbox, clock):
        for number in range(5):
            add(inbox, f"evt_{number}")
        claims = inbox.claim(5, LEASE)
        settlements = [
            Settlement(Status.PROCESSED, 1, DONE),
            Settlement(Status.FAILED, 2, MIXED, retry_in=2.5, error="no route"),
            Settlement(Status.DEAD, 3, error="out of ideas"),
            Settlement(Status.IGNORED, 1),
            Settlement(Status.RECEIVED, 0, retry_in=0.0),
        ]
        assert inbox.settle_all(list(zip(claims, settlements, strict=True))) == [True] * 5
        for number, settlement in enumerate(settlements):
            record = inbox.get(f"evt_{number}")
            assert (record.status, record.attempts) == (settlement.status, settlement.attempts)
            assert (dict(record.progress), record.last_error) == (settlement.progress, settlement.error)
            again = None if settlement.retry_in is None else clock.moment(settlement.retry_in)
            assert record.next_attempt_at == again
            assert record.settled_at == (clock.moment() if settlement.status in FINISHED else None)
        assert ids(inbox.claim(10, LEASE)) == ["evt_4"]

    def test_one_lost_among_several_is_lost_alone(self, inbox, clock):
        add(inbox, "evt_1")
        lost = claim_one(inbox, lease=10)
        clock.advance(10)
        holder = claim_one(inbox)
        for number in (2, 3):
            add(inbox, f"evt_{number}")
        others = inbox.claim(2, LEASE)
        before = inbox.get("evt_1")
        mixed = [others[0], lost, others[1]]
        assert inbox.settle_all([(claim, Settlement(Status.PROCESSED, 1)) for claim in mixed]) == [True, False, True]
        assert inbox.get("evt_1") == before
        assert [status_of(inbox, f"evt_{number}") for number in (2, 3)] == [Status.PROCESSED] * 2
        assert inbox.settle_all([(holder, Settlement(Status.PROCESSED, 1))]) == [True]

    def test_of_one_claim_only_the_first_settlement_counts(self, inbox):
        add(inbox)
        claim = claim_one(inbox)
        settlements = [(claim, Settlement(Status.PROCESSED, 1)), (claim, Settlement(Status.DEAD, 2))]
        assert inbox.settle_all(settlements) == [True, False]
        assert status_of(inbox, "evt_1") is Status.PROCESSED

    def test_settling_none_is_nothing(self, inbox):
        add(inbox)
        assert inbox.settle_all([]) == []
        assert status_of(inbox, "evt_1") is Status.RECEIVED

    def test_as_many_are_settled_as_can_be_claimed(self, inbox):
        for future in [inbox.add(entry(f"evt_{number}")) for number in range(120)]:
            future.result(PATIENCE)
        claims = inbox.claim(120, LEASE)
        assert inbox.settle_all([(claim, Settlement(Status.PROCESSED, 1)) for claim in claims]) == [True] * 120
        assert inbox.stats().by_status[Status.PROCESSED] == 120

    # Pausing

    def test_at_first_nothing_is_paused(self, inbox):
        assert inbox.paused() == frozenset()

    def test_what_is_paused_stays_so_until_it_is_resumed(self, inbox):
        inbox.pause("welcome")
        inbox.pause("bill")
        inbox.pause("welcome")
        assert inbox.paused() == {"welcome", "bill"}
        assert isinstance(inbox.paused(), frozenset)
        inbox.resume("welcome")
        assert inbox.paused() == {"bill"}
        inbox.resume("welcome")
        inbox.resume("never paused")
        assert inbox.paused() == {"bill"}

    def test_any_text_can_be_paused(self, inbox):
        subjects = {"", "*", "a", "A", "a ", " a", "\u00e9", "e\u0301", "'\"\\%_", "🎉\n\t", "é" * 300, "é" * 299 + "e"}
        for subject in sorted(subjects):
            inbox.pause(subject)
        assert inbox.paused() == subjects
        for subject in sorted(subjects):
            inbox.resume(subject)
            subjects = subjects - {subject}
            assert inbox.paused() == subjects

    def test_pausing_changes_no_event(self, inbox):
        add(inbox)
        before = inbox.get("evt_1")
        inbox.pause("*")
        inbox.pause("user.created")
        assert inbox.get("evt_1") == before
        assert inbox.seconds_until_due() == 0
        assert ids(inbox.claim(10, LEASE)) == ["evt_1"]

    # Until when

    def test_seconds_until_due_goes_by_what_is_due_first(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=30.0)
        add(inbox, "evt_2")
        claim_one(inbox, lease=20)
        assert inbox.seconds_until_due() == 20
        add(inbox, "evt_3")
        clock.advance(3)
        assert inbox.seconds_until_due() == -3

    def test_seconds_until_due_may_leave_out_what_is_due_by_a_moment(self, inbox, clock):
        assert inbox.seconds_until_due(later_than=0.0) is None
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=30.0)
        add(inbox, "evt_2")
        clock.advance(3)
        add(inbox, "evt_3")
        assert inbox.seconds_until_due(later_than=-3.5) == -3
        assert inbox.seconds_until_due(later_than=-2.5) == 0
        assert inbox.seconds_until_due(later_than=0.0) == 27
        assert inbox.seconds_until_due(later_than=27.0) is None

    # Looking

    def test_an_event_that_is_not_there_is_none(self, inbox):
        assert inbox.get("evt_nowhere") is None
        assert inbox.list() == []

    def test_get_without_a_tenant_finds_the_newest_of_that_id(self, inbox):
        add(inbox, tenant="older")
        add(inbox, tenant="newer")
        assert inbox.get("evt_1").tenant == "newer"

    def test_lists_are_newest_first_and_filtered(self, inbox):
        add_settled(inbox, "evt_1", Status.PROCESSED)
        add_settled(inbox, "evt_2", Status.DEAD, type="user.deleted")
        add_settled(inbox, "evt_3", Status.DEAD)
        add(inbox, "evt_4", "user.deleted")
        assert ids(inbox.list()) == ["evt_4", "evt_3", "evt_2", "evt_1"]
        assert ids(inbox.list(limit=2)) == ["evt_4", "evt_3"]
        assert ids(inbox.list(status=Status.DEAD)) == ids(inbox.list(status="dead")) == ["evt_3", "evt_2"]
        assert ids(inbox.list(type="user.deleted")) == ["evt_4", "evt_2"]
        assert ids(inbox.list(status="dead", type="user.deleted")) == ["evt_2"]
        with pytest.raises(ValueError, match="lost"):
            inbox.list(status="lost")

    def test_stats_name_every_status(self, inbox, clock):
        assert inbox.stats().by_status == dict.fromkeys(Status, 0)
        assert inbox.stats().overdue == 0
        for number, status in enumerate((Status.PROCESSED, Status.IGNORED, Status.DEAD)):
            add_settled(inbox, f"evt_{number}", status)
        add_settled(inbox, "evt_failed", Status.FAILED, retry_in=100.0)
        add(inbox, "evt_processing")
        claim_one(inbox)
        add(inbox, "evt_received")
        assert inbox.stats().by_status == dict.fromkeys(Status, 1)
        assert inbox.stats().total == 6
        clock.advance(4)
        assert inbox.stats().overdue == 4

    def test_what_is_not_due_yet_is_not_overdue(self, inbox):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=100.0)
        assert inbox.stats().overdue == 0

    # Requeuing

    @pytest.mark.parametrize("status", [Status.DEAD, Status.IGNORED, Status.FAILED])
    def test_a_requeued_event_has_all_its_attempts_before_it(self, inbox, clock, status):
        retry_in = 500.0 if status is Status.FAILED else None
        add_settled(inbox, "evt_1", status, attempts=3, progress=MIXED, retry_in=retry_in)
        clock.advance(9)
        assert inbox.requeue("evt_1") == 1
        record = inbox.get("evt_1")
        assert (record.status, record.attempts, record.crashes) == (Status.RECEIVED, 0, 0)
        assert (record.next_attempt_at, record.settled_at) == (clock.moment(), None)
        assert dict(record.progress) == DONE
        assert claim_one(inbox).event.id == "evt_1"

    def test_requeuing_forgets_crashes(self, inbox, clock):
        add(inbox)
        claim_one(inbox)
        clock.advance(LEASE)
        settle(inbox, claim_one(inbox), Status.DEAD)
        assert inbox.get("evt_1").crashes == 1
        inbox.requeue("evt_1")
        assert claim_one(inbox).crashes == 0

    def test_what_waits_is_in_work_or_succeeded_is_not_requeued(self, inbox):
        add_settled(inbox, "evt_processed", Status.PROCESSED)
        add(inbox, "evt_processing")
        claim_one(inbox)
        add(inbox, "evt_received")
        for id in ("evt_processed", "evt_processing", "evt_received", "evt_nowhere"):
            assert inbox.requeue(id) == 0
        assert status_of(inbox, "evt_processed") is Status.PROCESSED
        assert status_of(inbox, "evt_processing") is Status.PROCESSING

    def test_requeuing_by_status_and_type(self, inbox):
        add_settled(inbox, "evt_1", Status.DEAD)
        add_settled(inbox, "evt_2", Status.DEAD, type="auth.login")
        add_settled(inbox, "evt_3", Status.IGNORED)
        add_settled(inbox, "evt_4", Status.IGNORED, type="auth.login")
        assert inbox.requeue(status="ignored", type="auth.login") == 1
        assert ids(inbox.list(status="received")) == ["evt_4"]
        progress = []
        assert inbox.requeue(status=Status.DEAD, on_progress=progress.append) == 2
        assert progress == [2]
        assert inbox.requeue(type="user.created") == 1
        assert inbox.stats().by_status[Status.RECEIVED] == 4

    def test_requeuing_for_one_tenant(self, inbox):
        for tenant in ("acme", "zenith"):
            add(inbox, tenant=tenant)
            settle(inbox, claim_one(inbox), Status.DEAD)
        assert inbox.requeue("evt_1", tenant="acme") == 1
        assert status_of(inbox, "evt_1", "acme") is Status.RECEIVED
        assert status_of(inbox, "evt_1", "zenith") is Status.DEAD

    def test_requeuing_needs_a_name_and_a_status_that_can_be(self, inbox):
        add_settled(inbox, "evt_1", Status.DEAD)
        for wrong in ({}, {"tenant": ""}, {"status": "processed"}, {"status": "processing"}, {"status": "lost"}):
            with pytest.raises(ValueError):  # noqa: PT011 - any text
                inbox.requeue(**wrong)
        assert status_of(inbox, "evt_1") is Status.DEAD

    # Pruning

    def test_pruning_deletes_what_was_settled_long_enough_ago(self, inbox, clock):
        add_settled(inbox, "evt_old", Status.PROCESSED)
        clock.advance(3600)
        add_settled(inbox, "evt_new", Status.PROCESSED)
        clock.advance(1)
        assert inbox.prune(timedelta(hours=2)) == 0
        assert inbox.prune(timedelta(hours=1)) == 1
        assert ids(inbox.list()) == ["evt_new"]
        assert add(inbox, "evt_old") is Added.NEW

    def test_age_counts_from_the_settling_not_from_the_arrival(self, inbox, clock):
        add(inbox)
        clock.advance(7200)
        settle(inbox, claim_one(inbox))
        assert inbox.prune(timedelta(hours=1)) == 0

    def test_pruning_spares_what_is_unfinished_or_dead(self, inbox, clock):
        add_settled(inbox, "evt_processed", Status.PROCESSED)
        add_settled(inbox, "evt_ignored", Status.IGNORED)
        add_settled(inbox, "evt_dead", Status.DEAD)
        add_settled(inbox, "evt_failed", Status.FAILED, retry_in=1e6)
        add(inbox, "evt_processing")
        claim_one(inbox, lease=1e6)
        add(inbox, "evt_received")
        clock.advance(1e5)
        assert inbox.prune(timedelta(seconds=1)) == 2
        assert inbox.prune(timedelta(seconds=1), (Status.DEAD,)) == 1
        assert sorted(ids(inbox.list())) == ["evt_failed", "evt_processing", "evt_received"]

    def test_pruning_takes_only_the_statuses_named(self, inbox, clock):
        add_settled(inbox, "evt_processed", Status.PROCESSED)
        add_settled(inbox, "evt_ignored", Status.IGNORED)
        clock.advance(100)
        assert inbox.prune(timedelta(seconds=1), ("ignored",)) == 1
        assert ids(inbox.list()) == ["evt_processed"]

    @pytest.mark.parametrize("status", ["received", "processing", "failed", "lost"])
    def test_only_finished_events_can_be_pruned(self, inbox, status):
        with pytest.raises(ValueError):  # noqa: PT011 - any text
            inbox.prune(timedelta(0), (status,))

    def test_a_requeued_event_is_not_pruned(self, inbox, clock):
        add_settled(inbox, "evt_1", Status.IGNORED)
        inbox.requeue("evt_1")
        clock.advance(1e6)
        assert inbox.prune(timedelta(seconds=1), ("ignored", "processed", "dead")) == 0

    def test_a_worker_whose_event_was_pruned_meanwhile_settles_nothing(self, inbox, clock):
        add(inbox)
        lost = claim_one(inbox)
        clock.advance(LEASE)
        settle(inbox, claim_one(inbox))
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1)) == 1
        assert inbox.record(lost, DONE) is False
        assert settle(inbox, lost) is False
        add(inbox)
        inbox.renew([lost], 1e6)
        assert settle(inbox, lost) is False
        assert inbox.seconds_until_due() == 0


class DurableInboxContract(InboxContract):
    """For an inbox that outlives its object, and is shared with others."""

    def refused_entry(self) -> NewEvent:
        """One that passes every check of ours, and that the database itself refuses."""
        event = Event(
            id="evt_refused",
            type="user.created",
            created=None,  # type: ignore[arg-type]
            data=EventData(b"{}"),
            webhook_id=None,
            body=b"{}",
        )
        return NewEvent(event)

    def test_an_event_that_the_database_refuses_fails_alone(self, inbox):
        add(inbox, "evt_before")
        entries = [entry("evt_1"), entry("evt_2"), self.refused_entry(), entry("evt_3"), entry("evt_before")]
        futures = [inbox.add(one) for one in entries]
        assert futures[2].exception(PATIENCE) is not None
        results = [futures[number].result(PATIENCE) for number in (0, 1, 3, 4)]
        assert results == [Added.NEW, Added.NEW, Added.NEW, Added.DUPLICATE]
        assert inbox.get("evt_refused") is None
        assert inbox.stats().total == 4
        assert add(inbox, "evt_after") is Added.NEW

    def test_another_object_sees_everything(self, inbox, make_inbox, clock):
        add_settled(inbox, "evt_1", Status.FAILED, retry_in=5.0, progress=MIXED, error="no route")
        add_settled(inbox, "evt_2", Status.DEAD)
        add(inbox, "evt_3", tenant="acme")
        claim_one(inbox)
        add(inbox, "evt_4")
        inbox.close()
        reopened = make_inbox(clock)
        assert reopened.list() == inbox.list()
        assert len(reopened.list()) == 4
        assert reopened.stats() == inbox.stats()
        assert ids(reopened.claim(10, LEASE)) == ["evt_4"]
        clock.advance(LEASE)
        found = {claim.event.id: claim for claim in reopened.claim(10, LEASE)}
        assert {id: (claim.attempts, claim.crashes) for id, claim in found.items()} == {
            "evt_1": (1, 0),
            "evt_3": (0, 1),
            "evt_4": (0, 1),
        }

    def test_a_claim_is_held_against_another_object(self, inbox, make_inbox, clock):
        other = make_inbox(clock)
        add(inbox)
        lost = claim_one(inbox)
        assert other.claim(10, LEASE) == []
        clock.advance(LEASE)
        holder = claim_one(other)
        assert settle(inbox, lost) is False
        assert settle(other, holder) is True
        assert status_of(inbox, "evt_1") is Status.PROCESSED

    def test_what_one_object_stored_is_a_duplicate_to_another(self, inbox, make_inbox, clock):
        add(inbox)
        assert add(make_inbox(clock)) is Added.DUPLICATE

    def test_another_name_is_another_inbox(self, inbox, make_inbox, clock):
        billing = make_inbox(clock, name="billing")
        assert add(inbox) is Added.NEW
        assert billing.get("evt_1") is None
        assert billing.seconds_until_due() is None
        assert billing.claim(10, LEASE) == []
        assert add(billing) is Added.NEW
        assert billing.stats().total == inbox.stats().total == 1
        settle(billing, claim_one(billing), Status.DEAD)
        assert inbox.requeue("evt_1") == inbox.requeue(status="dead") == 0
        clock.advance(100)
        assert inbox.prune(timedelta(0), ("dead",)) == 0
        assert status_of(inbox, "evt_1") is Status.RECEIVED
        assert status_of(billing, "evt_1") is Status.DEAD
        assert len(inbox.list()) == len(billing.list()) == 1

    def test_two_objects_that_add_the_same_events_at_once_store_each_once(self, inbox, make_inbox, clock):
        inboxes = [inbox, make_inbox(clock)]
        start = threading.Barrier(4)

        def deliver(worker: int) -> Counter:
            start.wait(PATIENCE)
            order = range(40) if worker % 2 else range(39, -1, -1)
            futures = [inboxes[worker // 2].add(entry(f"evt_{number}")) for number in order]
            return Counter(future.result(PATIENCE) for future in futures)

        with ThreadPoolExecutor(4) as pool:
            total = sum(pool.map(deliver, range(4)), Counter())
        assert total == {Added.NEW: 40, Added.DUPLICATE: 120}
        assert inbox.stats().total == 40

    def test_two_objects_that_claim_at_once_share_the_events(self, inbox, make_inbox, clock):
        inboxes = [inbox, make_inbox(clock)]
        for future in [inbox.add(entry(f"evt_{number}")) for number in range(40)]:
            future.result(PATIENCE)
        start = threading.Barrier(4)

        def work(worker: int) -> list[str]:
            start.wait(PATIENCE)
            taken = []
            while inboxes[worker % 2].stats().by_status[Status.RECEIVED]:
                taken += ids(inboxes[worker % 2].claim(3, LEASE))
            return taken

        with ThreadPoolExecutor(4) as pool:
            taken = [id for found in pool.map(work, range(4)) for id in found]
        assert sorted(taken) == sorted(f"evt_{number}" for number in range(40))

    def test_order_holds_between_two_objects(self, inbox, make_inbox, clock):
        other = make_inbox(clock)
        for number in range(2):
            add_about(inbox, "user_1", f"evt_{number}")
        (first,) = inbox.claim(10, LEASE, ORDERED)
        assert other.claim(10, LEASE, ORDERED) == []
        add_about(other, "user_1", "evt_older", later=-5)
        assert inbox.claim(10, LEASE, ORDERED) == []
        settle(inbox, first)
        (older,) = other.claim(10, LEASE, ORDERED)
        assert older.event.id == "evt_older"
        assert inbox.claim(10, LEASE, ORDERED) == []
        settle(other, older)
        assert ids(inbox.claim(10, LEASE, ORDERED)) == ["evt_1"]

    def test_objects_in_an_inbox_of_another_name_are_others(self, inbox, make_inbox, clock):
        billing = make_inbox(clock, name="billing")
        add_about(billing, "user_1", "evt_billing", later=9)
        add_about(inbox, "user_1", "evt_1")
        add_about(inbox, "user_1", "evt_2")
        (theirs,) = billing.claim(10, LEASE, ORDERED)
        (ours,) = inbox.claim(10, LEASE, ORDERED)
        assert settle(billing, theirs)
        assert inbox.newest_applied(ours) is None
        assert billing.newest_applied(theirs) == CREATED + 9
        clock.advance(10)
        assert inbox.prune(timedelta(seconds=1)) == 0
        assert billing.prune(timedelta(seconds=1)) == 1
        assert inbox.newest_applied(ours) is None
        assert inbox.prune_watermarks(timedelta(0)) == 0
        assert billing.newest_applied(theirs) == CREATED + 9
        assert billing.prune_watermarks(timedelta(0)) == 1

    def test_an_inbox_of_another_name_keeps_its_payloads(self, inbox, make_inbox, clock):
        billing = make_inbox(clock, name="billing")
        for one in (inbox, billing):
            add_about(one, "user_1", "evt_1")
            settle(one, claim_one(one))
        clock.advance(10)
        assert len(billing.list(object_id="user_1")) == 1
        assert billing.erase("user_1") == 1
        assert inbox.get("evt_1").scrubbed_at is None
        assert inbox.scrub(timedelta(seconds=1)) == 1
        assert billing.scrub(timedelta(seconds=1)) == 0

    def test_what_one_object_pauses_is_paused_for_all_of_its_name(self, inbox, make_inbox, clock):
        other, billing = make_inbox(clock), make_inbox(clock, name="billing")
        inbox.pause("welcome")
        other.pause("welcome")
        assert other.paused() == {"welcome"}
        assert billing.paused() == frozenset()
        billing.pause("welcome")
        other.resume("welcome")
        inbox.close()
        assert inbox.paused() == frozenset()
        assert make_inbox(clock, name="billing").paused() == {"welcome"}

    def test_what_was_pruned_and_erased_is_so_for_another_object(self, inbox, make_inbox, clock):
        add_about(inbox, "user_1", "evt_1", later=5)
        settle(inbox, claim_one(inbox), seconds=1.0, failures=(Failure("welcome", "no", "Traceback"),))
        clock.advance(10)
        inbox.prune(timedelta(seconds=1))
        add_about(inbox, "user_1", "evt_2")
        inbox.erase("user_1")
        other = make_inbox(clock)
        claim = claim_one(other)
        assert other.newest_applied(claim) == CREATED + 5
        settle(other, claim)
        assert inbox.get("evt_2").scrubbed_at == clock.moment()

    def test_an_older_event_that_arrives_amid_claims_is_not_held_beside_a_newer_one(self, inbox, make_inbox, clock):
        """A claim that is not committed yet cannot be seen, nor can an event that arrives after the claim began."""
        inboxes = [inbox, make_inbox(clock)]
        start, arrived = threading.Barrier(3), threading.Event()

        def arrive() -> None:
            start.wait(PATIENCE)
            for number in range(60):
                add_about(inbox, f"user_{number}", f"evt_newer_{number}", later=1)
                add_about(inbox, f"user_{number}", f"evt_older_{number}")
            arrived.set()

        def claim(worker: int) -> list[str]:
            start.wait(PATIENCE)
            taken, last = [], False
            while not last:
                last = arrived.is_set()
                taken += [one.event.object_id for one in inboxes[worker].claim(5, LEASE, ORDERED)]
            return taken

        with ThreadPoolExecutor(3) as pool:
            arriving = pool.submit(arrive)
            taken = [object_id for found in pool.map(claim, range(2)) for object_id in found]
            arriving.result(PATIENCE)
        assert max(Counter(taken).values()) == 1

    def test_workers_at_once_never_hold_two_events_of_one_object(self, inbox, make_inbox, clock):
        """Nor do they change their order, while every third attempt fails; meanwhile older events arrive."""
        objects = [f"user_{number}" for number in range(4)]
        for number in range(40):
            add_about(inbox, objects[number % 4], f"evt_{number:02}", later=number)
        work = OrderedWork([inbox, make_inbox(clock)], total=60)
        with ThreadPoolExecutor(5) as pool:
            workers = [pool.submit(work.run, worker) for worker in range(4)]
            for number in range(20):
                add_about(inbox, objects[number % 4], f"evt_older_{number:02}", later=-number)
            for worker in workers:
                worker.result(PATIENCE)
        assert work.twofold == []
        assert Counter(work.finished) == {record.event.id: 1 for record in inbox.list()}
        for object_id in objects:
            first_ones = [id for id in work.finished_of[object_id] if "older" not in id]
            assert first_ones == sorted(first_ones)
            assert len(work.finished_of[object_id]) == 15


class OrderedWork:
    """What several threads do with ordered events, and what they saw."""

    def __init__(self, inboxes: list[WorkerInbox], total: int) -> None:
        self.inboxes = inboxes
        self.total = total
        self.finished: list[str] = []
        self.finished_of: defaultdict[str, list[str]] = defaultdict(list)
        self.twofold: list[str] = []
        self._in_work: set[str] = set()
        self._lock = threading.Lock()

    def run(self, worker: int) -> None:
        inbox = self.inboxes[worker % len(self.inboxes)]
        deadline = time.monotonic() + PATIENCE
        while len(self.finished) < self.total and time.monotonic() < deadline:
            claims = inbox.claim(3, LEASE, ORDERED)
            self._begin(claims)
            for claim in claims:
                fails = claim.attempts == 0 and int(claim.event.id[-2:]) % 3 == 0
                self._end(claim, fails)
                status, retry_in = (Status.FAILED, 0.0) if fails else (Status.PROCESSED, None)
                assert settle(inbox, claim, status, retry_in=retry_in)

    def _begin(self, claims: list[Claim]) -> None:
        with self._lock:
            for claim in claims:
                if claim.event.object_id in self._in_work:
                    self.twofold.append(claim.event.id)
                self._in_work.add(claim.event.object_id)

    def _end(self, claim: Claim, fails: bool) -> None:
        with self._lock:
            self._in_work.discard(claim.event.object_id)
            if not fails:
                self.finished.append(claim.event.id)
                self.finished_of[claim.event.object_id].append(claim.event.id)
