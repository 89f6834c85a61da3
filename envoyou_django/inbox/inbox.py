"""The inbox in the project's own database, by way of the model `ProcessedEvent`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import Error, InterfaceError, OperationalError, connections, router, transaction
from django.db.models import F, Max, Min, Model, QuerySet

from envoyou_core import ConfigurationError
from envoyou_core.adapter import (
    MAX_CREATED,
    MAX_WAITING,
    GroupCommit,
    body_bytes,
    claim_of,
    encode_history,
    object_key,
    progress_of,
    record_of,
    settled_progress,
    with_attempt,
    with_crash,
)
from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import (
    ANY,
    COUNTED,
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
    is_applied,
    prunable_statuses,
    requeuable_statuses,
    stats_of,
)
from envoyou_django.connections import close_old_connections
from envoyou_django.counting import count_by_status
from envoyou_django.fields import stored_moment
from envoyou_django.inbox.claims import claimable
from envoyou_django.inbox.cleanup import fill_object_keys, key_of, scrub, scrubbed, update_each
from envoyou_django.inbox.insert import insert_new, supports
from envoyou_django.inbox.transactions import handler_transaction
from envoyou_django.loading import load
from envoyou_django.models import (
    MAX_NAME,
    TABLES,
    ClaimLock,
    ObjectMark,
    PausedSubject,
    ProcessedEvent,
    ProcessedEventQuerySet,
)

__all__ = ["OrmInbox"]

LOCK_TIMEOUT = 2.0
"""Seconds that an acceptance waits for a lock: less than the time a sender waits for its answer."""

SYNCHRONOUS_FULL = 2
"""As `PRAGMA synchronous` says it."""

REPRESENTABLE = (datetime(1000, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
"""Times that every database and Python can hold, in any time zone; PostgreSQL also has `infinity`."""

PRUNE_BATCH = 500
"""Rows deleted in one transaction, so that acceptance never waits long behind it."""

Records = list[InboxRecord]


class OrmInbox:
    """An `Inbox` in the table of `ProcessedEvent`, on the database that the project's routers choose for writing.

    In a process that serves, one thread stores what all others ask for, on a connection of its own: what is asked for
    while one commit is under way shares the next. Elsewhere, and where the asking thread has a transaction open, the
    event is stored by that thread, so that within a test's transaction it is part of it. Outside a test it is never
    part of another one: its commit is the promise.

    Args:
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.

    Attributes:
        shares_commits: whether this process serves.

    Raises:
        ConfigurationError: the name is too long, or empty.
    """

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"the name of an inbox has 1 to {MAX_NAME} characters, not {name!r}")
        self.name = name
        self.remote: bool = connections[self._alias].vendor != "sqlite"
        self.shares_commits = False
        self._clock = clock
        self._writer = GroupCommit[NewEvent, Added](
            self._store_together,
            is_outage=_is_outage,
            max_waiting=MAX_WAITING,
            on_idle=_close_old_connections,
            on_thread_exit=connections.close_all,
        )

    def open(self) -> None:
        """See `Inbox.open`."""
        connection = connections[self._alias]
        was_connected = connection.connection is not None
        try:
            if not supports(connection):
                raise ConfigurationError(
                    f"the database {self._alias!r} cannot hold the inbox: SQLite, PostgreSQL and MariaDB can"
                )
            with connection.cursor() as cursor:
                if not set(TABLES).issubset(connection.introspection.table_names(cursor)):
                    raise ConfigurationError(
                        f"the inbox's tables are not there yet: run `manage.py migrate --database {self._alias}`"
                    )
        finally:
            if not was_connected:
                # The first thread of a worker process would hold it, idle, for as long as that lives.
                connection.close()

    def close(self) -> None:
        """Let the thread that stores end. Other connections are Django's to open and close."""
        self._writer.close()

    def add(self, entry: NewEvent) -> Future[Added]:
        """See `Inbox.add`."""
        if self.adds_together():
            return self._writer.submit(entry)
        future: Future[Added] = Future()
        try:
            future.set_result(self._store([entry])[0])
        except Exception as error:
            future.set_exception(error)
        return future

    def adds_together(self) -> bool:
        """Whether what the calling thread adds now shares a commit with what other threads add.

        On an event loop, where nobody may use a connection, it does whenever this process serves.
        """
        alias = self._alias
        if not self.shares_commits or _is_in_memory(alias):
            return False
        if _on_an_event_loop():
            return True
        connection = connections[alias]
        has_begun = connection.connection is not None and not connection.autocommit
        return not connection.in_atomic_block and not has_begun

    def _store_together(self, entries: Sequence[NewEvent]) -> list[Added]:
        _renew(connections[self._alias])
        return self._store(entries)

    def _store(self, entries: Sequence[NewEvent]) -> list[Added]:
        now = self._now()
        rows = {_key(entry): self._new_row(entry, now) for entry in reversed(entries)}
        with _committed(self._alias):
            # Two processes that insert the same events in opposite orders would wait for each other.
            new = insert_new([rows[key] for key in sorted(rows)], self._alias)
            if not new:
                # A number that SQLite has counted up for nothing would have to reach the disk otherwise.
                transaction.set_rollback(True, using=self._alias)
        added = []
        for entry in entries:
            if _key(entry) in new:
                # Only the first of several deliveries at once is the new one.
                new.remove(_key(entry))
                added.append(Added.NEW)
            else:
                added.append(self._resolve_existing(entry, now))
        return added

    def _resolve_existing(self, entry: NewEvent, now: datetime) -> Added:
        """What it is to one that is there already."""
        stored = self._rows.filter(tenant=entry.tenant, event_id=entry.event.id)
        with _synced(connections[self._alias]):
            if stored.filter(status=Status.DEAD).requeue(now):
                return Added.REARMED
        bodies = stored.filter(scrubbed_at__isnull=True).values_list("body", flat=True)
        same = all(body_bytes(body) == entry.event.body for body in bodies)
        return Added.DUPLICATE if same else Added.BODY_DIFFERS

    def _new_row(self, entry: NewEvent, now: datetime) -> dict[str, object]:
        return {
            "name": self.name,
            "tenant": entry.tenant,
            "event_id": entry.event.id,
            "type": entry.event.type,
            "created": entry.event.created,
            "webhook_id": entry.webhook_id,
            "body": entry.event.body,
            "status": Status.RECEIVED.value,
            "attempts": 0,
            "crashes": 0,
            "progress": {},
            "received_at": now if entry.received_at is None else entry.received_at,
            "due_at": now,
            "object_key": key_of(entry.event),
        }

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        """See `Inbox.claim`."""
        alias = self._alias
        features = connections[alias].features
        now = self._now()
        if claim_filter.ordered:
            fill_object_keys(self._rows.filter(due_at__isnull=False))
        due = claimable(self._rows, claim_filter, now)
        # On SQLite looking must not take the lock that acceptance needs.
        if not features.has_select_for_update and not due.exists():
            return []
        alone = bool(claim_filter.ordered) or not features.has_select_for_update
        with self._alone() if alone else transaction.atomic(using=alias):
            if claim_filter.ordered:
                # First without locks, in one look: MariaDB sees what arrives meanwhile where it locks, and so could
                # find two events of one object, of which neither was there yet when it came by the other.
                keys = list(due.values_list("pk", flat=True)[:limit])
                due = claimable(self._rows.filter(pk__in=keys), ANY, now)
            # Locked and limited in a query of their own: under some plans a subquery would be asked anew for each row,
            # and more would be claimed than was asked for.
            rows = load(due.select_for_update(skip_locked=features.has_select_for_update_skip_locked)[:limit])
            return self._take(rows, now, lease)

    def _take(self, rows: Sequence[ProcessedEvent], now: datetime, lease: float) -> list[Claim]:
        token = uuid.uuid4().hex
        self._rows.filter(pk__in=[row.pk for row in rows]).update(
            status=Status.PROCESSING.value, due_at=now + timedelta(seconds=lease), lease_token=token
        )
        return [self._claim(row, token, now) for row in rows]

    def _claim(self, row: ProcessedEvent, token: str, now: datetime) -> Claim:
        claim = claim_of(row, key=row.pk, token=token, moment=stored_moment)
        if row.status != Status.PROCESSING:
            return claim
        claim = replace(claim, crashes=claim.crashes + 1, history=with_crash(claim.history, now))
        self._rows.filter(pk=row.pk).update(crashes=F("crashes") + 1, history=encode_history(claim.history))
        return claim

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A transaction in which no other claim on this inbox is looking or taking.

        Of two that look at the same time, one could take an event while the other takes one that is to wait for it.
        """
        alias = self._alias
        connection = connections[alias]
        is_outermost = not connection.in_atomic_block
        with transaction.atomic(using=alias):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    if is_outermost:
                        # A project may have asked for more, and would see what was there before it waited.
                        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    key = f"envoyou_claim:{self.name}"
                    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
            else:
                # On SQLite any write takes the one lock there is, and is the only thing to begin with: a transaction
                # that reads first and writes later fails at once where another writer came between.
                self._lock_or_create([ClaimLock(name=self.name)], "name")
            yield

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        due_at = self._now() + timedelta(seconds=lease)
        with transaction.atomic(using=self._alias):
            for claim in sorted(claims, key=lambda claim: claim.key):
                self._held(claim).update(due_at=due_at)

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        """See `Inbox.record`."""
        return self._held(claim).update(progress=dict(progress)) == 1

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[None]:
        """See `TransactionalInbox.transaction`. It is the thread's own, so there is nothing to give to a handler.

        On SQLite it ends, rolled back, after `TRANSACTION_LIMIT` seconds, for it keeps every other writer out.

        Raises:
            TransactionTimeoutError: on SQLite, its time was over.
        """
        with handler_transaction(self._alias, claim.event):
            yield
            held = self.record(claim, progress) if settlement is None else self.settle(claim, settlement())
            if not held:
                raise LeaseLostError

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        return self._settle(claim, settlement, self._now())

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """See `Inbox.settle_all`."""
        now = self._now()
        settled = [False] * len(settlements)
        with transaction.atomic(using=self._alias):
            for place in sorted(range(len(settlements)), key=lambda place: settlements[place][0].key):
                settled[place] = self._settle(*settlements[place], now)
        return settled

    def _settle(self, claim: Claim, settlement: Settlement, now: datetime) -> bool:
        history = with_attempt(claim.history, settlement, now)
        progress = settled_progress(claim, settlement)
        ended = {
            "status": settlement.status.value,
            "attempts": settlement.attempts,
            **({} if progress is None else {"progress": progress}),
            "due_at": None if settlement.retry_in is None else now + timedelta(seconds=settlement.retry_in),
            "lease_token": None,
            "settled_at": now if settlement.status in FINISHED else None,
            "last_error": settlement.error,
            "history": encode_history(history),
        }
        held = self._held(claim)
        if settlement.scrub:
            settled = held.update(**ended | scrubbed(claim.event, history, now))
        elif settlement.status in FINISHED:
            settled = held.filter(erase_requested_at__isnull=True).update(**ended) or held.filter(
                erase_requested_at__isnull=False
            ).update(**ended | scrubbed(claim.event, history, now))
        else:
            settled = held.update(**ended)
        return bool(settled)

    def newest_applied(self, claim: Claim) -> int | None:
        """See `Inbox.newest_applied`."""
        object_id = claim.event.object_id
        if object_id is None:
            return None
        fill_object_keys(self._rows)
        # SQLite may hold anything in place of a number, and text counts as greater than all numbers there.
        about = self._rows.filter(tenant=claim.tenant, object_key=object_id, created__lte=MAX_CREATED)
        applied = [about.filter(status=Status.PROCESSED).aggregate(newest=Max("created"))["newest"]]
        partly = about.exclude(status=Status.PROCESSED).exclude(progress={})
        applied += [row.created for row in partly.only("created", "progress") if is_applied(_progress(row))]
        # Last: an event that is pruned meanwhile is seen as one or the other.
        applied += self._marks.filter(tenant=claim.tenant, object_key=object_id).values_list("created", flat=True)
        return max((created for created in applied if created is not None), default=None)

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        due_at = self._rows.filter(due_at__range=REPRESENTABLE).aggregate(first=Min("due_at"))["first"]
        return None if due_at is None else (due_at - self._now()).total_seconds()

    def seconds_until_next_due(self) -> float | None:
        """Until something comes due that is not due yet; what is paused or held up by another event does not count."""
        now = self._now()
        due_at = self._rows.filter(due_at__gt=now).aggregate(first=Min("due_at"))["first"]
        return None if due_at is None else (due_at - now).total_seconds()

    def pause(self, subject: str) -> None:
        """See `Inbox.pause`."""
        if subject not in self.paused():
            self._paused.create(name=self.name, subject=subject)

    def resume(self, subject: str) -> None:
        """See `Inbox.resume`."""
        # Compared here: databases may take different ones for the same.
        keys = [key for key, found in self._paused.values_list("pk", "subject") if found == subject]
        self._paused.filter(pk__in=keys).delete()

    def paused(self) -> frozenset[str]:
        """See `Inbox.paused`."""
        return frozenset(self._paused.values_list("subject", flat=True))

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
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
        """See `Inbox.list`."""
        statuses = None if status is None else frozenset({Status(status)})
        found = self._matching(statuses=statuses, type=type, object_id=object_id)
        return [record_of(row, moment=stored_moment) for row in load(found.order_by("-pk")[:limit])]

    def stats(self, *, exact: bool = False) -> InboxStats:
        """See `Inbox.stats`."""
        limit = None if exact else COUNTED
        counts = count_by_status(self._rows, limit, index_order="settled_at")
        return stats_of(counts, max(0.0, -(self.seconds_until_due() or 0.0)), limit=limit)

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> int:
        """See `Inbox.requeue`."""
        return self.requeuable(event_id, status=status, type=type, tenant=tenant).requeue(self._now())

    def requeuable(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> ProcessedEventQuerySet:
        """What `requeue` would bring back, given the same.

        Raises:
            ValueError: nothing was named, or a status that cannot be requeued.
        """
        statuses = requeuable_statuses(event_id, status, type)
        found = self._matching(statuses=statuses, event_id=event_id, type=type, tenant=tenant)
        return found.filter(scrubbed_at__isnull=True)

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        old = self._settled_before(older_than, statuses)
        fill_object_keys(old)
        pruned = 0
        while batch := list(old.only("tenant", "object_key", "created", "status", "progress")[:PRUNE_BATCH]):
            with transaction.atomic(using=self._alias):
                # Asked once more: one of them may have been requeued meanwhile. What had an effect had it all the same.
                pruned += old.filter(pk__in=[row.pk for row in batch]).delete()[0]
                self._mark([row for row in batch if row.object_key and _is_applied(row) and _has_created(row)])
        return pruned

    def _mark(self, applied: Sequence[ProcessedEvent]) -> None:
        newest: dict[tuple[str, str], int] = {}
        for row in applied:
            about = (row.tenant, row.object_key)
            newest[about] = max(row.created, newest.get(about, 0))
        if not newest:
            return
        marks = [
            ObjectMark(name=self.name, tenant=tenant, object_key=key, created=created)
            for (tenant, key), created in sorted(newest.items())
        ]
        # One that is there already keeps what it says until it is known which of the two is newer.
        self._lock_or_create(marks, "name", "tenant", "object_key")
        for mark in marks:
            self._marks.filter(tenant=mark.tenant, object_key=mark.object_key, created__lt=mark.created).update(
                created=mark.created
            )

    def _lock_or_create(self, rows: Sequence[Model], *key: str) -> None:
        # In one statement: to look, insert and look again would have several wait for one another.
        with_target = connections[self._alias].features.supports_update_conflicts_with_target
        type(rows[0]).objects.using(self._alias).bulk_create(
            rows, update_conflicts=True, update_fields=key[-1:], unique_fields=key if with_target else None
        )

    def prune_watermarks(self, older_than: timedelta) -> int:
        """See `Inbox.prune_watermarks`."""
        before = self._clock() - older_than.total_seconds()
        old = self._marks.filter(created__lt=before)
        forgotten = 0
        while keys := list(old.values_list("pk", flat=True)[:PRUNE_BATCH]):
            forgotten += old.filter(pk__in=keys).delete()[0]
        return forgotten

    def scrub(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.scrub`."""
        return scrub(self._settled_before(older_than, statuses), self._now())

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        """See `Inbox.erase`."""
        now = self._now()
        about = self._matching(object_id=object_id, tenant=tenant).filter(scrubbed_at__isnull=True)
        # First all of them: whoever finishes one from now on deletes its payload.
        asked = update_each(
            about.filter(erase_requested_at__isnull=True).only("pk"), lambda _: {"erase_requested_at": now}
        )
        scrub(about.filter(status__in=FINISHED), now)
        return asked

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
        asked: dict[str, object] = {"status__in": statuses, "event_id": event_id, "type": type, "tenant": tenant}
        if object_id is not None:
            fill_object_keys(self._rows)
            asked["object_key"] = object_key(object_id)
        return self._rows.filter(**{name: value for name, value in asked.items() if value is not None})

    def _held(self, claim: Claim) -> ProcessedEventQuerySet:
        return self._rows.filter(pk=claim.key, lease_token=claim.token)

    @property
    def _rows(self) -> ProcessedEventQuerySet:
        # Never from a replica: what it has not heard of yet would be a loss or a repetition.
        return ProcessedEvent.objects.using(self._alias).filter(name=self.name)

    @property
    def _marks(self) -> QuerySet:
        return ObjectMark.objects.using(self._alias).filter(name=self.name)

    @property
    def _paused(self) -> QuerySet:
        return PausedSubject.objects.using(self._alias).filter(name=self.name)

    @property
    def location(self) -> str:
        """Which of the project's databases holds the inbox, for people."""
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


