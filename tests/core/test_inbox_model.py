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

from envoyou_core.inbox import (
    FINISHED,
    REQUEUABLE,
    Added,
    Claim,
    ClaimFilter,
    Failure,
    HandlerStatus,
    NewEvent,
    Settlement,
    Status,
)
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.testing import sample_event
from tests.inbox.acts import PATIENCE, HandClock
from tests.thoroughness import examples

IDS = ("evt_a", "EVT_A", "evt_b ", "evt_é", "evt_c", "evt_d")
TENANTS = ("", "acme")
TYPES = ("user.created", "auth.login")
OBJECTS = ("user_1", "USER_1", None)
CREATED = (100, 101, 102)
# Most are about one object, for there is nothing to order between several.
EVENTS = st.tuples(
    st.sampled_from(IDS),
    st.sampled_from(["", "", "", "acme"]),
    st.sampled_from(TYPES),
    st.sampled_from(["user_1", "user_1", "user_1", "USER_1", None]),
    st.sampled_from(CREATED),
)
SUBJECTS = ("welcome", "Welcome")
SECONDS = st.sampled_from([0, 1, 5, 30, 90])
PROGRESS = st.dictionaries(st.sampled_from(["welcome", "bill"]), st.sampled_from(list(HandlerStatus)))
LEASE = 30

PATTERNS = st.lists(st.sampled_from(["*", "user.*", "auth.*", "user.created", "auth.login"]), max_size=2).map(tuple)
SELECTIONS = st.builds(
    ClaimFilter,
    include=st.none() | PATTERNS,
    exclude=st.just(()) | PATTERNS,
    ordered=st.sampled_from([(), ("*",), ("*",), ("user.*",), ("user.created", "auth.*")]),
)
FAILURES = (Failure("welcome", "ValueError: no route", "Traceback"),)
STATUSES = st.sampled_from([Status.PROCESSED, Status.IGNORED, Status.DEAD, Status.FAILED, Status.RECEIVED])
ENDS = st.tuples(STATUSES, PROGRESS, SECONDS, st.sampled_from([None, 0.5, 2.0]), st.booleans())
TURNS = st.tuples(
    st.lists(EVENTS, min_size=1, max_size=3),
    SECONDS,
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 5), ENDS), max_size=3),
)


def settlement(claim, status, progress, retry_in, seconds, scrub):
    """What a worker may write: errors where it failed, and only what is finished is scrubbed."""
    failed = status in {Status.FAILED, Status.DEAD}
    return Settlement(
        status,
        claim.attempts + 1,
        progress,
        retry_in=None if status in FINISHED else retry_in,
        error="no route" if failed else None,
        seconds=seconds,
        failures=FAILURES if failed else (),
        scrub=scrub and status in FINISHED,
    )


def matches(patterns, type):
    families = {"*", type, type.partition(".")[0] + ".*"}
    return not families.isdisjoint(patterns)


@dataclass
class Row:
    """What the model remembers of an event."""

    number: int
    tenant: str
    id: str
    type: str
    object: str | None
    created: int
    due: float | None
    status: Status = Status.RECEIVED
    attempts: int = 0
    crashes: int = 0
    progress: dict = field(default_factory=dict)
    settled: float | None = None
    claim: Claim | None = None
    error: str | None = None
    history: list = field(default_factory=list)
    scrubbed: float | None = None
    to_erase: bool = False

    @property
    def applied(self):
        return self.status is Status.PROCESSED or HandlerStatus.DONE in self.progress.values()

    def arm(self, now):
        self.status, self.attempts, self.crashes = Status.RECEIVED, 0, 0
        kept = {HandlerStatus.DONE, HandlerStatus.DROPPED}
        self.progress = {name: became for name, became in self.progress.items() if became in kept}
        self.due, self.settled = now, None

    def scrub(self, now):
        self.scrubbed, self.error = now, None
        self.history = [(ended, status, seconds, ()) for ended, status, seconds, _ in self.history]


