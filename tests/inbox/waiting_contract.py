"""What every inbox does for processes that know different handlers: it lists them, and keeps what an event owes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from envoyou_core.inbox import Added, ClaimFilter, HandlerStatus, NewEvent, Status
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.processes import KEPT_FOR, SETS_KEPT_FOR, Process, ProcessKind
from envoyou_core.testing import sample_event
from tests.inbox.acts import LEASE, PATIENCE, add, add_about, add_settled, claim_one, ids, settle

BOTH = HandlerSet.of([("welcome", ["user.*"]), ("bill", ["user.created"])])
WELCOME = HandlerSet.of([("welcome", ["user.*"])])
BILL = HandlerSet.of([("bill", ["user.created"])])
BILL_OF_ANOTHER_TYPE = HandlerSet.of([("bill", ["auth.*"])])
DAY = 86_400.0


def process(clock, id="p1", kind=ProcessKind.WORKER, handlers=BOTH) -> Process:
    at = datetime.fromtimestamp(clock.now, UTC)
    return Process(id, kind, handlers, "web-1", 4711, "1.0", at, at, "boot", "pid:[1]", 99)


def claim_by(inbox, handlers, *, lease=LEASE, **values):
    return inbox.claim(10, lease, ClaimFilter(handlers=handlers, **values))


def let_wait(inbox, name="bill", *, retry_in=DAY, handlers=WELCOME):
    """Claim the only due event with `handlers`, and leave it to a process that knows `name`."""
    (claim,) = claim_by(inbox, handlers)
    assert settle(
        inbox,
        claim,
        Status.FAILED,
        retry_in=retry_in,
        error="no route",
        owed={name: True},
        waits_for=name,
        waits_since=claim.received_at,
    )


class WaitingContract:
    """For every inbox."""

    def test_processes_are_listed_until_they_are_gone_for_long(self, inbox, clock):
        first = process(clock)
        inbox.beat(first)
        clock.advance(1)
        accepting = process(clock, "p2", ProcessKind.ACCEPTS, WELCOME)
        inbox.beat(accepting)
        assert inbox.processes() == [accepting, first]
        clock.advance(9)
        inbox.beat(replace(first, kind=ProcessKind.DRAIN, handlers=BILL))
        seen = clock.moment()
        assert inbox.processes() == [
            replace(first, kind=ProcessKind.DRAIN, handlers=BILL, seen_at=seen),
            accepting,
        ]
        clock.advance(KEPT_FOR.total_seconds() - 1)
        assert inbox.prune_processes() == 1
        assert [one.id for one in inbox.processes()] == ["p1"]

    def test_a_handler_set_is_stored_before_a_row_refers_to_it(self, inbox, clock):
        entry = NewEvent(sample_event(id="evt_1"), handlers=BOTH, process=process(clock, kind=ProcessKind.ACCEPTS))
        assert inbox.add(entry).result(PATIENCE) is Added.NEW
        assert inbox.handler_sets({BOTH.id, "unknown"}) == {BOTH.id: BOTH}
        assert inbox.handler_sets({BOTH.id})[BOTH.id].handlers == BOTH.handlers
        assert [one.kind for one in inbox.processes()] == [ProcessKind.ACCEPTS]
        (claim,) = claim_by(inbox, WELCOME)
        assert (claim.accepted_set, claim.owed) == (BOTH.id, {})
        assert inbox.handler_sets([WELCOME.id]) == {WELCOME.id: WELCOME}

    def test_a_handler_set_is_kept_as_long_as_something_refers_to_it(self, inbox, clock):
        inbox.beat(process(clock, handlers=BILL))
        inbox.add(NewEvent(sample_event(id="evt_1"), handlers=BOTH)).result(PATIENCE)
        clock.advance(SETS_KEPT_FOR.total_seconds() + 1)
        inbox.prune_processes()
        assert inbox.handler_sets([BOTH.id, BILL.id]) == {BOTH.id: BOTH}
        settle(inbox, claim_one(inbox))
        inbox.prune_processes()
        assert inbox.handler_sets([BOTH.id, BILL.id]) == {}

    def test_an_event_remembers_what_it_owes(self, inbox):
        add(inbox)
        owed = {"bill": True, "mail": False}
        settle(inbox, claim_one(inbox), Status.FAILED, retry_in=0.0, owed=owed)
        claim = claim_one(inbox)
        assert claim.owed == owed
        settle(inbox, claim, Status.FAILED, retry_in=0.0)
        assert claim_one(inbox).owed == {}

    def test_a_takeover_owes_the_handlers_of_the_process_that_died(self, inbox, clock):
        add(inbox)
        (claim,) = claim_by(inbox, BOTH)
        assert inbox.record(claim, {"welcome": HandlerStatus.DONE})
        for crashes, handlers in enumerate([WELCOME, WELCOME], start=1):
            clock.advance(LEASE)
            (claim,) = claim_by(inbox, handlers)
            # Also after a second crash, of a process that does not know the handler.
            assert (claim.crashes, claim.owed) == (crashes, {"bill": True})

    def test_a_claim_that_takes_over_nothing_owes_nothing_of_the_one_before(self, inbox):
        add(inbox)
        (claim,) = claim_by(inbox, BOTH)
        settle(inbox, claim, Status.FAILED, retry_in=0.0)
        assert claim_by(inbox, WELCOME)[0].owed == {}

    def test_an_event_waits_for_a_process_that_knows_the_handler(self, inbox, clock):
        add(inbox)
        let_wait(inbox)
        record = inbox.get("evt_1")
        assert (record.waits_for, record.status, record.last_error) == ("bill", Status.FAILED, "no route")
        assert inbox.stats().waiting == {"bill": 1}
        assert (inbox.stats().overdue, inbox.seconds_until_due()) == (0, DAY)
        assert inbox.has_waiting()
        for handlers in (WELCOME, BILL_OF_ANOTHER_TYPE, HandlerSet.of(())):
            assert not inbox.has_waiting(handlers)
            assert claim_by(inbox, handlers, waiting=True) == claim_by(inbox, handlers) == []
        assert inbox.has_waiting(BILL)
        assert claim_by(inbox, BILL, waiting=True, exclude=("user.*",)) == []
        (claim,) = claim_by(inbox, BILL, waiting=True)
        assert (claim.owed, claim.crashes, claim.last_error) == ({"bill": True}, 0, "no route")
        assert claim.waits_since == claim.received_at
        assert (inbox.stats().waiting, inbox.has_waiting(), inbox.get("evt_1").waits_for) == ({}, False, None)
        assert claim_by(inbox, BILL, waiting=True) == []
        settle(inbox, claim)
        assert inbox.get("evt_1").waits_for is None

    def test_an_event_that_has_waited_long_enough_is_due_for_all(self, inbox, clock):
        add(inbox)
        let_wait(inbox, retry_in=10.0)
        clock.advance(10)
        (claim,) = claim_by(inbox, WELCOME)
        assert (claim.owed, claim.waits_since) == ({"bill": True}, claim.received_at)

    def test_a_long_name_is_waited_for_as_well(self, inbox):
        name = "b" * 300
        long = HandlerSet.of([(name, ["*"])])
        add(inbox)
        let_wait(inbox, name)
        assert inbox.has_waiting(long)
        assert ids(claim_by(inbox, long, waiting=True)) == ["evt_1"]

    def test_a_requeued_event_waits_no_longer(self, inbox):
        add(inbox)
        let_wait(inbox)
        add(inbox, "evt_2", "auth.login")
        assert inbox.requeue("evt_1", status=Status.DEAD) == 0
        assert inbox.requeue(type="user.created") == 1
        claims = {claim.event.id: claim for claim in claim_by(inbox, WELCOME)}
        assert (claims["evt_1"].owed, claims["evt_1"].waits_since) == ({"bill": True}, None)

    def test_a_requeued_event_owes_what_was_given_up(self, inbox):
        add(inbox)
        progress = {"welcome": HandlerStatus.DONE, "bill": HandlerStatus.GIVEN_UP}
        settle(inbox, claim_one(inbox), Status.DEAD, progress=progress, owed={"mail": False})
        assert inbox.requeue("evt_1") == 1
        assert claim_one(inbox).owed == {"mail": False, "bill": True}

    def test_a_handler_that_is_dropped_is_not_owed_any_more(self, inbox):
        add(inbox)
        progress = {"welcome": HandlerStatus.DONE, "mail": HandlerStatus.GIVEN_UP}
        owed = {"bill": True, "log": False}
        settle(inbox, claim_one(inbox), Status.DEAD, progress=progress, owed=owed)
        assert inbox.get("evt_1").owed == owed
        assert inbox.requeue("evt_1", drop_handlers=["bill", "mail", "welcome", "unknown"]) == 1
        claim = claim_one(inbox)
        dropped = dict.fromkeys(("bill", "mail"), HandlerStatus.DROPPED)
        assert (claim.owed, claim.progress) == ({"log": False}, {"welcome": HandlerStatus.DONE, **dropped})
        # Not after another requeue either.
        settle(inbox, claim, Status.DEAD, progress=claim.progress, owed=claim.owed)
        assert inbox.requeue("evt_1") == 1
        assert claim_one(inbox).progress == claim.progress

    def test_only_the_events_that_owe_a_dropped_handler_are_requeued(self, inbox):
        add_settled(inbox, "evt_ignored", Status.IGNORED)
        add_settled(inbox, "evt_other", Status.DEAD, owed={"mail": True})
        add_settled(inbox, "evt_done", Status.DEAD, progress={"bill": HandlerStatus.DONE})
        add_settled(inbox, "evt_dead", Status.DEAD, owed={"bill": True})
        add(inbox)
        let_wait(inbox)
        assert inbox.requeue("evt_other", drop_handlers=["bill"]) == 0
        assert inbox.requeue(status=Status.IGNORED, drop_handlers=["bill"]) == 0
        assert inbox.requeue(drop_handlers=["bill"], dry_run=True) == 2
        assert inbox.requeue(drop_handlers=["bill"]) == 2
        assert sorted(ids(claim_by(inbox, HandlerSet.of(())))) == ["evt_1", "evt_dead"]
        with pytest.raises(ValueError, match="drop_handlers must be a list of handler names, got 'bill'"):
            inbox.requeue("evt_other", drop_handlers="bill")
        with pytest.raises(ValueError, match="or a handler to drop"):
            inbox.requeue(drop_handlers=[])

    def test_an_event_that_waits_for_another_process_does_not_hold_up_its_successors(self, inbox, clock):
        add_about(inbox, "user_1", "evt_1", type="user.created")
        let_wait(inbox)
        add_about(inbox, "user_1", "evt_2", type="user.created", later=1)
        # The process that knows the handler takes the first one first.
        assert claim_by(inbox, BILL, ordered=("*",)) == []
        (second,) = claim_by(inbox, WELCOME, ordered=("*",))
        assert second.event.id == "evt_2"
        assert claim_by(inbox, BILL, ordered=("*",), waiting=True) == []
        settle(inbox, second, Status.FAILED, retry_in=DAY, owed={"bill": True}, waits_for="bill")
        (first,) = claim_by(inbox, BILL, ordered=("*",), waiting=True)
        assert first.event.id == "evt_1"
        settle(inbox, first)
        assert ids(claim_by(inbox, BILL, ordered=("*",), waiting=True)) == ["evt_2"]

    def test_an_event_that_returns_to_the_inbox_still_owes(self, inbox):
        add(inbox)
        let_wait(inbox)
        (claim,) = claim_by(inbox, BILL, waiting=True)
        settle(inbox, claim, Status.RECEIVED, retry_in=0.0, owed=claim.owed, waits_since=claim.waits_since)
        claim = claim_one(inbox)
        assert (claim.owed, claim.waits_since) == ({"bill": True}, claim.received_at)
