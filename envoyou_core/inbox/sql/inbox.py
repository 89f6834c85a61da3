"""The inbox in a SQL database, on SQLAlchemy Core: SQLite by default, PostgreSQL and MariaDB by URL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import cast

from sqlalchemy import URL, Connection, Engine, QueuePool, select, text

from envoyou_core.errors import ConfigurationError, LeaseLostError
from envoyou_core.inbox.connection_budget import CONNECTION_LIMITS, ConnectionBudget, shortage
from envoyou_core.inbox.deadlines import TRANSACTION_LIMIT, time_limit
from envoyou_core.inbox.group_commit import MAX_BATCH, MAX_WAITING, GroupCommit
from envoyou_core.inbox.handler_queue import HandlerTransactionQueue
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.inspection import probe_entry
from envoyou_core.inbox.processes import Beats, Process
from envoyou_core.inbox.protocol import TransactionalInbox
from envoyou_core.inbox.records import (
    ANY,
    Added,
    Claim,
    ClaimFilter,
    HandlerStatus,
    InboxRecord,
    NewEvent,
    Settlement,
)
from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery
from envoyou_core.inbox.sql import (
    acceptance,
    cleanup,
    joining,
    leasing,
    reading,
    registry,
    rejections,
    sessions,
    settling,
)
from envoyou_core.inbox.sql.claims import IS_HELD, lease_of
from envoyou_core.inbox.sql.engines import close_engine, is_outage, max_connections
from envoyou_core.inbox.sql.records import SqlRecords
from envoyou_core.inbox.sql.schema import inbox_table
from envoyou_core.inbox.sql.telemetry import SqlTelemetry

__all__ = ["SqlInbox"]

MAX_REJECTIONS_WAITING = 64
"""The largest number of rejected deliveries that may wait to be kept. It bounds memory while the database hangs."""

MAX_NAME = 64
"""The maximum length of an inbox's name, in characters."""

Records = list[InboxRecord]
Processes = list[Process]
RejectedDeliveries = list[RejectedDelivery]

_t = inbox_table.c


class _RolledBackError(Exception):
    """Ends a transaction that is not to be committed."""


