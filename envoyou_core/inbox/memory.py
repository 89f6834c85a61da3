"""An inbox in memory: for tests and trials. It keeps every promise but the first: nothing is on disk."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from envoyou_core.event import Event, object_key
from envoyou_core.inbox.history import Attempt, with_attempt, with_crash, without_failures
from envoyou_core.inbox.records import (
    ANY,
    FINISHED,
    Added,
    Claim,
    ClaimFilter,
    HandlerStatus,
    InboxRecord,
    InboxStats,
    NewEvent,
    Settlement,
    Status,
    completed_handlers,
    is_applied,
    prunable_statuses,
    requeuable_statuses,
)
from envoyou_core.inbox.scrubbing import scrubbed_body
from envoyou_core.patterns import matches_any

__all__ = ["MemoryInbox"]


@dataclass(slots=True)
class _Row:
    key: int
    event: Event
    tenant: str
    webhook_id: str | None
    received_at: float
    due_at: float | None
    status: Status = Status.RECEIVED
    attempts: int = 0
    crashes: int = 0
    progress: Mapping[str, HandlerStatus] = field(default_factory=dict)
    token: str | None = None
    settled_at: float | None = None
    last_error: str | None = None
    history: tuple[Attempt, ...] = ()
    object_id: str | None = None
    scrubbed_at: float | None = None
    to_erase: bool = False

    @property
    def object(self) -> tuple[str, str] | None:
        return None if self.object_id is None else (self.tenant, self.object_id)

    @property
    def age(self) -> tuple[int, int]:
        return self.event.created, self.key

    def make_due(self, now: float) -> None:
        self.status = Status.RECEIVED
        self.attempts = self.crashes = 0
        self.progress = completed_handlers(self.progress)
        self.due_at = now
        self.settled_at = None

    def scrub(self, now: float) -> None:
        self.event = Event.from_body(scrubbed_body(self.event))
        self.last_error, self.history = None, without_failures(self.history)
        self.scrubbed_at = now
        self.to_erase = False


Rows = list[_Row]


class MemoryInbox:
    """An `Inbox` that forgets everything when the process ends. Never for production.

    Args:
        name: which `Webhooks` it belongs to.
        clock: epoch seconds.
    """

    remote = False
    location = "memory:"

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._keys = itertools.count(1)
        self._marks: dict[tuple[str, str], int] = {}
        self._paused: set[str] = set()

    def open(self) -> None:
        """Nothing needs to be made ready."""

    def close(self) -> None:
        """Nothing is held open."""

    def add(self, entry: NewEvent) -> Future[Added]:
        """See `Inbox.add`."""
        future: Future[Added] = Future()
        future.set_result(self._add(entry))
        return future

    def _add(self, entry: NewEvent) -> Added:
        with self._lock:
            now = self._clock()
            row = self._rows.get((entry.tenant, entry.event.id))
            if row is None:
                self._rows[entry.tenant, entry.event.id] = _Row(
                    next(self._keys),
                    entry.event,
                    entry.tenant,
                    entry.webhook_id,
                    received_at=now if entry.received_at is None else entry.received_at.timestamp(),
                    due_at=now,
                    object_id=entry.event.object_id,
                )
                return Added.NEW
            if row.status is Status.DEAD and row.scrubbed_at is None:
                row.make_due(now)
                return Added.REARMED
            same = row.scrubbed_at is not None or row.event.body == entry.event.body
            return Added.DUPLICATE if same else Added.BODY_DIFFERS

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        """See `Inbox.claim`."""
        with self._lock:
            now = self._clock()
            due = [row for row in self._rows.values() if row.due_at is not None and row.due_at <= now]
            held_back = self._held_back(claim_filter.ordered, now)
            token = uuid.uuid4().hex
            claims: list[Claim] = []
            for row in sorted(due, key=lambda row: (row.due_at or 0, row.key)):
                if len(claims) == limit:
                    break
                if row.key not in held_back and _is_selected(row, claim_filter):
                    claims.append(self._take(row, token, now, lease))
            return claims

    def _held_back(self, ordered: tuple[str, ...], now: float) -> set[int]:
        unfinished: dict[tuple[str, str], list[_Row]] = {}
        for row in self._rows.values():
            if row.due_at is not None and row.object is not None and matches_any(ordered, row.event.type):
                unfinished.setdefault(row.object, []).append(row)
        held_back = set()
        for rows in unfinished.values():
            in_work = [row for row in rows if row.status is Status.PROCESSING and (row.due_at or 0) > now]
            first = min(rows, key=lambda row: row.age)
            held_back |= {row.key for row in rows if in_work or row is not first}
        return held_back

    def _take(self, row: _Row, token: str, now: float, lease: float) -> Claim:
        if row.status is Status.PROCESSING:
            row.crashes += 1
            row.history = with_crash(row.history, datetime.fromtimestamp(now, UTC))
        row.status, row.due_at, row.token = Status.PROCESSING, now + lease, token
        return Claim(
            key=row.key,
            token=token,
            event=row.event,
            received_at=datetime.fromtimestamp(row.received_at, UTC),
            attempts=row.attempts,
            crashes=row.crashes,
            progress=row.progress,
            tenant=row.tenant,
            webhook_id=row.webhook_id,
            history=row.history,
            last_error=row.last_error,
        )

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        with self._lock:
            for claim in claims:
                if row := self._held(claim):
                    row.due_at = self._clock() + lease

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        """See `Inbox.record`."""
        with self._lock:
            row = self._held(claim)
            if row is not None:
                row.progress = dict(progress)
            return row is not None

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        return self.settle_all([(claim, settlement)])[0]

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """See `Inbox.settle_all`."""
        with self._lock:
            return [self._settle(claim, settlement) for claim, settlement in settlements]

    def _settle(self, claim: Claim, settlement: Settlement) -> bool:
        row = self._held(claim)
        if row is None:
            return False
        now = self._clock()
        row.status, row.attempts, row.token = settlement.status, settlement.attempts, None
        row.progress, row.last_error = dict(settlement.progress), settlement.error
        row.history = with_attempt(claim.history, settlement, datetime.fromtimestamp(now, UTC))
        row.due_at = None if settlement.retry_in is None else now + settlement.retry_in
        row.settled_at = now if settlement.status in FINISHED else None
        if settlement.scrub or (row.to_erase and settlement.status in FINISHED):
            row.scrub(now)
        return True

    def newest_applied(self, claim: Claim) -> int | None:
        """See `Inbox.newest_applied`."""
        if claim.event.object_id is None:
            return None
        asked = (claim.tenant, claim.event.object_id)
        with self._lock:
            applied = [row.event.created for row in self._rows.values() if row.object == asked and _is_applied(row)]
            mark = self._marks.get(asked)
            return max(applied if mark is None else [*applied, mark], default=None)

    def _held(self, claim: Claim) -> _Row | None:
        row = self._rows.get((claim.tenant, claim.event.id))
        return row if row is not None and row.token == claim.token else None

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        with self._lock:
            due = [row.due_at for row in self._rows.values() if row.due_at is not None]
            return min(due) - self._clock() if due else None

    def pause(self, subject: str) -> None:
        """See `Inbox.pause`."""
        with self._lock:
            self._paused.add(subject)

    def resume(self, subject: str) -> None:
        """See `Inbox.resume`."""
        with self._lock:
            self._paused.discard(subject)

    def paused(self) -> frozenset[str]:
        """See `Inbox.paused`."""
        with self._lock:
            return frozenset(self._paused)

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
        with self._lock:
            return next((_record(row) for row in self._newest(event_id=event_id, tenant=tenant)), None)

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> list[InboxRecord]:
        """See `Inbox.list`."""
        statuses = None if status is None else frozenset({Status(status)})
        with self._lock:
            found = self._newest(statuses=statuses, type=type, object_id=object_id)
            return [_record(row) for row in itertools.islice(found, limit)]

    def stats(self, *, exact: bool = False) -> InboxStats:
        """See `Inbox.stats`."""
        with self._lock:
            counts = dict.fromkeys(Status, 0)
            now = self._clock()
            overdue = 0.0
            for row in self._rows.values():
                counts[row.status] += 1
                if row.due_at is not None:
                    overdue = max(overdue, now - row.due_at)
            return InboxStats(by_status=counts, overdue=overdue)

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> int:
        """See `Inbox.requeue`."""
        statuses = requeuable_statuses(event_id, status, type)
        with self._lock:
            found = self._newest(statuses=statuses, event_id=event_id, type=type, tenant=tenant)
            rows = [row for row in found if row.scrubbed_at is None]
            for row in rows:
                row.make_due(self._clock())
            return len(rows)

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        with self._lock:
            old = self._settled_before(older_than, statuses)
            for row in old:
                if row.object is not None and _is_applied(row):
                    self._marks[row.object] = max(row.event.created, self._marks.get(row.object, 0))
                del self._rows[row.tenant, row.event.id]
            return len(old)

    def prune_watermarks(self, older_than: timedelta) -> int:
        """See `Inbox.prune_watermarks`."""
        with self._lock:
            before = self._clock() - older_than.total_seconds()
            old = [marked for marked, created in self._marks.items() if created < before]
            for marked in old:
                del self._marks[marked]
            return len(old)

    def scrub(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.scrub`."""
        with self._lock:
            old = [row for row in self._settled_before(older_than, statuses) if row.scrubbed_at is None]
            for row in old:
                row.scrub(self._clock())
            return len(old)

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        """See `Inbox.erase`."""
        with self._lock:
            found = self._newest(object_id=object_id, tenant=tenant)
            rows = [row for row in found if row.scrubbed_at is None and not row.to_erase]
            for row in rows:
                if row.status in FINISHED:
                    row.scrub(self._clock())
                else:
                    row.to_erase = True
            return len(rows)

    def _settled_before(self, older_than: timedelta, statuses: tuple[Status | str, ...]) -> Rows:
        found = prunable_statuses(statuses)
        before = self._clock() - older_than.total_seconds()
        return [
            row
            for row in self._rows.values()
            if row.status in found and row.settled_at is not None and row.settled_at < before
        ]

    def _newest(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
        object_id: str | None = None,
    ) -> Iterator[_Row]:
        for row in sorted(self._rows.values(), key=lambda row: -row.key):
            if (
                (statuses is None or row.status in statuses)
                and (event_id is None or row.event.id == event_id)
                and (type is None or row.event.type == type)
                and (tenant is None or row.tenant == tenant)
                and (object_id is None or row.object_id == object_key(object_id))
            ):
                yield row


def _is_selected(row: _Row, claim_filter: ClaimFilter) -> bool:
    wanted = claim_filter.include is None or matches_any(claim_filter.include, row.event.type)
    return wanted and not matches_any(claim_filter.exclude, row.event.type)


def _is_applied(row: _Row) -> bool:
    return row.status is Status.PROCESSED or is_applied(row.progress)


def _record(row: _Row) -> InboxRecord:
    return InboxRecord(
        event=row.event,
        status=row.status,
        attempts=row.attempts,
        crashes=row.crashes,
        received_at=datetime.fromtimestamp(row.received_at, UTC),
        next_attempt_at=None if row.due_at is None else datetime.fromtimestamp(row.due_at, UTC),
        settled_at=None if row.settled_at is None else datetime.fromtimestamp(row.settled_at, UTC),
        last_error=row.last_error,
        progress=dict(row.progress),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
        history=row.history,
        scrubbed_at=None if row.scrubbed_at is None else datetime.fromtimestamp(row.scrubbed_at, UTC),
    )
