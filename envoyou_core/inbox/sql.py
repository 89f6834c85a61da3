"""The inbox in a SQL database, on SQLAlchemy Core: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Update,
    and_,
    bindparam,
    case,
    create_engine,
    delete,
    event,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from envoyou_core.errors import ConfigurationError, LeaseLostError
from envoyou_core.event import Event
from envoyou_core.inbox.group_commit import MAX_BATCH, GroupCommit
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
from envoyou_core.inbox.schema import check_schema, create_schema, inbox_table
from envoyou_core.inbox.time_limit import time_limit

__all__ = ["SqlInbox"]

CONNECT_TIMEOUT = 2
"""Seconds to wait for a database's connection or lock: less than the time a sender waits for its answer."""

TRANSACTION_LIMIT = 1.0
"""Seconds that a handler's transaction may last on SQLite: less than another writer waits for its lock."""

PRUNE_BATCH = 500
"""Rows deleted in one transaction, so that acceptance never waits long behind it."""

LONGEST_NAME = 64
"""Characters that the name of an inbox may have."""

Records = list[InboxRecord]

_t = inbox_table.c
_HELD = and_(_t.key == bindparam("held_key"), _t.lease_token == bindparam("held_token"))


class SqlInbox:
    """An `Inbox` in a table of a SQL database.

    SQLite runs in WAL mode with synchronous=FULL: a commit survives a power cut. Its table is created by itself;
    elsewhere `envoyou migrate` does it, once.

    Args:
        database: a URL, or an engine of your own, which is used as it is. Give it `hide_parameters=True`, for the
            parameters hold payloads; on SQLite it is yours to see to WAL, synchronous=FULL and BEGIN IMMEDIATE.
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.
        max_batch: the most events that share one commit.

    Raises:
        ConfigurationError: the URL cannot be used, its driver is not installed, or the dialect is not supported.
    """

    def __init__(
        self,
        database: str | URL | Engine,
        *,
        name: str = "default",
        clock: Callable[[], float] = time.time,
        max_batch: int = MAX_BATCH,
    ) -> None:
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ConfigurationError(f"the name of an inbox has 1 to {LONGEST_NAME} characters, not {name!r}")
        self.name = name
        self._clock = clock
        self._engine = database if isinstance(database, Engine) else _engine(database)
        if self._engine.dialect.name not in {"sqlite", "postgresql"}:
            raise ConfigurationError(f"the inbox runs on SQLite and PostgreSQL, not on {self._engine.dialect.name}")
        self.remote = self._engine.dialect.name != "sqlite"
        self._opening = threading.Lock()
        self._opened_in: int | None = None
        self._writer = GroupCommit[Entry, Added](self._store, is_outage=_is_outage, max_batch=max_batch)
        _forget_connections_after_fork(self._engine)

    def open(self) -> None:
        """See `Inbox.open`."""
        if self._opened_in == os.getpid():
            return
        with self._opening:
            if self._engine.dialect.name == "sqlite":
                with self._engine.begin() as connection:
                    create_schema(connection)
            else:
                with self._reading() as connection:
                    check_schema(connection)
            self._opened_in = os.getpid()

    def migrate(self) -> None:
        """Create the tables, or bring them up to this release; idempotent. See `envoyou migrate`."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Two of these at once, at a deploy of two machines, would both find nothing there.
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('envoyou_schema'))"))
            create_schema(connection)

    def close(self) -> None:
        """See `Inbox.close`."""
        self._writer.close()
        self._engine.dispose()

    def add(self, entry: Entry) -> Future[Added]:
        """See `Inbox.add`."""
        return self._writer.submit(entry)

    def _store(self, entries: Sequence[Entry]) -> list[Added]:
        self.open()
        now = self._now()
        # Two processes that insert the same events in opposite orders would wait for each other.
        rows = {(entry.tenant, entry.event.id): self._new_row(entry, now) for entry in reversed(entries)}
        # Both dialects speak the same ON CONFLICT.
        insert = (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert(inbox_table)
        statement = insert.on_conflict_do_nothing(index_elements=[_t.name, _t.tenant, _t.event_id]).returning(
            _t.tenant, _t.event_id
        )
        with self._engine.begin() as connection:
            inserted = connection.execute(statement, [rows[key] for key in sorted(rows)])
            new = {(row.tenant, row.event_id) for row in inserted}
            results = []
            for entry in entries:
                key = (entry.tenant, entry.event.id)
                if key in new:
                    # Only the first of several deliveries in one batch is the new one.
                    new.remove(key)
                    results.append(Added.NEW)
                else:
                    results.append(self._rearm(connection, entry, now))
            return results

    def _rearm(self, connection: Connection, entry: Entry, now: int) -> Added:
        ours = and_(_t.name == self.name, _t.tenant == entry.tenant, _t.event_id == entry.event.id)
        return (
            Added.REARMED if self._make_due(connection, and_(ours, _t.status == Status.DEAD), now) else Added.DUPLICATE
        )

    def _new_row(self, entry: Entry, now: int) -> dict[str, Any]:
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
            "progress": "{}",
            "received_at": now if entry.received_at is None else _microseconds(entry.received_at.timestamp()),
            "due_at": now,
        }

    def claim(self, limit: int, lease: float) -> list[Claim]:
        """See `Inbox.claim`."""
        self.open()
        now = self._now()
        token = uuid.uuid4().hex
        # MATERIALIZED: under some plans PostgreSQL would otherwise look up the limited rows anew for every row it
        # updates, and claim more than was asked for. SQLite has one writer at a time and needs no row locks.
        due = (
            select(_t.key)
            .where(_t.name == self.name, _t.due_at.is_not(None), _t.due_at <= now)
            .order_by(_t.due_at, _t.key)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
            .prefix_with("MATERIALIZED")
        )
        statement = (
            update(inbox_table)
            .where(_t.key.in_(select(due.c.key)))
            .values(
                status=Status.PROCESSING.value,
                crashes=_t.crashes + case((_t.status == Status.PROCESSING.value, 1), else_=0),
                due_at=now + _microseconds(lease),
                lease_token=token,
            )
            .returning(inbox_table)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(statement).all()
        return [_claim(row) for row in sorted(rows, key=lambda row: row.key)]

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        held = [{"held_key": claim.key, "held_token": claim.token} for claim in claims]
        if not held:
            return
        statement = update(inbox_table).where(_HELD).values(due_at=self._now() + _microseconds(lease))
        with self._engine.begin() as connection:
            connection.execute(statement, held)

    def record(self, claim: Claim, progress: Mapping[str, Progress]) -> bool:
        """See `Inbox.record`."""
        with self._engine.begin() as connection:
            return connection.execute(self._record(claim, progress)).rowcount == 1

    def _record(self, claim: Claim, progress: Mapping[str, Progress]) -> Update:
        return update(inbox_table).where(_holds(claim)).values(progress=json.dumps(progress))

    @contextmanager
    def transaction(self, claim: Claim, progress: Mapping[str, Progress]) -> Iterator[Connection]:
        """See `TransactionalInbox.transaction`.

        On SQLite it ends, rolled back, after `TRANSACTION_LIMIT` seconds, for it keeps every other writer out.

        Raises:
            TransactionTimeoutError: on SQLite, its time was over.
        """
        self.open()
        with self._engine.begin() as connection:
            limited = connection.dialect.name == "sqlite"
            with time_limit(connection, TRANSACTION_LIMIT) if limited else nullcontext():
                yield connection
                if connection.execute(self._record(claim, progress)).rowcount != 1:
                    raise LeaseLostError

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        now = self._now()
        statement = (
            update(inbox_table)
            .where(_holds(claim))
            .values(
                status=settlement.status.value,
                attempts=settlement.attempts,
                progress=json.dumps(settlement.progress),
                due_at=None if settlement.retry_in is None else now + _microseconds(settlement.retry_in),
                lease_token=None,
                settled_at=now if settlement.status in FINISHED else None,
                last_error=settlement.error,
            )
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        self.open()
        with self._reading() as connection:
            due_at = connection.scalar(select(func.min(_t.due_at)).where(_t.name == self.name, _t.due_at.is_not(None)))
        return None if due_at is None else (due_at - self._now()) / 1e6

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
        records = self._select(self._matching(event_id=event_id, tenant=tenant), limit=1)
        return records[0] if records else None

    def list(self, *, status: Status | str | None = None, type: str | None = None, limit: int = 100) -> Records:
        """See `Inbox.list`."""
        statuses = None if status is None else frozenset({Status(status)})
        return self._select(self._matching(statuses=statuses, type=type), limit=limit)

    def _select(self, condition: ColumnElement[bool], *, limit: int) -> Records:
        self.open()
        with self._reading() as connection:
            rows = connection.execute(select(inbox_table).where(condition).order_by(_t.key.desc()).limit(limit)).all()
        return [_record(row) for row in rows]

    def stats(self) -> InboxStats:
        """See `Inbox.stats`."""
        self.open()
        with self._reading() as connection:
            counts = connection.execute(
                select(_t.status, func.count()).where(_t.name == self.name).group_by(_t.status)
            ).all()
        until_due = self.seconds_until_due()
        by_status = dict.fromkeys(Status, 0) | {Status(status): count for status, count in counts}
        return InboxStats(by_status=by_status, overdue=max(0.0, -(until_due or 0.0)))

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
        self.open()
        condition = self._matching(statuses=statuses, event_id=event_id, type=type, tenant=tenant)
        with self._engine.begin() as connection:
            return self._make_due(connection, condition, self._now())

    def _make_due(self, connection: Connection, condition: ColumnElement[bool], now: int) -> int:
        found = connection.execute(select(_t.key, _t.progress).where(condition).with_for_update()).all()
        for row in found:
            connection.execute(
                update(inbox_table)
                .where(_t.key == row.key)
                .values(
                    status=Status.RECEIVED.value,
                    attempts=0,
                    crashes=0,
                    progress=json.dumps(unfinished_progress(_progress(row.progress))),
                    due_at=now,
                    settled_at=None,
                )
            )
        return len(found)

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        before = self._now() - _microseconds(older_than.total_seconds())
        condition = and_(self._matching(statuses=prunable_statuses(statuses)), _t.settled_at < before)
        self.open()
        pruned = 0
        while True:
            batch = select(_t.key).where(condition).limit(PRUNE_BATCH)
            with self._engine.begin() as connection:
                deleted = connection.execute(delete(inbox_table).where(_t.key.in_(batch))).rowcount
            pruned += deleted
            if deleted < PRUNE_BATCH:
                return pruned

    def _matching(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> ColumnElement[bool]:
        conditions = [_t.name == self.name]
        if statuses is not None:
            conditions.append(_t.status.in_(sorted(statuses)))
        for column, value in ((_t.event_id, event_id), (_t.type, type), (_t.tenant, tenant)):
            if value is not None:
                conditions.append(column == value)
        return and_(*conditions)

    def _reading(self) -> Connection:
        # On SQLite a transaction takes the only write lock there is; looking must not.
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _now(self) -> int:
        return _microseconds(self._clock())


def _engine(database: str | URL) -> Engine:
    try:
        url = make_url(database)
        if url.get_backend_name() == "sqlite":
            if url.database in {None, "", ":memory:"}:
                raise ConfigurationError(
                    "SQLite in memory is not durable: name a file, or use inbox='memory:' in tests"
                )
            engine = create_engine(url, hide_parameters=True, connect_args={"timeout": CONNECT_TIMEOUT})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediately)
            return engine
        if url.get_backend_name() == "postgresql":
            connect_args = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT}
            return create_engine(
                url, hide_parameters=True, pool_pre_ping=True, pool_timeout=CONNECT_TIMEOUT, connect_args=connect_args
            )
        return create_engine(url, hide_parameters=True)
    except ImportError as error:
        raise ConfigurationError(f"the inbox's database driver is not installed: {error.name}") from error
    except (ArgumentError, NoSuchModuleError) as error:
        # The text of the error may hold the URL, and the URL a password.
        raise ConfigurationError(f"the inbox's URL is not a database URL ({type(error).__name__})") from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by `_begin_immediately`, not by the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            # Processes that open a new file at the same moment: SQLite does not wait for the lock of this switch.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_immediately(connection: Connection) -> None:
    # A transaction that begins by reading and writes later fails at once where another writer came between; one that
    # asks for the lock first waits for it.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_outage(error: Exception) -> bool:
    # A pool that has no connection left says so with the library's own TimeoutError.
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError | ConfigurationError)


def _forget_connections_after_fork(engine: Engine) -> None:
    """A child that used its parent's connections would garble both."""
    reference = weakref.ref(engine)

    def forget() -> None:
        engine = reference()
        if engine is not None:
            engine.dispose(close=False)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _holds(claim: Claim) -> ColumnElement[bool]:
    return and_(_t.key == claim.key, _t.lease_token == claim.token)


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        key=row.key,
        token=row.lease_token,
        event=Event.from_body(row.body),
        received_at=_moment(row.received_at),
        attempts=row.attempts,
        crashes=row.crashes,
        progress=_progress(row.progress),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
    )


def _record(row: Row[Any]) -> InboxRecord:
    return InboxRecord(
        event=Event.from_body(row.body),
        status=Status(row.status),
        attempts=row.attempts,
        crashes=row.crashes,
        received_at=_moment(row.received_at),
        next_attempt_at=None if row.due_at is None else _moment(row.due_at),
        settled_at=None if row.settled_at is None else _moment(row.settled_at),
        last_error=row.last_error,
        progress=_progress(row.progress),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
    )


def _progress(stored: str) -> dict[str, Progress]:
    return {name: Progress(became) for name, became in json.loads(stored).items()}


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
