"""The inbox in the project's own database, by way of the model `ProcessedEvent`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, connections, router, transaction
from django.db.models import Case, Count, F, Min, When

from envoyou_core import ConfigurationError
from envoyou_core.inbox import (
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
)
from envoyou_django.models import LONGEST_NAME, TABLE, ProcessedEvent, ProcessedEventQuerySet

__all__ = ["OrmInbox"]

LOCK_TIMEOUT = 2.0
"""Seconds that an acceptance waits for a lock: less than the time a sender waits for its answer."""

PRUNE_BATCH = 500
"""Rows deleted in one transaction, so that acceptance never waits long behind it."""

FARTHEST = datetime(9998, 1, 1, tzinfo=UTC)
"""What lies beyond it is as good as never, and no time zone can push it over the end of the calendar."""

Records = list[InboxRecord]


class OrmInbox:
    """An `Inbox` in the table of `ProcessedEvent`, on the database that the project's routers choose for writing.

    An event is stored by the thread that asks for it, on its own connection, so that within a test's transaction it
    is part of that transaction. Outside a test it is never part of another one: its commit is the promise.

    Args:
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.

    Raises:
        ConfigurationError: the name is too long, or empty.
    """

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigurationError(f"the name of an inbox has 1 to {LONGEST_NAME} characters, not {name!r}")
        self.name = name
        self._clock = clock

    def open(self) -> None:
        """See `Inbox.open`."""
        connection = connections[self._alias]
        with connection.cursor() as cursor:
            if TABLE not in connection.introspection.table_names(cursor):
                raise ConfigurationError(
                    f"the inbox's table does not exist yet: run `manage.py migrate --database {self._alias}`"
                )

    def close(self) -> None:
        """Connections are Django's to open and close."""

    def add(self, entry: Entry) -> Future[Added]:
        """See `Inbox.add`. The future that is returned is done."""
        future: Future[Added] = Future()
        try:
            future.set_result(self._add(entry))
        except Exception as error:
            future.set_exception(error)
        return future

    def _add(self, entry: Entry) -> Added:
        alias = self._alias
        now = self._now()
        row = ProcessedEvent(
            name=self.name,
            tenant=entry.tenant,
            event_id=entry.event.id,
            type=entry.event.type,
            created=entry.event.created,
            webhook_id=entry.webhook_id,
            body=entry.event.body,
            status=Status.RECEIVED.value,
            attempts=0,
            crashes=0,
            progress={},
            received_at=now,
            due_at=now,
        )
        try:
            with _committed(alias):
                row.save(using=alias, force_insert=True)
        except IntegrityError:
            stored = self._rows.filter(tenant=entry.tenant, event_id=entry.event.id)
            if stored.filter(status=Status.DEAD).requeue(now):
                return Added.REARMED
            if stored.exists():
                return Added.DUPLICATE
            # It was not the key that was in the way.
            raise
        return Added.NEW

    def claim(self, limit: int, lease: float) -> list[Claim]:
        """See `Inbox.claim`."""
        alias = self._alias
        now = self._now()
        token = uuid.uuid4().hex
        due = self._rows.filter(due_at__lte=now).order_by("due_at", "pk")
        taken: dict[str, Any] = {
            # Before the status: MySQL and MariaDB let an assignment see those to the left of it.
            "crashes": F("crashes") + Case(When(status=Status.PROCESSING, then=1), default=0),
            "status": Status.PROCESSING.value,
            "due_at": _later(now, lease),
            "lease_token": token,
        }
        if connections[alias].features.has_select_for_update_skip_locked:
            with transaction.atomic(using=alias):
                # The numbers first: under some plans a subquery that locks and is limited would be asked anew for
                # each row, and more would be claimed than was asked for.
                keys = list(due.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
                if keys:
                    self._rows.filter(pk__in=keys).update(**taken)
        else:
            # Without row locks: whoever changes the time at which a row is due has it. Looking happens outside the
            # transaction, which on SQLite must not begin by reading.
            found = list(due.values_list("pk", "due_at")[:limit])
            with transaction.atomic(using=alias):
                keys = [key for key, due_at in found if self._rows.filter(pk=key, due_at=due_at).update(**taken)]
        rows = self._rows.in_bulk(keys)
        return [_claim(rows[key], token) for key in keys if key in rows and rows[key].lease_token == token]

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        due_at = _later(self._now(), lease)
        with transaction.atomic(using=self._alias):
            for claim in claims:
                self._held(claim).update(due_at=due_at)

    def record(self, claim: Claim, progress: Mapping[str, Progress]) -> bool:
        """See `Inbox.record`."""
        return self._held(claim).update(progress=dict(progress)) == 1

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        now = self._now()
        updated: int = self._held(claim).update(
            status=settlement.status.value,
            attempts=settlement.attempts,
            progress=dict(settlement.progress),
            due_at=None if settlement.retry_in is None else _later(now, settlement.retry_in),
            lease_token=None,
            settled_at=now if settlement.status in FINISHED else None,
            last_error=settlement.error,
        )
        return updated == 1

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        due_at = self._rows.filter(due_at__isnull=False).aggregate(first=Min("due_at"))["first"]
        return None if due_at is None else (due_at - self._now()).total_seconds()

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
        row = self._matching(event_id=event_id, tenant=tenant).order_by("-pk").first()
        return None if row is None else _record(row)

    def list(self, *, status: Status | str | None = None, type: str | None = None, limit: int = 100) -> Records:
        """See `Inbox.list`."""
        statuses = None if status is None else frozenset({Status(status)})
        return [_record(row) for row in self._matching(statuses=statuses, type=type).order_by("-pk")[:limit]]

    def stats(self) -> InboxStats:
        """See `Inbox.stats`."""
        counts = self._rows.order_by().values_list("status").annotate(count=Count("pk"))
        by_status = dict.fromkeys(Status, 0) | {Status(status): count for status, count in counts}
        return InboxStats(by_status=by_status, overdue=max(0.0, -(self.seconds_until_due() or 0.0)))

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
        rows = self._matching(statuses=statuses, event_id=event_id, type=type, tenant=tenant)
        return rows.requeue(self._now())

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        old = self._matching(statuses=prunable_statuses(statuses)).filter(settled_at__lt=self._now() - older_than)
        pruned = 0
        while keys := list(old.values_list("pk", flat=True)[:PRUNE_BATCH]):
            # Asked once more: one of them may have been requeued meanwhile.
            pruned += old.filter(pk__in=keys).delete()[0]
        return pruned

    def _matching(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> ProcessedEventQuerySet:
        asked = {"status__in": statuses, "event_id": event_id, "type": type, "tenant": tenant}
        return self._rows.filter(**{name: value for name, value in asked.items() if value is not None})

    def _held(self, claim: Claim) -> ProcessedEventQuerySet:
        return self._rows.filter(pk=claim.key, lease_token=claim.token)

    @property
    def _rows(self) -> ProcessedEventQuerySet:
        # Never from a replica: what it has not heard of yet would be a loss or a repetition.
        return ProcessedEvent.objects.using(self._alias).filter(name=self.name)

    @property
    def _alias(self) -> str:
        alias: str = router.db_for_write(ProcessedEvent)
        return alias

    def _now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(self._clock() * 1e6))


@contextmanager
def _committed(alias: str) -> Iterator[None]:
    """A transaction of its own, which is on disk when the block has ended.

    Raises:
        RuntimeError: another transaction is open, at whose end everything could still be undone. A `TestCase`'s own
            is the exception.
    """
    connection = connections[alias]
    connection.ensure_connection()
    if not connection.in_atomic_block and not connection.get_autocommit():
        raise RuntimeError(f"the database {alias!r} is not in autocommit mode: nothing would be committed")
    with _lock_timeout(connection), transaction.atomic(using=alias, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
        yield


@contextmanager
def _lock_timeout(connection: Any) -> Iterator[None]:
    """SQLite's waiting time belongs to the connection, and the project may have set a longer one."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        usual = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout = {min(usual, LOCK_TIMEOUT * 1000):.0f}")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual}")


def _later(moment: datetime, seconds: float) -> datetime:
    try:
        return min(moment + timedelta(seconds=seconds), FARTHEST)
    except OverflowError:
        return FARTHEST


def _claim(row: ProcessedEvent, token: str) -> Claim:
    return Claim(
        key=row.pk,
        token=token,
        event=row.event,
        received_at=row.received_at,
        attempts=row.attempts,
        crashes=row.crashes,
        progress=_progress(row),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
    )


def _record(row: ProcessedEvent) -> InboxRecord:
    return InboxRecord(
        event=row.event,
        status=Status(row.status),
        attempts=row.attempts,
        crashes=row.crashes,
        received_at=row.received_at,
        next_attempt_at=row.due_at,
        settled_at=row.settled_at,
        last_error=row.last_error,
        progress=_progress(row),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
    )


def _progress(row: ProcessedEvent) -> dict[str, Progress]:
    return {name: Progress(became) for name, became in row.progress.items()}