def _key(entry: NewEvent) -> tuple[str, str]:
    return entry.tenant, entry.event.id


def _is_outage(error: Exception) -> bool:
    """Whether nothing can be stored now, rather than that one event is refused."""
    return isinstance(error, OperationalError | InterfaceError | RuntimeError)


def _is_in_memory(alias: str) -> bool:
    """Whether the database is SQLite's in memory, of which each connection has its own, or all but one are locked out.

    Said by the settings, for on an event loop there is no connection to be asked.
    """
    settings = connections.settings[alias]
    name = str(settings["NAME"])
    return settings["ENGINE"].endswith("sqlite3") and (":memory:" in name or "mode=memory" in name)


def _on_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _renew(connection: Any) -> None:
    """Close a connection that was broken meanwhile, or is past its age; the next query opens another."""
    # One that may not be kept at all is closed when nothing is left to store, rather than between two commits.
    if connection.settings_dict["CONN_MAX_AGE"] != 0:
        connection.close_if_unusable_or_obsolete()
    if connection.connection is not None and not connection.is_usable():
        connection.close()


def _close_old_connections() -> None:
    with suppress(Error):
        close_old_connections()


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
    with _synced(connection), _lock_timeout(connection), transaction.atomic(using=alias, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
        yield


@contextmanager
def _synced(connection: Any) -> Iterator[None]:
    """On SQLite the project may have set a mode in which a commit is not on disk yet, as is usual beside WAL."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        (usual,) = cursor.fetchone()
        if usual >= SYNCHRONOUS_FULL:
            yield
            return
        cursor.execute(f"PRAGMA synchronous = {SYNCHRONOUS_FULL}")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA synchronous = {usual}")


@contextmanager
def _lock_timeout(connection: Any) -> Iterator[None]:
    """Where the waiting time belongs to the connection, the project may have set a longer one, or none."""
    if connection.vendor == "sqlite":
        ask, set_to, seconds = "PRAGMA busy_timeout", "PRAGMA busy_timeout = {:.0f}", 0.001
    elif connection.vendor == "mysql":
        # The second one is about locks on a whole table, as while it is being altered.
        ask = "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout"
        set_to, seconds = "SET innodb_lock_wait_timeout = {:.0f}, lock_wait_timeout = {:.0f}", 1.0
    else:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(ask)
        usual = cursor.fetchone()
        cursor.execute(set_to.format(*(min(value, LOCK_TIMEOUT / seconds) for value in usual)))
        try:
            yield
        finally:
            cursor.execute(set_to.format(*usual))


def _is_applied(row: ProcessedEvent) -> bool:
    return row.status == Status.PROCESSED or is_applied(_progress(row))


def _has_created(row: ProcessedEvent) -> bool:
    return isinstance(row.created, int)


def _progress(row: ProcessedEvent) -> dict[str, HandlerStatus]:
    try:
        return progress_of(row.progress)
    except ValueError:
        return {}