class InboxMachine(RuleBasedStateMachine):
    """Adds, claims, crashes, settles, requeues, prunes, scrubs and erases, in any order."""

    claims = Bundle("claims")

    def make_inbox(self, clock):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.clock = HandClock()
        self.inbox = self.make_inbox(self.clock)
        self.rows = {}
        self.marks = {}
        self.paused = set()
        self.numbers = itertools.count()

    @rule(target=claims, turn=TURNS, claim_filter=st.just(ClaimFilter()) | SELECTIONS)
    def work(self, turn, claim_filter):
        return self.turn(claim_filter, *turn)

    @rule(target=claims, turn=TURNS)
    def work_in_order(self, turn):
        return self.turn(ClaimFilter(ordered=("*",)), *turn)

    def turn(self, claim_filter, events, seconds, limit, ends):
        """Much in one step, as a random walk of small ones seldom gets far."""
        for event in events:
            self.add(*event)
        self.clock.advance(seconds)
        taken = self.claim(limit, claim_filter)
        for number, end in ends:
            self.settle(number, end)
        return multiple(*taken)

    def add(self, id, tenant, type, object, created):
        event = sample_event(type, id=id, created=created, object={} if object is None else {"id": object})
        added = self.inbox.add(NewEvent(event, tenant)).result(PATIENCE)
        row = self.rows.get((tenant, id))
        if row is None:
            assert added is Added.NEW
            number = next(self.numbers)
            self.rows[tenant, id] = Row(number, tenant, id, type, object, created, self.clock.now)
        elif row.status is Status.DEAD and row.scrubbed is None:
            assert added is Added.REARMED
            row.arm(self.clock.now)
        else:
            same = row.scrubbed is not None or (row.type, row.object, row.created) == (type, object, created)
            assert added is (Added.DUPLICATE if same else Added.BODY_DIFFERS)

    def claim(self, limit, claim_filter):
        due = [
            row
            for row in self.rows.values()
            if row.due is not None
            and row.due <= self.clock.now
            and (claim_filter.include is None or matches(claim_filter.include, row.type))
            and not matches(claim_filter.exclude, row.type)
            and not self.is_held_back(row, claim_filter.ordered)
        ]
        expected = sorted(due, key=lambda row: (row.due, row.number))[:limit]
        taken = self.inbox.claim(limit, LEASE, claim_filter)
        assert len(taken) == len(expected)
        assert {(claim.tenant, claim.event.id) for claim in taken} == {(row.tenant, row.id) for row in expected}
        for claim in taken:
            row = self.rows[claim.tenant, claim.event.id]
            if row.status is Status.PROCESSING:
                row.crashes += 1
                row.history.append((self.clock.now, None, None, ()))
            row.status, row.due, row.claim = Status.PROCESSING, self.clock.now + LEASE, claim
            assert (claim.attempts, claim.crashes, dict(claim.progress)) == (row.attempts, row.crashes, row.progress)
            assert (claim.event.type, claim.event.object_id) == (row.type, row.object)
            assert attempts(claim.history) == row.history
            self.ask_for_the_newest_applied(claim)
        return taken

    def is_held_back(self, row, ordered):
        """By an earlier event of its object that is unfinished, or by a later one in work."""
        if row.object is None or not matches(ordered, row.type):
            return False
        return any(
            (other.created, other.number) < (row.created, row.number)
            or (other.status is Status.PROCESSING and other.due > self.clock.now)
            for other in self.about(row.object, row.tenant)
            if other is not row and other.due is not None and matches(ordered, other.type)
        )

    def about(self, object, tenant):
        return [row for row in self.rows.values() if row.object == object and tenant in {None, row.tenant}]

    def held(self, claim):
        row = self.rows.get((claim.tenant, claim.event.id))
        return row if row is not None and row.claim is claim else None

    @rule(claim=claims, progress=PROGRESS)
    def record(self, claim, progress):
        row = self.held(claim)
        assert self.inbox.record(claim, progress) is (row is not None)
        if row:
            row.progress = progress
        self.ask_for_the_newest_applied(claim)

    def settle(self, number, end):
        in_work = [row.claim for row in self.rows.values() if row.claim is not None]
        if in_work:
            claim = in_work[number % len(in_work)]
            written = settlement(claim, *end)
            assert self.inbox.settle(claim, written) is self.ends(claim, written) is True

    @rule(ends=st.lists(st.tuples(claims, ENDS), min_size=1, max_size=4))
    def settle_all(self, ends):
        written = [(claim, settlement(claim, *end)) for claim, end in ends]
        assert self.inbox.settle_all(written) == [self.ends(claim, one) for claim, one in written]

    def ends(self, claim, written):
        row = self.held(claim)
        if row is None:
            return False
        now = self.clock.now
        row.status, row.attempts, row.claim = written.status, written.attempts, None
        row.progress, row.error = written.progress, written.error
        row.due = None if written.retry_in is None else now + written.retry_in
        row.settled = now if written.status in FINISHED else None
        if written.seconds is not None:
            row.history.append((now, written.status.value, written.seconds, written.failures))
        if written.scrub or (row.to_erase and written.status in FINISHED):
            row.scrub(now)
        return True

    def ask_for_the_newest_applied(self, claim):
        object = claim.event.data.object.get("id")
        created = [row.created for row in self.about(object, claim.tenant) if row.applied]
        if mark := self.marks.get((claim.tenant, object)):
            created.append(mark)
        newest = None if object is None else max(created, default=None)
        assert self.inbox.newest_applied(claim) == newest

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
            and row.scrubbed is None
            and id in {None, row.id}
            and type in {None, row.type}
            and tenant in {None, row.tenant}
        ]
        assert self.inbox.requeue(id, status=status, type=type, tenant=tenant) == len(found)
        for row in found:
            row.arm(self.clock.now)

    def settled_before(self, age, statuses):
        return [
            row
            for row in self.rows.values()
            if row.status in statuses and row.settled is not None and row.settled < self.clock.now - age
        ]

    @rule(age=SECONDS, statuses=st.sets(st.sampled_from(sorted(FINISHED)), min_size=1))
    def prune(self, age, statuses):
        old = self.settled_before(age, statuses)
        assert self.inbox.prune(timedelta(seconds=age), tuple(statuses)) == len(old)
        for row in old:
            del self.rows[row.tenant, row.id]
            if row.applied and row.object is not None:
                marked = row.tenant, row.object
                self.marks[marked] = max(row.created, self.marks.get(marked, row.created))

    @rule(created=st.sampled_from(CREATED))
    def prune_watermarks(self, created):
        old = [marked for marked, mark in self.marks.items() if mark < created]
        assert self.inbox.prune_watermarks(timedelta(seconds=self.clock.now - created)) == len(old)
        for marked in old:
            del self.marks[marked]

    @rule(age=SECONDS, statuses=st.sets(st.sampled_from(sorted(FINISHED)), min_size=1))
    def scrub(self, age, statuses):
        old = [row for row in self.settled_before(age, statuses) if row.scrubbed is None]
        assert self.inbox.scrub(timedelta(seconds=age), tuple(statuses)) == len(old)
        for row in old:
            row.scrub(self.clock.now)

    @rule(object=st.sampled_from(OBJECTS[:2]), tenant=st.none() | st.sampled_from(TENANTS))
    def erase(self, object, tenant):
        newest_first = sorted(self.about(object, None), key=lambda row: -row.number)
        listed = self.inbox.list(object_id=object)
        assert [(one.tenant, one.event.id) for one in listed] == [(row.tenant, row.id) for row in newest_first]
        found = [row for row in self.about(object, tenant) if row.scrubbed is None and not row.to_erase]
        assert self.inbox.erase(object, tenant=tenant) == len(found)
        for row in found:
            if row.status in FINISHED:
                row.scrub(self.clock.now)
            else:
                row.to_erase = True

    @rule(subject=st.sampled_from(SUBJECTS), paused=st.booleans())
    def pause_or_resume(self, subject, paused):
        (self.inbox.pause if paused else self.inbox.resume)(subject)
        self.paused = self.paused | {subject} if paused else self.paused - {subject}
        assert self.inbox.paused() == self.paused

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
        assert [(one.last_error, attempts(one.history)) for one in found] == [
            (row.error, row.history) for row in newest_first
        ]
        assert [
            (one.event.created, one.event.data.object.get("id"), one.scrubbed_at and one.scrubbed_at.timestamp())
            for one in found
        ] == [(row.created, row.object if row.scrubbed is None else None, row.scrubbed) for row in newest_first]
        due = [row.due for row in newest_first if row.due is not None]
        assert self.inbox.seconds_until_due() == (min(due) - self.clock.now if due else None)
        stats = self.inbox.stats()
        assert {status: count for status, count in stats.by_status.items() if count} == {
            status: sum(row.status is status for row in newest_first) for status in {row.status for row in newest_first}
        }


def attempts(history):
    return [(one.ended_at.timestamp(), one.status, one.seconds, one.failures) for one in history]


EXAMPLES = {"memory": examples(60, 30), "sqlite": examples(15, 6), "postgresql": examples(10, 4)}
URLS = {"sqlite": "sqlite_url", "postgresql": "postgres_inbox_url"}
"""The fixtures that give an empty database of each kind."""


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_inbox_does_what_the_model_does(kind, request, sql_inboxes):
    if kind in URLS:
        shared = sql_inboxes(request.getfixturevalue(URLS[kind]))
        shared.open()
    runs = itertools.count()

    class Machine(InboxMachine):
        def make_inbox(self, clock):
            if kind not in URLS:
                return MemoryInbox(clock=clock)
            # What earlier runs have left in the database is in inboxes of other names.
            shared.name = f"run {next(runs)}"
            shared._clock = clock
            return shared

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES[kind],
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
