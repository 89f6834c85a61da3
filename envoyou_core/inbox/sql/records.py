"""The part of a SQL inbox for people: its records, and what they do with them. See `Inbox`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, insert, select

from envoyou_core.event import object_key
from envoyou_core.inbox.processes import Process
from envoyou_core.inbox.protocol import Inbox
from envoyou_core.inbox.records import (
    COUNTED,
    InboxRecord,
    InboxStats,
    Status,
    prunable_statuses,
    requeuable_statuses,
    stats_of,
)
from envoyou_core.inbox.rejected import RejectedDelivery
from envoyou_core.inbox.rows import moment
from envoyou_core.inbox.sql import cleanup, reading, registry, rejections, requeueing
from envoyou_core.inbox.sql.database import SqlDatabase
from envoyou_core.inbox.sql.schema import inbox_table, paused_table, rejected_table

__all__ = ["SqlRecords"]

Records = list[InboxRecord]
Processes = list[Process]
RejectedDeliveries = list[RejectedDelivery]

_t = inbox_table.c


class SqlRecords(SqlDatabase, Inbox):
    """Reads and changes the records of the inbox `name`.

    Attributes:
        name: separates several inboxes in one database.
    """

    name: str
    _clock: Callable[[], float]

    # Pauses

    def pause(self, subject: str) -> None:
        self.open()
        with self._writing() as connection:
            connection.execute(insert(paused_table).values(name=self.name, subject=subject))

    def resume(self, subject: str) -> None:
        self.open()
        p = paused_table.c
        with self._writing() as connection:
            connection.execute(delete(paused_table).where(p.name == self.name, p.subject == subject))

    def paused(self) -> frozenset[str]:
        self.open()
        with self._reading() as connection:
            return frozenset(connection.scalars(select(paused_table.c.subject).where(paused_table.c.name == self.name)))

    # Records

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        self.open()
        with self._reading() as connection:
            condition = reading.matching(self.name, event_id=event_id, tenant=tenant)
            return next(iter(reading.records(connection, condition, limit=1)), None)

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> Records:
        statuses = None if status is None else frozenset({Status(status)})
        if object_id is not None:
            self._fill_object_keys(_t.name == self.name)
        self.open()
        condition = reading.matching(self.name, statuses=statuses, type=type, object_id=object_id)
        with self._reading() as connection:
            return reading.records(connection, condition, limit)

    def stats(self, *, exact: bool = False) -> InboxStats:
        self.open()
        limit = None if exact else COUNTED
        with self._reading() as connection:
            counts = reading.count_by_status(connection, self.name, limit)
            rejected = rejections.count(connection, rejections.matching(self.name))
            waiting = reading.count_waiting(connection, self.name)
        overdue = max(0.0, -(self.seconds_until_due() or 0.0))
        return stats_of(counts, overdue, limit=limit, rejected=rejected, waiting=waiting)

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
        if object_id is not None:
            self._fill_object_keys(_t.name == self.name)
        self.open()
        condition = and_(
            reading.matching(self.name, event_id=event_id, type=type, object_id=object_id, tenant=tenant),
            reading.requeuable(statuses, with_waiting=status is None),
        )
        with self._reading() as connection:
            if dry_run:
                return requeueing.count(connection, condition, self._moment(), drop_handlers)
            batches = requeueing.batches(connection, condition)
        requeued = 0
        for batch in batches:
            with self._writing() as connection:
                requeued += requeueing.requeue(connection, batch, self._moment(), drop_handlers)
            if on_progress is not None:
                on_progress(requeued)
        return requeued

    def processes(self) -> Processes:
        self.open()
        with self._reading() as connection:
            return registry.read_processes(connection, self.name)

    def seconds_until_due(self, *, later_than: float | None = None) -> float | None:
        """Return the seconds until the next event is due, negative if one is overdue; `None` if none will be."""
        self.open()
        after = None if later_than is None else self._now() + round(later_than * 1e6)
        with self._reading() as connection:
            due_at = reading.next_due_at(connection, self.name, after=after)
        return None if due_at is None else (due_at - self._now()) / 1e6

    # Rejected deliveries

    def list_rejected(self, *, limit: int = 100) -> RejectedDeliveries:
        self.open()
        with self._reading() as connection:
            return rejections.newest(connection, rejections.matching(self.name), limit)

    def get_rejected(self, key: int) -> RejectedDelivery | None:
        self.open()
        with self._reading() as connection:
            return next(iter(rejections.newest(connection, rejections.matching(self.name, key=key), limit=1)), None)

    def prune_rejected(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        self.open()
        before = self._now() - older_than // timedelta(microseconds=1)
        old = and_(rejections.matching(self.name), rejected_table.c.received_at < before)
        if dry_run:
            with self._reading() as connection:
                return rejections.count(connection, old)
        with self._writing() as connection:
            return rejections.delete_matching(connection, old)

    # Deletion

    def prune(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        old = self._settled_before(older_than, statuses)
        if dry_run:
            return self._count(old)
        # The watermarks need the objects.
        self._fill_object_keys(old)
        return self._in_batches(lambda connection: cleanup.prune(connection, self.name, old))

    def scrub(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        old = self._settled_before(older_than, statuses)
        if dry_run:
            return self._count(and_(old, _t.scrubbed_at.is_(None)))
        # A scrubbed body does not show its object any more.
        self._fill_object_keys(old)
        return self._in_batches(lambda connection: cleanup.scrub(connection, old, self._moment()))

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        self._fill_object_keys(_t.name == self.name)
        about = reading.matching(self.name, object_id=object_id, tenant=tenant)
        with self._writing() as connection:
            erased = cleanup.request_erasure(connection, about)
            rejected = rejections.matching(self.name, object_id=object_key(object_id), tenant=tenant)
            rejections.delete_matching(connection, rejected)
        erasable = and_(about, cleanup.IS_ERASABLE)
        self._in_batches(lambda connection: cleanup.scrub(connection, erasable, self._moment()))
        return erased

    def _count(self, condition: ColumnElement[bool]) -> int:
        self.open()
        with self._reading() as connection:
            return reading.count(connection, condition)

    def _settled_before(self, older_than: timedelta, statuses: tuple[Status | str, ...]) -> ColumnElement[bool]:
        before = self._now() - older_than // timedelta(microseconds=1)
        return and_(reading.matching(self.name, statuses=prunable_statuses(statuses)), _t.settled_at < before)

    def _fill_object_keys(self, condition: ColumnElement[bool]) -> None:
        """Fill in the objects of events that an older release stored without them."""
        self.open()
        unknown = and_(_t.name == self.name, _t.object_key.is_(None), condition)
        with self._reading() as connection:
            if connection.scalar(select(_t.key).where(unknown).limit(1)) is None:
                return
        self._in_batches(lambda connection: cleanup.fill_object_keys(connection, unknown))

    def _moment(self) -> datetime:
        return moment(self._now())

    def _now(self) -> int:
        """Return the time in microseconds since the epoch, as the columns hold it."""
        return round(self._clock() * 1e6)
