"""Every inbox against a plain model of what it must do, driven at random."""

import itertools
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from envoyou_core.inbox import FINISHED, REQUEUABLE, Added, Entry, Progress, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.schema import inbox_table
from envoyou_core.testing import sample_event
from tests.inbox_contract import PATIENCE, HandClock

IDS = ("evt_a", "EVT_A", "evt_b ", "evt_é")
TENANTS = ("", "acme")
TYPES = ("user.created", "auth.login")
SECONDS = st.sampled_from([0, 1, 5, 30, 90])
PROGRESS = st.dictionaries(st.sampled_from(["welcome", "bill"]), st.sampled_from(list(Progress)))
LEASE = 30


@dataclass
class Row:
    """What the model remembers of an event."""

    number: int
    tenant: str
    id: str
    type: str
    due: float | None
    status: Status = Status.RECEIVED
    attempts: int = 0
    crashes: int = 0
    progress: dict = field(default_factory=dict)
    settled: float | None = None
    holder: object = None

    def arm(self, now):
        self.status, self.attempts, self.crashes = Status.RECEIVED, 0, 0
        self.progress = {name: became for name, became in self.progress.items() if became is Progress.DONE}
        self.due, self.settled = now, None


class InboxMachine(RuleBasedStateMachine):
    """Adds, claims, crashes, settles, requeues and prunes, in any order."""

    claims = Bundle("claims")

    def make_inbox(self, clock):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.clock = HandClock()
        self.inbox = self.make_inbox(self.clock)
        self.rows = {}
        self.numbers = itertools.count()

    @rule(id=st.sampled_from(IDS), tenant=st.sampled_from(TENANTS), type=st.sampled_from(TYPES))
    def add(self, id, tenant, type):
        added = self.inbox.add(Entry(sample_event(type, id=id), tenant)).result(PATIENCE)
        row = self.rows.get((tenant, id))
        if row is None:
            assert added is Added.NEW
            self.rows[tenant, id] = Row(next(self.numbers), tenant, id, type, self.clock.now)
        elif row.status is Status.DEAD:
            assert added is Added.REARMED
            row.arm(self.clock.now)
        else:
            assert added is Added.DUPLICATE

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit):
        due = [row for row in self.rows.values() if row.due is not None and row.due <= self.clock.now]
        expected = sorted(due, key=lambda row: (row.due, row.number))[:limit]
        taken = self.inbox.claim(limit, LEASE)
        assert {(claim.tenant, claim.event.id) for claim in taken} == {(row.tenant, row.id) for row in expected}
        assert len(taken) == len(expected)
        for claim in taken:
            row = self.rows[claim.tenant, claim.event.id]
            row.crashes += row.status is Status.PROCESSING
            row.status, row.due, row.holder = Status.PROCESSING, self.clock.now + LEASE, (claim.key, claim.token)
            assert (claim.attempts, claim.crashes, dict(claim.progress)) == (row.attempts, row.crashes, row.progress)
            assert claim.event.type == row.type
        return multiple(*taken)

    def held(self, claim):
        row = self.rows.get((claim.tenant, claim.event.id))
        return row if row is not None and row.holder == (claim.key, claim.token) else None

    @rule(claim=claims, progress=PROGRESS)
    def record(self, claim, progress):
        row = self.held(claim)
        assert self.inbox.record(claim, progress) is (row is not None)
        if row:
            row.progress = progress

    @rule(
        claim=claims,
        status=st.sampled_from([Status.PROCESSED, Status.IGNORED, Status.DEAD, Status.FAILED, Status.RECEIVED]),
        progress=PROGRESS,
        retry_in=SECONDS,
    )
    def settle(self, claim, status, progress, retry_in):
        row = self.held(claim)
        again = None if status in FINISHED else retry_in
        settlement = Settlement(status, claim.attempts + 1, progress, again)
        assert self.inbox.settle(claim, settlement) is (row is not None)
        if row:
            row.status, row.attempts, row.progress, row.holder = status, claim.attempts + 1, progress, None
            row.due = None if again is None else self.clock.now + again
            row.settled = self.clock.now if status in FINISHED else None

    @rule(claim=claims, lease=SECONDS)
    def renew(self, claim, lease):
        self.inbox.renew([claim], lease)
        if row := self.held(claim):
            row.due = self.clock.now + lease

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(
        id=st.none() | st.sampled_from(IDS),
        status=st.none() | st.sampled_from(sorted(REQUEUABLE)),
        type=st.none() | st.sampled_from(TYPES),
        tenant=st.none() | st.sampled_from(TENANTS),
    )
    def requeue(self, id, status, type, tenant):
        if id is None and status is None and type is None:
            return
        found = [
            row
            for row in self.rows.values()
            if row.status in (REQUEUABLE if status is None else {status})
            and id in {None, row.id}
            and type in {None, row.type}
            and tenant in {None, row.tenant}
        ]
        assert self.inbox.requeue(id, status=status, type=type, tenant=tenant) == len(found)
        for row in found:
            row.arm(self.clock.now)

    @rule(age=SECONDS, statuses=st.sets(st.sampled_from(sorted(FINISHED)), min_size=1))
    def prune(self, age, statuses):
        old = [
            key
            for key, row in self.rows.items()
            if row.status in statuses and row.settled is not None and row.settled < self.clock.now - age
        ]
        assert self.inbox.prune(timedelta(seconds=age), tuple(statuses)) == len(old)
        for key in old:
            del self.rows[key]

    @invariant()
    def it_holds_what_the_model_holds(self):
        if not hasattr(self, "rows"):
            return
        newest_first = sorted(self.rows.values(), key=lambda row: -row.number)
        found = self.inbox.list()
        assert [
            (one.tenant, one.event.id, one.event.type, one.status, one.attempts, one.crashes, dict(one.progress))
            for one in found
        ] == [
            (row.tenant, row.id, row.type, row.status, row.attempts, row.crashes, row.progress) for row in newest_first
        ]
        assert [one.next_attempt_at and one.next_attempt_at.timestamp() for one in found] == [
            row.due for row in newest_first
        ]
        assert [one.settled_at and one.settled_at.timestamp() for one in found] == [row.settled for row in newest_first]
        due = [row.due for row in newest_first if row.due is not None]
        assert self.inbox.seconds_until_due() == (min(due) - self.clock.now if due else None)
        stats = self.inbox.stats()
        assert {status: count for status, count in stats.by_status.items() if count} == {
            status: sum(row.status is status for row in newest_first) for status in {row.status for row in newest_first}
        }


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_an_inbox_does_what_the_model_does(kind, request, sql_inboxes):
    if kind != "memory":
        url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_inbox_url")
        shared = sql_inboxes(url)
        shared.open()

    class Machine(InboxMachine):
        def make_inbox(self, clock):
            if kind == "memory":
                return MemoryInbox(clock=clock)
            with shared._engine.begin() as connection:
                connection.execute(delete(inbox_table))
            shared._clock = clock
            return shared

    examples = {"memory": 150, "sqlite": 40, "postgresql": 25}[kind]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
