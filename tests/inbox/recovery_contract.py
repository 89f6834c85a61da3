"""What every inbox does for the recovery of what a process held that is gone: it names the holder, and ends leases."""

from datetime import UTC, datetime

from envoyou_core.inbox import ClaimFilter, HandlerSet, Process, ProcessKind, Status
from tests.inbox.acts import LEASE, add, ids, settle, status_of

HANDLERS = HandlerSet.of([("welcome", ["user.*"])])
GONE, LIVE = "a" * 32, "a" * 11 + "b" * 21


def list_process(inbox, clock, id) -> Process:
    at = datetime.fromtimestamp(clock.now, UTC)
    process = Process(id, ProcessKind.WORKER, HANDLERS, "web-1", 4711, "1.0", at, at, "boot", "pid:[1]", 99)
    inbox.beat(process)
    return process


def claim_as(inbox, process_id, limit=1):
    return inbox.claim(limit, LEASE, ClaimFilter(handlers=HANDLERS, process_id=process_id))


class RecoveryContract:
    """For every inbox."""

    def test_ended_leases_are_taken_over_at_once_and_count_a_crash(self, inbox, clock):
        add(inbox)
        (lost,) = claim_as(inbox, GONE)
        assert claim_as(inbox, LIVE) == []
        assert inbox.end_leases([GONE]) == 1
        assert inbox.seconds_until_due() == 0
        (claim,) = claim_as(inbox, LIVE)
        assert (claim.event.id, claim.crashes, len(claim.history)) == ("evt_1", 1, 1)
        # As if the lease had expired: it is lost for a process that is not gone after all.
        assert not settle(inbox, lost)
        assert settle(inbox, claim)

    def test_only_the_leases_of_the_given_processes_end(self, inbox, make_inbox, clock):
        for id in ("evt_1", "evt_2", "evt_3", "evt_4"):
            add(inbox, id)
        claim_as(inbox, GONE)
        claim_as(inbox, LIVE)
        # By a process that is not listed.
        claim_as(inbox, None)
        other = make_inbox(clock, name="billing")
        other.open()
        add(other)
        claim_as(other, GONE)
        (failed,) = claim_as(inbox, GONE)
        assert settle(inbox, failed, Status.FAILED, retry_in=LEASE)
        assert inbox.end_leases([]) == 0
        assert inbox.end_leases([GONE, "f" * 32]) == 1
        assert inbox.end_leases([GONE]) == 0
        assert ids(claim_as(inbox, LIVE, limit=9)) == ["evt_1"]
        assert claim_as(other, LIVE) == []
        assert status_of(inbox, "evt_4") is Status.FAILED

    def test_the_holders_of_valid_leases_are_known(self, inbox, clock):
        gone, live = (list_process(inbox, clock, id) for id in (GONE, LIVE))
        assert inbox.lease_holders() == []
        for id in ("evt_1", "evt_2", "evt_3", "evt_4"):
            add(inbox, id)
        claim_as(inbox, None)
        assert inbox.lease_holders() == []
        claims = claim_as(inbox, LIVE, limit=2)
        assert inbox.lease_holders() == [live]
        claim_as(inbox, GONE)
        assert {process.id: process for process in inbox.lease_holders()} == {GONE: gone, LIVE: live}
        inbox.end_leases([GONE])
        assert inbox.lease_holders() == [live]
        for claim in claims:
            settle(inbox, claim)
        assert inbox.lease_holders() == []
        clock.advance(LEASE)
        claim_as(inbox, GONE)
        assert inbox.lease_holders() == [gone]

    def test_the_holder_of_a_lease_may_be_another_after_it_expired(self, inbox, clock):
        list_process(inbox, clock, GONE)
        add(inbox)
        claim_as(inbox, GONE)
        clock.advance(LEASE)
        assert inbox.lease_holders() == []
        (claim,) = claim_as(inbox, LIVE)
        assert inbox.end_leases([GONE]) == 0
        assert settle(inbox, claim)

    def test_expired_leases_can_be_extended(self, inbox, make_inbox, clock):
        for id in ("evt_1", "evt_2"):
            add(inbox, id)
        other = make_inbox(clock, name="billing")
        other.open()
        add(other)
        claim_as(other, LIVE)
        (held,) = claim_as(inbox, LIVE)
        assert inbox.extend_leases(LEASE) == 0
        clock.advance(LEASE)
        assert inbox.extend_leases(2.5) == 1
        assert ids(claim_as(inbox, GONE, limit=9)) == ["evt_2"]
        assert inbox.seconds_until_due() == 2.5
        assert ids(claim_as(other, GONE)) == ["evt_1"]
        assert settle(inbox, held)

    def test_a_crash_that_was_none_can_be_taken_back(self, inbox, clock):
        add(inbox)
        (lost,) = claim_as(inbox, LIVE)
        assert not inbox.uncount_crash(lost)
        crashes = []
        for _ in range(2):
            clock.advance(LEASE)
            (claim,) = claim_as(inbox, GONE)
            crashes.append(claim.crashes)
        assert crashes == [1, 2]
        assert inbox.uncount_crash(lost)
        assert inbox.get("evt_1").crashes == 1
        assert not inbox.uncount_crash(claim)
        assert settle(inbox, claim)
        assert inbox.get("evt_1").crashes == 1