class SqlInbox(SqlRecords, SqlTelemetry, TransactionalInbox):
    """An inbox in a table of a SQL database.

    SQLite runs in WAL mode with synchronous=FULL, so that a commit survives a power cut. Its tables are created and
    upgraded automatically; on a server `envoyou migrate` does it.

    Args:
        database: a URL, or the application's engine, which is used unchanged. The engine needs `hide_parameters=True`,
            because the parameters contain payloads. On SQLite it must set WAL, synchronous=FULL and BEGIN IMMEDIATE,
            on MariaDB READ COMMITTED and a strict `sql_mode`.
        name: separates several `Webhooks` in one database.
        clock: returns epoch seconds.
        max_batch: the maximum number of events that share one commit.

    Attributes:
        file: the SQLite file; `None` for a server, and for an application's engine in memory.
        location: the URL without its password, with the absolute path of a file, for display.
        creates_file: whether `open` creates a file that does not exist; see `SqlDatabase`.
        connection_budget: bounds the transactions of handlers if the application's engine has a bounded pool.
        remote: whether the database is reached over a network.

    Raises:
        ConfigurationError: the name or the URL is invalid, the driver is not installed, or the dialect is not
            supported.
    """

    def __init__(
        self,
        database: str | URL | Engine,
        *,
        name: str = "default",
        clock: Callable[[], float] = time.time,
        max_batch: int = MAX_BATCH,
    ) -> None:
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"the name of an inbox must have 1 to {MAX_NAME} characters, got {name!r}")
        self.name = name
        self._clock = clock
        super().__init__(database)
        self._handler_queue = HandlerTransactionQueue()
        self._beats = Beats()
        # On SQLite handlers wait for the lock anyway.
        self.connection_budget = ConnectionBudget(max_connections(self._engine) if self.remote else None)
        self._writer = GroupCommit[NewEvent, Added](
            self._store, is_outage=is_outage, max_batch=max_batch, max_waiting=MAX_WAITING
        )
        # A writer of its own, so that no accepted event waits for a rejected one.
        self._rejection_writer = GroupCommit[NewRejection, int](
            self._store_rejected,
            is_outage=is_outage,
            max_batch=max_batch,
            max_waiting=MAX_REJECTIONS_WAITING,
            name="envoyou-rejection-writer",
        )

    def close(self) -> None:
        self._writer.close()
        self._rejection_writer.close()
        close_engine(self._engine)

    # Acceptance

    def add(self, entry: NewEvent) -> Future[Added]:
        return self._writer.submit(entry)

    def _store(self, entries: Sequence[NewEvent]) -> list[Added]:
        self.open()
        now = self._moment()
        rows = acceptance.new_rows(self.name, entries, now)
        registration = self._beats.due([entry.handlers for entry in entries], [entry.process for entry in entries], now)
        with self._accepting() as connection:
            registry.write(connection, self.name, registration)
            new = acceptance.insert_new(connection, rows)
            added = acceptance.resolve(connection, self.name, entries, new, now)
        self._beats.wrote(registration)
        return added

    def try_write(self) -> None:
        """See `InspectableInbox.try_write`."""
        self.open()
        rows = acceptance.new_rows(self.name, [probe_entry()], self._moment())
        with suppress(_RolledBackError), self._accepting() as connection:
            acceptance.insert_new(connection, rows)
            raise _RolledBackError

    # Rejected deliveries

    def keep_rejected(self, rejection: NewRejection) -> Future[int]:
        return self._rejection_writer.submit(rejection)

    def _store_rejected(self, entries: Sequence[NewRejection]) -> Sequence[int]:
        self.open()
        with self._writing() as connection:
            deleted = rejections.keep_all(connection, self.name, entries)
        return [deleted, *[0] * (len(entries) - 1)]

    def discard_rejected(self, key: int) -> None:
        """See `InspectableInbox.discard_rejected`."""
        self.open()
        with self._writing() as connection:
            rejections.delete_matching(connection, rejections.matching(self.name, key=key))

    def accept_rejected(self, key: int, entry: NewEvent) -> Added:
        self.open()
        now = self._moment()
        registration = self._beats.due([entry.handlers], [entry.process], now)
        with self._writing() as connection:
            registry.write(connection, self.name, registration)
            new = acceptance.insert_new(connection, acceptance.new_rows(self.name, [entry], now))
            (added,) = acceptance.resolve(connection, self.name, [entry], new, now)
            rejections.delete_matching(connection, rejections.matching(self.name, key=key))
        self._beats.wrote(registration)
        return added

    # Leases and attempts

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        self.open()
        if claim_filter.ordered:
            self._fill_object_keys(_t.due_at.is_not(None))
        now = self._moment()
        registration = self._beats.due([claim_filter.handlers], (), now)
        with self._writing() as connection:
            registry.write(connection, self.name, registration)
            if claim_filter.ordered:
                leasing.lock_claims(connection, self.name)
            claims = leasing.lease_due(connection, self.name, limit, lease, claim_filter, now)
        self._beats.wrote(registration)
        return claims

    def renew(self, claims: list[Claim], lease: float) -> None:
        now = self._moment()
        if claims:
            with self._writing() as connection:
                leasing.renew(connection, claims, lease, now)

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        with self._writing() as connection:
            return settling.record(connection, claim, progress)

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        return self.settle_all([(claim, settlement)])[0]

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        if not settlements:
            return []
        try:
            with self._writing() as connection:
                if not settling.settle_together(connection, settlements, self._moment()):
                    raise LeaseLostError
        except LeaseLostError:
            # One statement for each shows which leases were lost.
            with self._writing() as connection:
                return [settling.settle(connection, *pair, self._moment()) for pair in settlements]
        return [True] * len(settlements)

    def newest_applied(self, claim: Claim) -> int | None:
        object_id = claim.event.object_id
        if object_id is None:
            return None
        with self._reading() as connection:
            return reading.newest_applied(connection, self.name, claim.tenant, object_id)

    def prune_watermarks(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        self.open()
        before = self._clock() - older_than.total_seconds()
        with self._writing() as connection:
            return cleanup.prune_watermarks(connection, self.name, before, dry_run=dry_run)

    # Processes and their handlers

    def beat(self, process: Process) -> None:
        self.open()
        registration = self._beats.beat(process, self._moment())
        with self._writing() as connection:
            registry.write(connection, self.name, registration)
        self._beats.wrote(registration)

    def handler_sets(self, ids: Collection[str]) -> dict[str, HandlerSet]:
        self.open()
        with self._reading() as connection:
            return registry.read_sets(connection, self.name, ids)

    def lease_holders(self) -> Processes:
        self.open()
        with self._reading() as connection:
            holders = leasing.lease_holders(connection, self.name, self._moment())
            return registry.read_processes(connection, self.name, holders) if holders else []

    def end_leases(self, process_ids: Collection[str]) -> int:
        self.open()
        with self._writing() as connection:
            return leasing.end_leases(connection, self.name, process_ids, self._moment())

    def extend_leases(self, seconds: float) -> int:
        self.open()
        with self._writing() as connection:
            return leasing.extend_leases(connection, self.name, seconds, self._moment())

    def uncount_crash(self, claim: Claim) -> bool:
        with self._writing() as connection:
            return leasing.uncount_crash(connection, claim)

    def has_waiting(self, handlers: HandlerSet | None = None) -> bool:
        self.open()
        with self._reading() as connection:
            return reading.has_waiting(connection, self.name, handlers)

    def prune_processes(self) -> int:
        self.open()
        with self._writing() as connection:
            return registry.prune_processes(connection, self.name, self._moment())

    def connection_shortage(self) -> str:
        total, pool = max_connections(self._engine), self._engine.pool
        is_exhausted = total is not None and isinstance(pool, QueuePool) and pool.checkedout() >= total
        return shortage(total) if total is not None and is_exhausted else ""

    def connection_limit(self) -> int | None:
        query = CONNECTION_LIMITS.get(self._engine.dialect.name)
        if query is None:
            return None
        with self._reading() as connection:
            limit: int | None = connection.execute(text(query)).scalar()
            return limit

    def responds(self) -> bool:
        try:
            with self._reading() as connection:
                connection.execute(select(1))
        except Exception:
            return False
        return True

    # Transactions of handlers

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[Connection]:
        """See `TransactionalInbox.transaction`.

        On SQLite the transaction is rolled back after `TRANSACTION_LIMIT` seconds, because it blocks every other
        writer. Calls of the inbox in the block then take part in the transaction. On a server they use connections of
        their own and are committed at once.

        Raises:
            SessionStateError: on PostgreSQL, the block has changed the session so that the event's row is not found.
            TransactionTimeoutError: on SQLite, the block took longer.
            WouldDeadlockError: on SQLite, it is called within another handler's transaction.
        """
        self.open()
        if not self.remote:
            joining.refuse_nested(self._lock_domain)
        with self._handler_slot() as release, self._engine.connect() as connection:
            sessions.note_state(connection)
            with connection.begin(), self._time_limit(connection, release), self._joinable(connection):
                yield connection
                is_changed = self._end_transaction(connection, claim, progress, settlement)
            if is_changed:
                sessions.close_if_changed(connection)

    @contextmanager
    def _handler_slot(self) -> Iterator[Callable[[], None]]:
        """Hold SQLite's write lock for a handler, until the block ends or the given function is called.

        On a server a slot is the right to hold a connection of the pool.
        """
        if self.remote:
            with self.connection_budget.slot():
                yield lambda: None
            return
        # Handlers wait for each other in a queue without a time limit, because their transactions are long. Only the
        # first of them waits for the lock, so no other writer waits for more than one handler.
        with self._handler_queue.slot() as slot, self._write_lock.held() as release_lock:
            slot.lock_taken()

            def release() -> None:
                release_lock()
                slot.release()

            yield release

    def _end_transaction(
        self,
        connection: Connection,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None,
    ) -> bool:
        """Record or settle in a handler's transaction; returns whether the session differs from its usual state.

        Raises:
            LeaseLostError: the lease was lost.
            SessionStateError: the lease is held, but the connection does not find the event's row.
        """
        usual = sessions.usual_state(connection)
        with sessions.explain_missing():
            if usual is None:
                held = self._end_attempt(connection, claim, progress, settlement)
                state = None
            elif settlement is None:
                state = settling.record_and_read_session(connection, claim, progress)
                held = state is not None
            else:
                state = settling.settle_and_read_session(connection, claim, settlement(), self._moment())
                held = state is not None
        if not held:
            raise sessions.unseen(connection) if self._is_held(claim) else LeaseLostError
        return usual is not None and (state != usual or sessions.was_named(connection))

    def _end_attempt(
        self,
        connection: Connection,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None,
    ) -> bool:
        if settlement is None:
            return settling.record(connection, claim, progress)
        return settling.settle(connection, claim, settlement(), self._moment())

    def _is_held(self, claim: Claim) -> bool:
        """Whether another connection finds the lease of a claim."""
        with self._reading() as connection:
            return connection.scalar(select(_t.key).where(IS_HELD), lease_of(claim)) is not None

    def _joinable(self, connection: Connection | None) -> AbstractContextManager[None]:
        return nullcontext() if self.remote else joining.handler_transaction(self._lock_domain, connection)

    def _time_limit(self, connection: Connection, expired: Callable[[], None]) -> AbstractContextManager[None]:
        if self.remote:
            return nullcontext()
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        return time_limit(driver, TRANSACTION_LIMIT, expired)
