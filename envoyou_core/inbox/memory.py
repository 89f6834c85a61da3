"""An inbox in memory: for tests and trials. It keeps every promise but the first: nothing is on disk."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from envoyou_core.event import Event
from envoyou_core.inbox.records import (
    FINISHED,
    Added,
    Claim,
    Entry,
    InboxRecord,
    InboxStats,
    Progress,
    Settlement,
    Status,
    prunable_statuses,
    requeuable_statuses,
    unfinished_progress,
)

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
    progress: Mapping[str, Progress] = field(default_factory=dict)
    token: str | None = None
    settled_at: float | None = None
    last_error: str | None = None

    def make_due(self, now: float) -> None:
        self.status = Status.RECEIVED
        self.attempts = self.crashes = 0
        self.progress = unfinished_progress(self.progress)
        self.due_at = now
        self.settled_at = None


class MemoryInbox:
    """An `Inbox` that forgets everything when the process ends. Never for production.

    Args:
        name: which `Webhooks` it belongs to.
        clock: epoch seconds.
    """

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._keys = itertools.count(1)

    def open(self) -> None:
        """Nothing needs to be made ready."""

    def close(self) -> None:
        """Nothing is held open."""

    def add(self, entry: Entry) -> Future[Added]:
        """See `Inbox.add`."""
        future: Future[Added] = Future()
        future.set_result(self._add(entry))
        return future

    def _add(self, entry: Entry) -> Added:
        with self._lock:
            now = self._clock()
            row = self._rows.get((entry.tenant, entry.event.id))
            if row is None:
                self._rows[entry.tenant, entry.event.id] = _Row(
                    next(self._keys), entry.event, entry.tenant, entry.webhook_id, received_at=now, due_at=now
                )
                return Added.NEW
            if row.status is Status.DEAD:
                row.make_due(now)
                return Added.REARMED
            return Added.DUPLICATE

    def claim(self, limit: int, lease: float) -> list[Claim]:
        """See `Inbox.claim`."""
        with self._lock:
            now = self._clock()
            due = [row for row in self._rows.values() if row.due_at is not None and row.due_at <= now]
            token = uuid.uuid4().hex
            claims = []
            for row in sorted(due, key=lambda row: (row.due_at or 0, row.key))[:limit]:
                row.crashes += row.status is Status.PROCESSING
                row.status, row.due_at, row.token = Status.PROCESSING, now + lease, token
                claims.append(
                    Claim(
                        key=row.key,
                        token=token,
                        event=row.event,
                        received_at=datetime.fromtimestamp(row.received_at, UTC),
                        attempts=row.attempts,
                        crashes=row.crashes,
                        progress=row.progress,
                        tenant=row.tenant,
                        webhook_id=row.webhook_id,
                    )
                )
            return claims

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        with self._lock:
            for claim in claims:
                if row := self._held(claim):
                    row.due_at = self._clock() + lease

    def record(self, claim: Claim, progress: Mapping[str, Progress]) -> bool:
        """See `Inbox.record`."""
        with self._lock:
            row = self._held(claim)
            if row is not None:
                row.progress = dict(progress)
            return row is not None

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        with self._lock:
            row = self._held(claim)
            if row is None:
                return False
            now = self._clock()
            row.status, row.attempts, row.token = settlement.status, settlement.attempts, None
            row.progress, row.last_error = dict(settlement.progress), settlement.error
            row.due_at = None if settlement.retry_in is None else now + settlement.retry_in
            row.settled_at = now if settlement.status in FINISHED else None
            return True

    def _held(self, claim: Claim) -> _Row | None:
        row = self._rows.get((claim.tenant, claim.event.id))
        return row if row is not None and row.token == claim.token else None

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        with self._lock:
            due = [row.due_at for row in self._rows.values() if row.due_at is not None]
            return min(due) - self._clock() if due else None

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
        with self._lock:
            return next((_record(row) for row in self._newest(event_id=event_id, tenant=tenant)), None)

    def list(
        self, *, status: Status | str | None = None, type: str | None = None, limit: int = 100
    ) -> list[InboxRecord]:
        """See `Inbox.list`."""
        statuses = None if status is None else frozenset({Status(status)})
        with self._lock:
            return [_record(row) for row in itertools.islice(self._newest(statuses=statuses, type=type), limit)]

    def stats(self) -> InboxStats:
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
            rows = list(self._newest(statuses=statuses, event_id=event_id, type=type, tenant=tenant))
            for row in rows:
                row.make_due(self._clock())
            return len(rows)

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        found = prunable_statuses(statuses)
        with self._lock:
            before = self._clock() - older_than.total_seconds()
            old = [
                key
                for key, row in self._rows.items()
                if row.status in found and row.settled_at is not None and row.settled_at < before
            ]
            for key in old:
                del self._rows[key]
            return len(old)

    def _newest(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> Iterator[_Row]:
        for row in sorted(self._rows.values(), key=lambda row: -row.key):
            if (
                (statuses is None or row.status in statuses)
                and (event_id is None or row.event.id == event_id)
                and (type is None or row.event.type == type)
                and (tenant is None or row.tenant == tenant)
            ):
                yield row


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
    )
