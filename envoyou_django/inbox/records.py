"""The part of the inbox for people: its records, and what they do with them. See `Inbox`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from django.db import connections, router
from django.db.models import Min, QuerySet

from envoyou_core.adapter import check_selection, object_key, record_of
from envoyou_core.inbox import (
    COUNTED,
    FINISHED,
    Inbox,
    InboxRecord,
    InboxStats,
    Process,
    RejectedDelivery,
    Status,
    prunable_statuses,
    requeuable_statuses,
    stats_of,
)
from envoyou_django.counting import count_by_status, count_waiting
from envoyou_django.fields import stored_moment
from envoyou_django.inbox import registry
from envoyou_django.inbox.bulk import change_in_batches, count_changed, requeueing
from envoyou_django.inbox.claims import has_type
from envoyou_django.inbox.cleanup import fill_object_keys, scrub, update_each
from envoyou_django.inbox.pruning import prune
from envoyou_django.inbox.rejections import OrmRejections
from envoyou_django.loading import load
from envoyou_django.models import ObjectMark, PausedSubject, ProcessedEvent, ProcessedEventQuerySet

__all__ = ["OrmRecords"]

REPRESENTABLE = (datetime(1000, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
"""The range of times that every database and Python can represent, in any time zone. PostgreSQL also has `infinity`."""

Records = list[InboxRecord]
Processes = list[Process]
RejectedDeliveries = list[RejectedDelivery]


class OrmRecords(Inbox):
    """Reads and changes the records of the inbox `name`.

    Attributes:
        name: separates several inboxes in one database.
    """

    name: str
    _clock: Callable[[], float]
    _rejections: OrmRejections

    def seconds_until_due(self, *, later_than: float | None = None) -> float | None:
        """Return the seconds until the next event is due, negative if one is overdue; `None` if none will be."""
        now = self._now()
        rows = self._rows.filter(due_at__range=REPRESENTABLE)
        if later_than is not None:
            rows = rows.filter(due_at__gt=now + timedelta(seconds=later_than))
        due_at = rows.aggregate(first=Min("due_at"))["first"]
        return None if due_at is None else (due_at - now).total_seconds()

    def processes(self) -> Processes:
        return registry.read_processes(self.name, self._alias)

    def list_rejected(self, *, limit: int = 100) -> RejectedDeliveries:
        return self._rejections.newest(limit)

    def get_rejected(self, key: int) -> RejectedDelivery | None:
        return self._rejections.get(key)

    def prune_rejected(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        before = self._now() - older_than
        if dry_run:
            return self._rejections.rows.filter(received_at__lt=before).count()
        return self._rejections.prune(before)

    def pause(self, subject: str) -> None:
        if subject not in self.paused():
            self._paused.create(name=self.name, subject=subject)

    def resume(self, subject: str) -> None:
        # Compared here, because a database may treat different subjects as equal.
        keys = [key for key, paused in self._paused.values_list("pk", "subject") if paused == subject]
        self._paused.filter(pk__in=keys).delete()

    def paused(self) -> frozenset[str]:
        return frozenset(self._paused.values_list("subject", flat=True))

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        rows = load(self._matching(event_id=event_id, tenant=tenant).order_by("-pk")[:1])
        return record_of(rows[0], moment=stored_moment) if rows else None

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> Records:
        statuses = None if status is None else frozenset({Status(status)})
        rows = self._matching(statuses=statuses, type=type, object_id=object_id)
        return [record_of(row, moment=stored_moment) for row in load(rows.order_by("-pk")[:limit])]

    def stats(self, *, exact: bool = False) -> InboxStats:
        limit = None if exact else COUNTED
        counts = count_by_status(self._rows, limit, index_order="settled_at")
        overdue = max(0.0, -(self.seconds_until_due() or 0.0))
        waiting = count_waiting(self._rows)
        return stats_of(counts, overdue, limit=limit, rejected=self._rejections.rows.count(), waiting=waiting)

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
        rows = self.requeuable(
            event_id, status=status, type=type, object_id=object_id, tenant=tenant, drop_handlers=drop_handlers
        )
        operation = requeueing(drop_handlers)
        if dry_run:
            return count_changed(rows, operation, self._now()) if drop_handlers else rows.count()
        requeued = 0
        for batch in change_in_batches(rows, operation, self._now()):
            requeued += len(batch.rows)
            if on_progress is not None:
                on_progress(requeued)
        return requeued

    def requeuable(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        tenant: str | None = None,
        drop_handlers: Collection[str] = (),
    ) -> ProcessedEventQuerySet:
        """Return the events that `requeue` would requeue with the same arguments.

        With `drop_handlers`, some of them may not owe any of these: the queryset's `requeue` leaves them out.

        Raises:
            ValueError: no event was named, a status that cannot be requeued, an invalid pattern, or `drop_handlers` is
                not a list.
        """
        statuses = requeuable_statuses(event_id, status, type, object_id, drop_handlers)
        matching = self._matching(event_id=event_id, type=type, object_id=object_id, tenant=tenant)
        rows = matching.filter(scrubbed_at__isnull=True)
        with_status = rows.filter(status__in=statuses)
        return with_status | rows.awaiting() if status is None else with_status

    def prune(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        old = self._settled_before(older_than, statuses)
        return old.count() if dry_run else prune(old, self._watermarks, self.name)

    def scrub(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        old = self._settled_before(older_than, statuses)
        return old.filter(scrubbed_at__isnull=True).count() if dry_run else scrub(old, self._now())

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        now = self._now()
        about = self._matching(object_id=object_id, tenant=tenant).filter(scrubbed_at__isnull=True)
        # All events are marked first: a worker that finishes one from now on deletes its payload.
        requested = update_each(
            about.filter(erase_requested_at__isnull=True).only("pk"), lambda _: {"erase_requested_at": now}
        )
        scrub(about.filter(status__in=FINISHED), now)
        self._rejections.erase(object_id, tenant)
        return requested

    def _settled_before(self, older_than: timedelta, statuses: tuple[Status | str, ...]) -> ProcessedEventQuerySet:
        return self._matching(statuses=prunable_statuses(statuses)).filter(settled_at__lt=self._now() - older_than)

    def _matching(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
        object_id: str | None = None,
    ) -> ProcessedEventQuerySet:
        check_selection(type)
        values: dict[str, object] = {"status__in": statuses, "event_id": event_id, "tenant": tenant}
        if object_id is not None:
            fill_object_keys(self._rows)
            values["object_key"] = object_key(object_id)
        rows = self._rows.filter(**{name: value for name, value in values.items() if value is not None})
        return rows if type is None else rows.filter(has_type([type]))

    @property
    def _rows(self) -> ProcessedEventQuerySet:
        # Never from a replica: its delay could lose an event or repeat one.
        return ProcessedEvent.objects.using(self._alias).filter(name=self.name)

    @property
    def _watermarks(self) -> QuerySet:
        return ObjectMark.objects.using(self._alias).filter(name=self.name)

    @property
    def _paused(self) -> QuerySet:
        return PausedSubject.objects.using(self._alias).filter(name=self.name)

    @property
    def location(self) -> str:
        """The database of the project that holds the inbox, for display."""
        connection = connections[self._alias]
        values = connection.settings_dict
        host = f" on {values['HOST']}" if values["HOST"] else ""
        return f"{connection.vendor} {values['NAME']}{host} (DATABASES[{self._alias!r}])"

    @property
    def _alias(self) -> str:
        alias: str = router.db_for_write(ProcessedEvent)
        return alias

    def _now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(self._clock() * 1e6))
