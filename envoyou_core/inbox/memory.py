"""An inbox in memory, for tests and trials. It keeps every promise but durability: nothing is on disk."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from envoyou_core.event import object_key
from envoyou_core.inbox import transitions
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.lease_tokens import lease_holder, new_lease_token
from envoyou_core.inbox.memory_rejections import MemoryRejections
from envoyou_core.inbox.memory_rows import MemoryRow
from envoyou_core.inbox.memory_telemetry import MemoryTelemetry
from envoyou_core.inbox.processes import KEPT_FOR, SETS_KEPT_FOR, Beats, Process, ProcessRegistration
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.records import (
    ANY,
    FINISHED,
    MAX_AWAITED,
    Added,
    Claim,
    ClaimFilter,
    HandlerStatus,
    InboxRecord,
    InboxStats,
    NewEvent,
    Settlement,
    Status,
    prunable_statuses,
    requeuable_statuses,
)
from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery, keep
from envoyou_core.patterns import check_selection, matches_any

__all__ = ["MemoryInbox"]


Rows = list[MemoryRow]
Processes = list[Process]
RejectedDeliveries = list[RejectedDelivery]


class MemoryInbox(MemoryTelemetry, WorkerInbox):
    """An `Inbox` that loses everything when the process ends. Never use it in production.

    Args:
        name: the name of the `Webhooks` that the inbox belongs to.
        clock: returns epoch seconds.
    """

    remote = False
    location = "memory:"

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], MemoryRow] = {}
        self._keys = itertools.count(1)
        self._watermarks: dict[tuple[str, str], int] = {}
        self._paused: set[str] = set()
        self._rejected = MemoryRejections()
        self._beats = Beats()
        self._sets: dict[str, tuple[HandlerSet, datetime]] = {}
        self._processes: dict[str, Process] = {}

    def open(self) -> None:
        """Do nothing: there is nothing to create."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def add(self, entry: NewEvent) -> Future[Added]:
        future: Future[Added] = Future()
        future.set_result(self._add(entry))
        return future

    def _add(self, entry: NewEvent) -> Added:
        with self._lock:
            return self._add_locked(entry)

    def _add_locked(self, entry: NewEvent) -> Added:
        key = (entry.tenant, entry.event.id)
        now = self._now()
        self._register(self._beats.due([entry.handlers], [entry.process], now))
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = MemoryRow(next(self._keys), entry.event, **transitions.accept(entry, now))
            return Added.NEW
        has_payload = row.scrubbed_at is None
        if transitions.is_rearmed(row.status, has_payload=has_payload):
            row.change(transitions.requeue(row.progress, row.owed, now))
            return Added.REARMED
        return transitions.compare_redelivery(entry.event.body, row.body if has_payload else None)

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        with self._lock:
            now = self._now()
            self._register(self._beats.due([claim_filter.handlers], (), now))
            held_back = self._held_back(claim_filter, now)
            due = [
                (row.due_at, row.key, row)
                for row in self._rows.values()
                if row.due_at is not None
                and (_waits_for_one_of(row, claim_filter.handlers) if claim_filter.waiting else row.due_at <= now)
                and row.key not in held_back
                and _is_selected(row, claim_filter)
            ]
            token = new_lease_token(claim_filter.process_id)
            return [self._lease(row, token, lease, claim_filter.handlers, now) for _, _, row in sorted(due)[:limit]]

    def _held_back(self, claim_filter: ClaimFilter, now: datetime) -> set[int]:
        unfinished: dict[tuple[str, str], Rows] = {}
        for row in self._rows.values():
            if row.due_at is not None and row.object is not None and matches_any(claim_filter.ordered, row.type):
                unfinished.setdefault(row.object, []).append(row)
        held_back = set()
        for rows in unfinished.values():
            first = transitions.next_in_order(rows, now, claim_filter.handlers)
            held_back |= {row.key for row in rows if row.key != first}
        return held_back

    def _lease(self, row: MemoryRow, token: str, seconds: float, handlers: HandlerSet | None, now: datetime) -> Claim:
        claim = row.claim(token)
        if row.status is transitions.LEASED:
            crashed = self._sets.get(row.claimed_set or "", (None, now))[0]
            changes = transitions.count_crash(claim, crashed, now)
            row.change(changes)
            claim = msgspec.structs.replace(claim, **changes)
        row.change(transitions.lease(token, seconds, now) | transitions.claimed_by(handlers))
        return claim

    def renew(self, claims: list[Claim], lease: float) -> None:
        with self._lock:
            for claim in claims:
                if row := self._held(claim):
                    row.change(transitions.lease(claim.token, lease, self._now()))

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        with self._lock:
            row = self._held(claim)
            if row is not None:
                row.progress = dict(progress)
            return row is not None

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        return self.settle_all([(claim, settlement)])[0]

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        with self._lock:
            return [self._settle(claim, settlement) for claim, settlement in settlements]

    def _settle(self, claim: Claim, settlement: Settlement) -> bool:
        row = self._held(claim)
        if row is None:
            return False
        now = self._now()
        row.change(transitions.settle(claim, settlement, now))
        if transitions.deletes_payload(settlement, erase_requested=row.erase_requested):
            row.scrub(now)
        return True

    def newest_applied(self, claim: Claim) -> int | None:
        if claim.event.object_id is None:
            return None
        subject = (claim.tenant, claim.event.object_id)
        with self._lock:
            applied = [row.created for row in self._rows.values() if row.object == subject and row.had_effect]
            watermark = self._watermarks.get(subject)
            return max(applied if watermark is None else [*applied, watermark], default=None)

    def _held(self, claim: Claim) -> MemoryRow | None:
        row = self._rows.get((claim.tenant, claim.event.id))
        return row if row is not None and row.lease_token == claim.token else None

    def seconds_until_due(self, *, later_than: float | None = None) -> float | None:
        with self._lock:
            now = self._now()
            due = [(row.due_at - now).total_seconds() for row in self._rows.values() if row.due_at is not None]
            return min((seconds for seconds in due if later_than is None or seconds > later_than), default=None)

    def beat(self, process: Process) -> None:
        with self._lock:
            self._register(self._beats.beat(process, self._now()))

    def _register(self, registration: ProcessRegistration) -> None:
        at = registration.at
        self._sets.update((handlers.id, (handlers, at)) for handlers in registration.sets)
        self._processes.update((process.id, replace(process, seen_at=at)) for process in registration.processes)
        self._beats.wrote(registration)

    def handler_sets(self, ids: Collection[str]) -> dict[str, HandlerSet]:
        with self._lock:
            return {id: self._sets[id][0] for id in ids if id in self._sets}

    def processes(self) -> Processes:
        with self._lock:
            return sorted(self._processes.values(), key=lambda process: process.seen_at, reverse=True)

    def lease_holders(self) -> Processes:
        with self._lock:
            holders = {lease_holder(row.lease_token or "") for row in self._rows.values() if row.is_leased(self._now())}
            return [process for process in self._processes.values() if lease_holder(process.id) in holders]

    def end_leases(self, process_ids: Collection[str]) -> int:
        gone = {lease_holder(id) for id in process_ids}
        with self._lock:
            now = self._now()
            leased = [row for row in self._rows.values() if row.is_leased(now)]
            held = [row for row in leased if lease_holder(row.lease_token or "") in gone]
            for row in held:
                row.change(transitions.end_lease(now))
            return len(held)

    def extend_leases(self, seconds: float) -> int:
        with self._lock:
            now = self._now()
            expired = [
                row for row in self._rows.values() if row.status is transitions.LEASED and not row.is_leased(now)
            ]
            for row in expired:
                row.change(transitions.extend_lease(seconds, now))
            return len(expired)

    def uncount_crash(self, claim: Claim) -> bool:
        with self._lock:
            row = self._rows.get((claim.tenant, claim.event.id))
            changes = {} if row is None or row.key != claim.key else transitions.uncount_crash(claim, row.crashes)
            if row is not None:
                row.change(changes)
            return bool(changes)

    def has_waiting(self, handlers: HandlerSet | None = None) -> bool:
        with self._lock:
            if handlers is None:
                return any(row.is_waiting for row in self._rows.values())
            return any(_waits_for_one_of(row, handlers) for row in self._rows.values())

    def prune_processes(self) -> int:
        with self._lock:
            now = self._now()
            gone = [id for id, process in self._processes.items() if process.seen_at < now - KEPT_FOR]
            for id in gone:
                del self._processes[id]
            used = {process.handlers.id for process in self._processes.values()}
            used |= {
                id for row in self._rows.values() if row.due_at for id in (row.accepted_set, row.claimed_set) if id
            }
            self._sets = {
                id: stored for id, stored in self._sets.items() if id in used or stored[1] >= now - SETS_KEPT_FOR
            }
            return len(gone)

    def pause(self, subject: str) -> None:
        with self._lock:
            self._paused.add(subject)

    def resume(self, subject: str) -> None:
        with self._lock:
            self._paused.discard(subject)

    def paused(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._paused)

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        with self._lock:
            return next((row.record() for row in self._newest(event_id=event_id, tenant=tenant)), None)

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> list[InboxRecord]:
        statuses = None if status is None else frozenset({Status(status)})
        check_selection(type)
        with self._lock:
            rows = self._newest(statuses=statuses, type=type, object_id=object_id)
            return [row.record() for row in itertools.islice(rows, limit)]

    def stats(self, *, exact: bool = False) -> InboxStats:
        with self._lock:
            counts = dict.fromkeys(Status, 0)
            now = self._now()
            overdue = 0.0
            for row in self._rows.values():
                counts[row.status] += 1
                if row.due_at is not None:
                    overdue = max(overdue, (now - row.due_at).total_seconds())
            waiting = Counter(row.waits_for for row in self._rows.values() if row.waits_for and row.is_waiting)
            return InboxStats(
                by_status=counts,
                overdue=overdue,
                rejected=len(self._rejected),
                waiting=dict(sorted(waiting.items())[:MAX_AWAITED]),
            )

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        tenant: str | None = None,
        dry_run: bool = False,
        on_progress: Callable[[int], object] | None = None,
        drop_handlers: Collection[str] = (),
    ) -> int:
        statuses = requeuable_statuses(event_id, status, type, object_id, drop_handlers)
        check_selection(type)
        with self._lock:
            selected = self._newest(event_id=event_id, type=type, object_id=object_id, tenant=tenant)
            rows = [
                row
                for row in selected
                if row.scrubbed_at is None and (row.status in statuses or (status is None and row.is_waiting))
            ]
            requeued = [
                (row, changes)
                for row in rows
                if (changes := transitions.requeue(row.progress, row.owed, self._now(), drop_handlers))
            ]
            for row, changes in () if dry_run else requeued:
                row.change(changes)
        if on_progress is not None and requeued and not dry_run:
            on_progress(len(requeued))
        return len(requeued)

    def prune(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        with self._lock:
            old = self._settled_before(older_than, statuses)
            if dry_run:
                return len(old)
            applied = [(row.tenant, row.object_key, row.created) for row in old if row.had_effect]
            for subject, created in transitions.watermarks(applied).items():
                self._watermarks[subject] = max(created, self._watermarks.get(subject, created))
            for row in old:
                del self._rows[row.tenant, row.event_id]
            return len(old)

    def prune_watermarks(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        with self._lock:
            before = self._clock() - older_than.total_seconds()
            old = [subject for subject, created in self._watermarks.items() if created < before]
            for subject in () if dry_run else old:
                del self._watermarks[subject]
            return len(old)

    def scrub(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        with self._lock:
            old = [row for row in self._settled_before(older_than, statuses) if row.scrubbed_at is None]
            for row in () if dry_run else old:
                row.scrub(self._now())
            return len(old)

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        with self._lock:
            selected = self._newest(object_id=object_id, tenant=tenant)
            rows = [row for row in selected if row.scrubbed_at is None and not row.erase_requested]
            for row in rows:
                row.erase_requested = True
                if row.status in FINISHED:
                    row.scrub(self._now())
            about = object_key(object_id)
            self._rejected.delete(lambda row: row.object_key == about and tenant in {None, row.tenant})
            return len(rows)

    def keep_rejected(self, rejection: NewRejection) -> Future[int]:
        future: Future[int] = Future()
        try:
            columns = keep(rejection)
        except ValueError as error:
            future.set_exception(error)
        else:
            with self._lock:
                future.set_result(self._rejected.keep(columns))
        return future

    def accept_rejected(self, key: int, entry: NewEvent) -> Added:
        with self._lock:
            added = self._add_locked(entry)
            self._rejected.delete(lambda row: row.key == key)
            return added

    def list_rejected(self, *, limit: int = 100) -> RejectedDeliveries:
        with self._lock:
            return [*itertools.islice(self._rejected.newest(), limit)]

    def get_rejected(self, key: int) -> RejectedDelivery | None:
        with self._lock:
            return next((delivery for delivery in self._rejected.newest() if delivery.key == key), None)

    def prune_rejected(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        with self._lock:
            before = self._now() - older_than
            if dry_run:
                return sum(delivery.received_at < before for delivery in self._rejected.newest())
            return self._rejected.delete(lambda row: row.received_at < before)

    def _settled_before(self, older_than: timedelta, statuses: tuple[Status | str, ...]) -> Rows:
        selected = prunable_statuses(statuses)
        before = self._clock() - older_than.total_seconds()
        return [
            row
            for row in self._rows.values()
            if row.status in selected and row.settled_at is not None and row.settled_at.timestamp() < before
        ]

    def _newest(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
        object_id: str | None = None,
    ) -> Iterator[MemoryRow]:
        for row in sorted(self._rows.values(), key=lambda row: -row.key):
            if (
                (statuses is None or row.status in statuses)
                and (event_id is None or row.event_id == event_id)
                and (type is None or matches_any((type,), row.type))
                and (tenant is None or row.tenant == tenant)
                and (object_id is None or row.object_key == object_key(object_id))
            ):
                yield row

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _is_selected(row: MemoryRow, claim_filter: ClaimFilter) -> bool:
    included = claim_filter.include is None or matches_any(claim_filter.include, row.type)
    return included and not matches_any(claim_filter.exclude, row.type)


def _waits_for_one_of(row: MemoryRow, handlers: HandlerSet | None) -> bool:
    return row.is_waiting and transitions.is_awaited(row.waits_for, row.type, handlers)
