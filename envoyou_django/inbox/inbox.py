"""The inbox in the project's database, in the table of the model `ProcessedEvent`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from django.db import ProgrammingError, connections, transaction
from django.db.models import Max

from envoyou_core import ConfigurationError
from envoyou_core.adapter import (
    MAX_CREATED,
    MAX_WAITING,
    Beats,
    ConnectionBudget,
    GroupCommit,
    body_bytes,
    probe_entry,
    transitions,
)
from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import (
    ANY,
    Added,
    Claim,
    ClaimFilter,
    HandlerSet,
    HandlerStatus,
    InboxRecord,
    NewEvent,
    NewRejection,
    Process,
    RejectedDelivery,
    Settlement,
    Status,
    TransactionalInbox,
)
from envoyou_django.inbox import inspection, registry
from envoyou_django.inbox.claims import awaiting, claimable
from envoyou_django.inbox.cleanup import fill_object_keys
from envoyou_django.inbox.columns import encode
from envoyou_django.inbox.commits import committed, own_statement, own_transaction, read_committed, synced
from envoyou_django.inbox.connection import (
    close_old_connections,
    in_event_loop,
    is_in_memory,
    is_outage,
    query_elsewhere,
    replace_broken,
    responds,
)
from envoyou_django.inbox.insert import insert_new, supports
from envoyou_django.inbox.leasing import (
    end_leases,
    exclusive_claim,
    extend_leases,
    lease_holders,
    lease_rows,
    uncount_crash,
)
from envoyou_django.inbox.pools import connection_budget, connection_limit, connection_shortage
from envoyou_django.inbox.pruning import had_effect, prune_watermarks
from envoyou_django.inbox.records import OrmRecords
from envoyou_django.inbox.rejections import OrmRejections
from envoyou_django.inbox.sessions import explain_missing, may_be_changed, replace_connection, unseen
from envoyou_django.inbox.settling import settle
from envoyou_django.inbox.telemetry import OrmTelemetry
from envoyou_django.inbox.transactions import handler_transaction
from envoyou_django.loading import load
from envoyou_django.models import (
    EVENTS,
    MAX_NAME,
    TABLES,
    ProcessedEventQuerySet,
)

__all__ = ["OrmInbox"]

Records = list[InboxRecord]
Processes = list[Process]
RejectedDeliveries = list[RejectedDelivery]


class OrmInbox(OrmRecords, OrmTelemetry, TransactionalInbox):
    """An `Inbox` in the table of `ProcessedEvent`, on the database that the project's routers choose for writing.

    In a server process, one thread stores the events of all threads on a connection of its own: events that arrive
    during one commit share the next. In other processes, and if the calling thread is in a transaction, that thread
    stores the event itself, so that it is part of a test's transaction. Outside of tests an event is never part of
    another transaction, because its commit is what the response promises.

    Args:
        name: separates several `Webhooks` in one database.
        clock: returns epoch seconds.

    Attributes:
        shares_commits: whether this is a server process.

    Raises:
        ConfigurationError: the name is empty or too long.
    """

    def __init__(self, *, name: str = "default", clock: Callable[[], float] = time.time) -> None:
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"the name of an inbox must have 1 to {MAX_NAME} characters, got {name!r}")
        self.name = name
        self.remote: bool = connections[self._alias].vendor != "sqlite"
        self.shares_commits = False
        self._clock = clock
        self._beats = Beats()
        self._writer = GroupCommit[NewEvent, Added](
            self._store_together,
            is_outage=is_outage,
            max_waiting=MAX_WAITING,
            on_idle=close_old_connections,
            on_thread_exit=connections.close_all,
        )
        self._rejections = OrmRejections(name, lambda: self._alias)

    def open(self) -> None:
        connection = connections[self._alias]
        was_connected = connection.connection is not None
        try:
            if not supports(connection):
                raise ConfigurationError(
                    f"the database {self._alias!r} must be SQLite, PostgreSQL or MariaDB to hold the inbox"
                )
            with connection.cursor() as cursor:
                if not set(TABLES).issubset(connection.introspection.table_names(cursor)):
                    raise ConfigurationError(
                        f"the inbox's tables do not exist yet: run `manage.py migrate --database {self._alias}`"
                    )
        finally:
            if not was_connected:
                # Otherwise the first thread of a worker process would keep an idle connection.
                connection.close()

    @property
    def dialect(self) -> str:
        """See `InspectableInbox.dialect`."""
        return inspection.dialect(self._alias)

    @property
    def database_file(self) -> Path | None:
        """See `InspectableInbox.database_file`."""
        return inspection.database_file(self._alias)

    def read_row(self, statement: str) -> tuple[object, ...]:
        """See `InspectableInbox.read_row`."""
        return inspection.read_row(self._alias, statement)

    @property
    def belongs_to_thread(self) -> bool:
        """Whether other threads cannot use the database: it is in memory, or a test's transaction is open."""
        return is_in_memory(self._alias) or connections[self._alias].in_atomic_block

    def try_write(self) -> None:
        """See `InspectableInbox.try_write`."""
        inspection.try_insert(self._alias, self._new_row(probe_entry(), self._now()))

    def close(self) -> None:
        """End the threads that store deliveries. Django opens and closes the other connections."""
        self._writer.close()
        self._rejections.close()

    def add(self, entry: NewEvent) -> Future[Added]:
        if self.adds_together():
            return self._writer.submit(entry)
        future: Future[Added] = Future()
        try:
            future.set_result(self._store([entry])[0])
        except Exception as error:
            future.set_exception(error)
        return future

    def adds_together(self) -> bool:
        """Whether an event that the calling thread adds now shares a commit with the events of other threads.

        On an event loop, where connections must not be used, it does in every server process.
        """
        alias = self._alias
        if not self.shares_commits or is_in_memory(alias):
            return False
        if in_event_loop():
            return True
        connection = connections[alias]
        has_begun = connection.connection is not None and not connection.autocommit
        return not connection.in_atomic_block and not has_begun

    def _store_together(self, entries: Sequence[NewEvent]) -> list[Added]:
        replace_broken(connections[self._alias])
        return self._store(entries)

    def _store(self, entries: Sequence[NewEvent]) -> list[Added]:
        now = self._now()
        in_common = self._arrival(now)
        rows = {_key(entry): in_common | encode(transitions.describe(entry)) for entry in reversed(entries)}
        registration = self._beats.due([entry.handlers for entry in entries], [entry.process for entry in entries], now)
        with committed(self._alias):
            registry.write(registration, self.name, self._alias)
            # In one order: two processes that insert the same events in opposite orders would deadlock.
            new = insert_new([rows[key] for key in sorted(rows)], self._alias)
            if not new and not registration:
                # Otherwise SQLite would have to sync the counter of the primary key, although no row was inserted.
                transaction.set_rollback(True, using=self._alias)
        self._beats.wrote(registration)
        added = []
        for entry in entries:
            if _key(entry) in new:
                # Only the first of several deliveries in one batch is the new one.
                new.remove(_key(entry))
                added.append(Added.NEW)
            else:
                added.append(self._resolve_existing(entry, now))
        return added

    def _resolve_existing(self, entry: NewEvent, now: datetime) -> Added:
        """Requeue the stored event if it is dead, else compare the bodies."""
        stored = self._rows.filter(tenant=entry.tenant, event_id=entry.event.id)
        connection = connections[self._alias]
        with synced(connection), read_committed(connection):
            if stored.filter(status=transitions.REARMABLE).requeue(now):
                return Added.REARMED
        body = stored.filter(scrubbed_at__isnull=True).values_list("body", flat=True).first()
        return transitions.compare_redelivery(entry.event.body, None if body is None else body_bytes(body))

    def keep_rejected(self, rejection: NewRejection) -> Future[int]:
        return self._rejections.keep(rejection, together=self.adds_together())

    def accept_rejected(self, key: int, entry: NewEvent) -> Added:
        """See `WorkerInbox.accept_rejected`. It may be part of another transaction, which then decides over both."""
        now = self._now()
        alias = self._alias
        registration = self._beats.due([entry.handlers], [entry.process], now)
        with synced(connections[alias]), transaction.atomic(using=alias):
            registry.write(registration, self.name, alias)
            new = insert_new([self._new_row(entry, now)], alias)
            added = Added.NEW if new else self._resolve_existing(entry, now)
            self._rejections.rows.filter(pk=key).delete()
        self._beats.wrote(registration)
        return added

    def discard_rejected(self, key: int) -> None:
        """See `InspectableInbox.discard_rejected`."""
        self._rejections.rows.filter(pk=key).delete()

    def _new_row(self, entry: NewEvent, now: datetime) -> dict[str, object]:
        return self._arrival(now) | encode(transitions.describe(entry))

    def _arrival(self, now: datetime) -> dict[str, object]:
        """The columns that all events of one commit have in common."""
        return {"name": self.name, **encode(transitions.arrive(now))}

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        alias = self._alias
        features = connections[alias].features
        now = self._now()
        if claim_filter.ordered:
            fill_object_keys(self._rows.filter(due_at__isnull=False))
        due = claimable(self._rows, claim_filter, now)
        # On SQLite a query without result must not take the lock that acceptance needs.
        if not features.has_select_for_update and not due.exists():
            return []
        registration = self._beats.due([claim_filter.handlers], (), now)
        exclusive = bool(claim_filter.ordered) or not features.has_select_for_update
        with exclusive_claim(self.name, alias) if exclusive else own_transaction(alias):
            registry.write(registration, self.name, alias)
            if claim_filter.ordered:
                # The first query does not lock. On MariaDB a locking query sees events that others commit meanwhile, so
                # that it could return two events of one object that did not see each other.
                keys = list(due.values_list("pk", flat=True)[:limit])
                due = claimable(self._rows.filter(pk__in=keys), replace(claim_filter, ordered=()), now)
            # Locked and limited in a query of its own: under some plans a subquery would be evaluated again for each
            # row, and the claim would exceed the limit.
            rows = load(due.select_for_update(skip_locked=features.has_select_for_update_skip_locked)[:limit])
            claims = lease_rows(self._rows, rows, lease, now, claim_filter, self.handler_sets)
        self._beats.wrote(registration)
        return claims

    def beat(self, process: Process) -> None:
        registration = self._beats.beat(process, self._now())
        with transaction.atomic(using=self._alias):
            registry.write(registration, self.name, self._alias)
        self._beats.wrote(registration)

    def handler_sets(self, ids: Collection[str]) -> dict[str, HandlerSet]:
        return registry.read_sets(self.name, ids, self._alias)

    def lease_holders(self) -> Processes:
        holders = lease_holders(self._rows, self._now())
        return registry.read_processes(self.name, self._alias, holders) if holders else []

    def end_leases(self, process_ids: Collection[str]) -> int:
        with own_statement(self._alias):
            return end_leases(self._rows, process_ids, self._now())

    def extend_leases(self, seconds: float) -> int:
        with own_statement(self._alias):
            return extend_leases(self._rows, seconds, self._now())

    def uncount_crash(self, claim: Claim) -> bool:
        with own_statement(self._alias):
            return uncount_crash(self._rows, claim)

    def has_waiting(self, handlers: HandlerSet | None = None) -> bool:
        return (self._rows.awaiting() if handlers is None else awaiting(self._rows, handlers)).exists()

    def prune_processes(self) -> int:
        return registry.prune_processes(self.name, self._alias, self._now())

    def renew(self, claims: list[Claim], lease: float) -> None:
        due_at = self._now() + timedelta(seconds=lease)
        with own_transaction(self._alias):
            for claim in sorted(claims, key=lambda claim: claim.key):
                self._held(claim).update(due_at=due_at)

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        try:
            if self._record(claim, progress):
                return True
        except ProgrammingError:
            if not may_be_changed(self._alias):
                raise
        if not may_be_changed(self._alias):
            return False
        # A handler of this thread may have changed the session, so that the row is not found.
        replace_connection(self._alias)
        return self._record(claim, progress)

    def _record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        with own_statement(self._alias):
            return self._held(claim).update(progress=dict(progress)) == 1

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[None]:
        """See `TransactionalInbox.transaction`. It is the thread's own transaction, so it gives no connection.

        On SQLite it is rolled back after `TRANSACTION_LIMIT` seconds, because it blocks every other writer.

        Raises:
            SessionStateError: the block has changed the session so that the event's row is not found.
            TransactionTimeoutError: on SQLite, the block took longer.
        """
        with handler_transaction(self._alias, claim.event):
            yield
            with explain_missing(EVENTS):
                held = self._record(claim, progress) if settlement is None else self.settle(claim, settlement())
            if not held:
                raise unseen(self._alias, EVENTS) if self._is_held_elsewhere(claim) else LeaseLostError

    def _is_held_elsewhere(self, claim: Claim) -> bool:
        """Whether another connection finds the lease of a claim."""
        if is_in_memory(self._alias):
            return False
        query = f"SELECT 1 FROM {EVENTS} WHERE id = %s AND lease_token = %s"  # noqa: S608 - a constant
        return query_elsewhere(self._alias, query, [claim.key, claim.token]) is not None

    @property
    def connection_budget(self) -> ConnectionBudget:
        """Bounds the transactions of handlers if the database has a pool."""
        return connection_budget(self._alias)

    def connection_shortage(self) -> str:
        return connection_shortage(self._alias)

    def connection_limit(self) -> int | None:
        return connection_limit(self._alias)

    def responds(self) -> bool:
        return responds(self._alias)

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        with own_statement(self._alias):
            return settle(self._held(claim), claim, settlement, self._now())

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        now = self._now()
        settled = [False] * len(settlements)
        with own_transaction(self._alias):
            # In the order of the keys, as in every transaction that changes several rows. Others could deadlock.
            for index in sorted(range(len(settlements)), key=lambda index: settlements[index][0].key):
                claim, settlement = settlements[index]
                settled[index] = settle(self._held(claim), claim, settlement, now)
        return settled

    def _held(self, claim: Claim) -> ProcessedEventQuerySet:
        return self._rows.filter(pk=claim.key, lease_token=claim.token)

    def newest_applied(self, claim: Claim) -> int | None:
        object_id = claim.event.object_id
        if object_id is None:
            return None
        fill_object_keys(self._rows)
        # SQLite may hold text instead of a number, which is greater than every number.
        about = self._rows.filter(tenant=claim.tenant, object_key=object_id, created__lte=MAX_CREATED)
        applied = [about.filter(status=Status.PROCESSED).aggregate(newest=Max("created"))["newest"]]
        partly = about.exclude(status=Status.PROCESSED).exclude(progress={})
        applied += [row.created for row in partly.only("created", "progress") if had_effect(row)]
        # The watermarks come last, so that an event that is pruned meanwhile is seen as one or the other.
        applied += self._watermarks.filter(tenant=claim.tenant, object_key=object_id).values_list("created", flat=True)
        return max((created for created in applied if created is not None), default=None)

    def prune_watermarks(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        before = self._clock() - older_than.total_seconds()
        if dry_run:
            return self._watermarks.filter(created__lt=before).count()
        return prune_watermarks(self._watermarks, before)


def _key(entry: NewEvent) -> tuple[str, str]:
    return entry.tenant, entry.event.id
