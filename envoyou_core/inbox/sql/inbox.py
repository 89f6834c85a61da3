"""The inbox in a SQL database, on SQLAlchemy Core: SQLite by default, PostgreSQL and MariaDB by URL."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Row,
    String,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.dml import ReturningUpdate

from envoyou_core.errors import ConfigurationError, LeaseLostError
from envoyou_core.event import object_key
from envoyou_core.forks import call_in_forked_children
from envoyou_core.inbox.deadlines import TRANSACTION_LIMIT, time_limit
from envoyou_core.inbox.group_commit import MAX_BATCH, MAX_WAITING, GroupCommit
from envoyou_core.inbox.handler_queue import HandlerTransactionQueue
from envoyou_core.inbox.history import decode_history, encode_history, with_attempt, with_crash
from envoyou_core.inbox.records import (
    ANY,
    COUNTED,
    COUNTED_IN_PART,
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
from envoyou_core.inbox.rows import (
    body_bytes,
    claim_of,
    microseconds,
    moment,
    record_of,
    requeued_progress,
    settled_progress,
)
from envoyou_core.inbox.sql import cleanup
from envoyou_core.inbox.sql.claims import IS_HELD, due, lease_of
from envoyou_core.inbox.sql.engines import (
    DIALECTS,
    WriteLock,
    check_mariadb,
    is_outage,
    open_engine,
)
from envoyou_core.inbox.sql.migrations import build_indexes_online, check_schema, set_up
from envoyou_core.inbox.sql.schema import inbox_table, paused_table, schema_table, watermarks_table
from envoyou_core.inbox.urls import read_url, shown_url, sqlite_file

__all__ = ["SqlInbox"]

MAX_NAME = 64
"""Characters that the name of an inbox may have."""

LOCK_INTERVAL = 0.1
"""Seconds between two attempts to get the lock of a migration."""

LARGEST_NUMBER = 2**63 - 1
"""What a column of the table can hold."""

Records = list[InboxRecord]

_t = inbox_table.c
# The upper bound leaves out what SQLite may hold in place of a number, which counts as greater than all numbers there.
_NEXT_DUE = select(func.min(_t.due_at)).where(
    _t.name == bindparam("name"), _t.due_at.is_not(None), _t.due_at <= LARGEST_NUMBER
)
_RENEW = update(inbox_table).where(IS_HELD).values(due_at=bindparam("new_due_at"))
_RECORD = (
    update(inbox_table).where(IS_HELD).values(progress=bindparam("new_progress"), applied=bindparam("new_applied"))
)
_IN_WORK = _t.status == Status.PROCESSING.value
_TAKEN_OVER, _FRESH = bindparam("taken_over", type_=String()), bindparam("fresh", type_=String())
_LEASED: list[tuple[Any, Any]] = [
    # In this order: MariaDB lets an assignment see those before it.
    (_t.crashes, _t.crashes + case((_IN_WORK, 1), else_=0)),
    (_t.lease_token, case((_IN_WORK, _TAKEN_OVER), else_=_FRESH)),
    (_t.status, Status.PROCESSING.value),
    (_t.due_at, bindparam("new_due_at")),
]
_SETTLED = ("status", "attempts", "progress", "applied", "due_at", "lease_token", "settled_at", "last_error", "history")
# Of an unreadable row, what the attempt cannot tell anything about stays as it is.
_KEPT_IF_UNREADABLE = {
    column: func.coalesce(bindparam(f"new_{column}", type_=_t[column].type), _t[column])
    for column in ("progress", "applied")
}
_SETTLE = (
    update(inbox_table)
    .where(IS_HELD)
    .values({column: bindparam(f"new_{column}") for column in _SETTLED} | _KEPT_IF_UNREADABLE)
)
_SETTLE_UNLESS_TO_ERASE = _SETTLE.where(_t.to_erase.is_(None))


class SqlInbox:
    """An `Inbox` in a table of a SQL database.

    SQLite runs in WAL mode with synchronous=FULL: a commit survives a power cut. Its tables are created and upgraded by
    themselves; elsewhere `envoyou migrate` does it.

    Args:
        database: a URL, or an engine of your own, which is used as it is. Give it `hide_parameters=True`, for the
            parameters hold payloads; on SQLite it is yours to see to WAL, synchronous=FULL and BEGIN IMMEDIATE, on
            MariaDB to READ COMMITTED and a strict `sql_mode`.
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.
        max_batch: the most events that share one commit.

    Attributes:
        file: the SQLite file; `None` on a server, and for an engine of your own in memory.
        location: where the events are, for people: the URL of the file by its absolute path, or of the server without
            the password.
        creates_file: whether `open` creates a file that does not exist, readable by its owner only; otherwise it raises
            a `ConfigurationError`. For commands, which may run in another working directory than the application.

    Raises:
        ConfigurationError: the URL cannot be used, its driver is not installed, or the dialect is not supported.
    """

    kind = "inbox"
    """What it is called in errors."""

    def __init__(
        self,
        database: str | URL | Engine,
        *,
        name: str = "default",
        clock: Callable[[], float] = time.time,
        max_batch: int = MAX_BATCH,
    ) -> None:
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"the name of an inbox has 1 to {MAX_NAME} characters, not {name!r}")
        self.name = name
        self._clock = clock
        # Read once: a relative path means the same file in a child that was forked after a change of directory.
        self._url: URL | None = None
        if isinstance(database, Engine):
            self._engine = database
        else:
            read = read_url(database, kind=self.kind)
            self._url, self.file, self._engine = read.url, read.file, open_engine(read.url)
        dialect = self._engine.dialect.name
        if dialect not in DIALECTS:
            raise ConfigurationError(f"the inbox runs on SQLite, PostgreSQL and MariaDB, not on {dialect}")
        self._dialect = DIALECTS[dialect]
        if self._engine.dialect.is_async:
            raise ConfigurationError(
                f"the driver {self._engine.dialect.driver} is async: take another, or an async engine of your own, "
                "inbox=AsyncSqlInbox(engine)"
            )
        self.remote = self._dialect != "sqlite"
        if self._url is None:
            self.file = None if self.remote else sqlite_file(self._engine.url)
        self.location = shown_url(self._engine.url) if self.file is None else self.file.url
        self.creates_file = True
        self._opening = threading.Lock()
        self._opened_in: int | None = None
        self._write_lock = WriteLock()
        self._handler_queue = HandlerTransactionQueue()
        self._writer = GroupCommit[NewEvent, Added](
            self._store, is_outage=is_outage, max_batch=max_batch, max_waiting=MAX_WAITING
        )
        call_in_forked_children(self._begin_anew)

    def _begin_anew(self) -> None:
        # Who was opening the inbox, or connecting for the first time, does not exist in a forked child, but has left it
        # their locks; and its parent's connections are not its own.
        self._opening = threading.Lock()
        self._engine.dispose(close=False)
        if self._url is not None:
            self._engine = open_engine(self._url)

    def open(self) -> None:
        """See `Inbox.open`."""
        if self._opened_in == os.getpid():
            return
        with self._opening:
            self._provide_file()
            if self.remote:
                with self._reading() as connection:
                    self._check_server(connection)
                    check_schema(connection)
            else:
                with self._writing() as connection:
                    set_up(connection)
                    cleanup.look_up_objects(connection, _t.due_at.is_not(None))
            self._opened_in = os.getpid()

    def migrate(self) -> None:
        """Create the tables, or bring them up to this release; idempotent. See `envoyou migrate`."""
        self._provide_file()
        with self._migrating():
            with self._reading() as connection:
                self._check_server(connection)
                build_indexes_online(connection)
            with self._writing() as connection:
                set_up(connection)
        self._in_batches(lambda connection: cleanup.look_up_objects(connection, true()))

    def _provide_file(self) -> None:
        if self.file is not None and self.creates_file:
            self.file.create()
        elif self.file is not None:
            self.file.require(self.kind)

    def _check_server(self, connection: Connection) -> None:
        # Of an engine of ours, each connection is checked as it is made.
        if self._dialect == "mariadb" and self._url is None:
            check_mariadb(str(connection.exec_driver_sql("SELECT VERSION()").scalar()))

    @contextmanager
    def _migrating(self) -> Iterator[None]:
        """Let no other process migrate at the same time. The lock ends with a transaction that does nothing else."""
        if not self.remote:
            yield
            return
        with self._engine.connect() as connection:
            # Polled, because PostgreSQL finishes an index that it builds online only when all statements that began
            # before have ended. One that waited for this lock would be among them.
            while not self._has_migration_lock(connection):
                connection.rollback()
                time.sleep(LOCK_INTERVAL)
            try:
                yield
            finally:
                if self._dialect == "mariadb":
                    connection.execute(text("SELECT RELEASE_LOCK('envoyou_schema')"))
                connection.rollback()

    def _has_migration_lock(self, connection: Connection) -> bool:
        if self._dialect == "mariadb":
            return bool(connection.scalar(text("SELECT GET_LOCK('envoyou_schema', 0)")))
        # At a higher isolation level the transaction would keep its snapshot, and the online index build would wait for
        # it. A lock of the transaction works behind a pooler, where a lock of the session does not.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('envoyou_schema'))")))

    def close(self) -> None:
        """See `Inbox.close`."""
        self._writer.close()
        self._engine.dispose()

    # Acceptance

    def add(self, entry: NewEvent) -> Future[Added]:
        """See `Inbox.add`."""
        return self._writer.submit(entry)

    def _store(self, entries: Sequence[NewEvent]) -> list[Added]:
        self.open()
        now = self._now()
        # Two processes that insert the same events in opposite orders would wait for each other.
        rows = {(entry.tenant, entry.event.id): self._new_row(entry, now) for entry in reversed(entries)}
        with self._writing() as connection:
            new = self._insert_new(connection, [rows[key] for key in sorted(rows)])
            results = []
            for entry in entries:
                key = (entry.tenant, entry.event.id)
                if key in new:
                    # Only the first of several deliveries in one batch is the new one.
                    new.remove(key)
                    results.append(Added.NEW)
                else:
                    results.append(self._resolve_existing(connection, entry, now))
            return results

    def _insert_new(self, connection: Connection, rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
        """Insert those whose key is not there yet; returns their tenants and ids."""
        if self._dialect == "mariadb":
            # It returns those that were there as well, which do not bear this token. INSERT IGNORE would mend values.
            token = uuid.uuid4().hex
            upsert = mysql.insert(inbox_table)
            statement = upsert.on_duplicate_key_update(key=_t.key).returning(_t.tenant, _t.event_id, _t.lease_token)
            found = connection.execute(statement, [{**row, "lease_token": token} for row in rows])
            return {(row.tenant, row.event_id) for row in found if row.lease_token == token}
        # The other dialects speak the same ON CONFLICT.
        insert_or_not = (sqlite if self._dialect == "sqlite" else postgresql).insert(inbox_table)
        unless_there = insert_or_not.on_conflict_do_nothing(index_elements=[_t.name, _t.event_id, _t.tenant])
        inserted = connection.execute(unless_there.returning(_t.tenant, _t.event_id), rows)
        return {(row.tenant, row.event_id) for row in inserted}

    def _resolve_existing(self, connection: Connection, entry: NewEvent, now: int) -> Added:
        """What it is to one that is there already."""
        ours = and_(_t.name == self.name, _t.tenant == entry.tenant, _t.event_id == entry.event.id)
        if self._make_due(connection, and_(ours, _t.status == Status.DEAD), now):
            return Added.REARMED
        bodies = connection.scalars(select(_t.body).where(ours, _t.scrubbed_at.is_(None)))
        same = all(body_bytes(body) == entry.event.body for body in bodies)
        return Added.DUPLICATE if same else Added.BODY_DIFFERS

    def _new_row(self, entry: NewEvent, now: int) -> dict[str, Any]:
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
            "received_at": now if entry.received_at is None else microseconds(entry.received_at.timestamp()),
            "due_at": now,
            "object_key": entry.event.object_id or "",
        }

    # Work

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        """See `Inbox.claim`."""
        self.open()
        if claim_filter.ordered:
            self._look_up_objects(_t.due_at.is_not(None))
        now = self._now()
        # Two, so that what comes back tells whose lease had run out.
        fresh, taken_over = uuid.uuid4().hex, uuid.uuid4().hex
        looking = {"now": now, "limit": limit}
        leasing = {"new_due_at": now + microseconds(lease), "fresh": fresh, "taken_over": taken_over}
        with self._writing() as connection:
            if claim_filter.ordered:
                self._lock_claims(connection)
            rows = self._lease(connection, claim_filter, looking, leasing)
            crashed = {
                row.key: with_crash(decode_history(row.history), moment(now))
                for row in rows
                if row.lease_token == taken_over
            }
            for key, history in crashed.items():
                connection.execute(update(inbox_table).where(_t.key == key).values(history=encode_history(history)))
        in_order = sorted(rows, key=lambda row: row.key)
        claims = [claim_of(row, key=row.key, token=row.lease_token, moment=moment) for row in in_order]
        return [replace(one, history=crashed[one.key]) if one.key in crashed else one for one in claims]

    def _lease(
        self, connection: Connection, claim_filter: ClaimFilter, looking: dict[str, int], leasing: dict[str, Any]
    ) -> Sequence[Row[Any]]:
        if self._dialect != "mariadb":
            return connection.execute(_claim(self.name, claim_filter), {**looking, **leasing}).all()
        # Looked for first, and not while locking: a locking read sees what others commit meanwhile, a condition
        # within it does not, and what is held back by what has just arrived would be taken.
        found = connection.scalars(due(self.name, claim_filter), looking).all()
        unchanged = select(_t.key).where(_t.key.in_(found), _t.due_at <= looking["now"])
        keys = connection.scalars(unchanged.with_for_update(skip_locked=True)).all() if found else []
        if not keys:
            return []
        connection.execute(update(inbox_table).where(_t.key.in_(keys)).ordered_values(*_LEASED), leasing)
        return connection.execute(select(inbox_table).where(_t.key.in_(keys))).all()

    def _lock_claims(self, connection: Connection) -> None:
        """Let nobody else claim until the transaction ends.

        Two claims at once would not see each other's leases, and take two events of one object.
        """
        if self._dialect == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(hashtext('envoyou_claim'), hashtext(:name))")
            connection.execute(lock, {"name": self.name})
        if self._dialect == "mariadb":
            connection.execute(select(schema_table).with_for_update())

    def renew(self, claims: list[Claim], lease: float) -> None:
        """See `Inbox.renew`."""
        due_at = self._now() + microseconds(lease)
        if claims:
            with self._writing() as connection:
                connection.execute(
                    _RENEW, [{**lease_of(claim), "new_due_at": due_at} for claim in sorted(claims, key=_key)]
                )

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        """See `Inbox.record`."""
        with self._writing() as connection:
            return self._record(connection, claim, progress)

    def _record(self, connection: Connection, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        values = {"new_progress": json.dumps(progress), "new_applied": int(is_applied(progress))}
        return connection.execute(_RECORD, {**lease_of(claim), **values}).rowcount == 1

    @contextmanager
    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> Iterator[Connection]:
        """See `TransactionalInbox.transaction`.

        On SQLite it ends, rolled back, after `TRANSACTION_LIMIT` seconds, for it keeps every other writer out.

        Raises:
            TransactionTimeoutError: on SQLite, its time was over.
        """
        self.open()
        with self._alone() as free, self._engine.begin() as connection, self._limited(connection, free):
            yield connection
            self._end(connection, claim, progress, settlement)

    @contextmanager
    def _alone(self) -> Iterator[Callable[[], None]]:
        """Hold SQLite's write lock for a handler, until the block ends or what it is given is called."""
        if self.remote:
            yield lambda: None
            return
        # First among handlers, for as long as it takes: theirs are the long transactions. For the lock itself nobody
        # waits long, and no other writer has to wait for more than one of them.
        with self._handler_queue.slot() as slot, self._write_lock.held() as release:
            slot.lock_taken()

            def free() -> None:
                release()
                slot.release()

            yield free

    def _end(
        self,
        connection: Connection,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None,
    ) -> None:
        if settlement is None:
            held = self._record(connection, claim, progress)
        else:
            held = self._settle(connection, claim, settlement())
        if not held:
            raise LeaseLostError

    def _limited(self, connection: Connection, expired: Callable[[], None]) -> AbstractContextManager[None]:
        if self.remote:
            return nullcontext()
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        return time_limit(driver, TRANSACTION_LIMIT, expired)

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """See `Inbox.settle`."""
        return self.settle_all([(claim, settlement)])[0]

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """See `Inbox.settle_all`."""
        if not settlements:
            return []
        try:
            with self._writing() as connection:
                if not self._settle_together(connection, settlements):
                    raise LeaseLostError
        except LeaseLostError:
            # One after the other shows whose it was.
            with self._writing() as connection:
                return [self._settle(connection, *one) for one in settlements]
        return [True] * len(settlements)

    def _settle(self, connection: Connection, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false, and nothing is changed, where its lease is not held."""
        if self._settle_together(connection, [(claim, settlement)]):
            return True
        now = self._now()
        held = connection.execute(_SETTLE, {**lease_of(claim), **_settled(claim, settlement, now)}).rowcount == 1
        if held and settlement.status in FINISHED:
            cleanup.scrub(connection, _t.key == claim.key, now)
        return held

    def _settle_together(self, connection: Connection, settlements: Sequence[tuple[Claim, Settlement]]) -> bool:
        """End attempts as most of them end; false, and the transaction is of no use, where one of them does not.

        Its lease is not held any more, or its payload is to go.
        """
        now = self._now()
        # In the order in which leases are renewed: two that lock the same rows in opposite ones wait for each other.
        in_order = sorted(settlements, key=lambda one: _key(one[0]))
        values = [{**lease_of(claim), **_settled(claim, settlement, now)} for claim, settlement in in_order]
        if connection.execute(_SETTLE_UNLESS_TO_ERASE, values).rowcount < len(settlements):
            return False
        to_scrub = [claim.key for claim, settlement in settlements if settlement.scrub]
        if to_scrub:
            cleanup.scrub(connection, _t.key.in_(to_scrub), now)
        return True

    def newest_applied(self, claim: Claim) -> int | None:
        """See `Inbox.newest_applied`."""
        about = claim.event.object_id
        if about is None:
            return None
        # What an earlier release has stored and not been looked up yet is found once a worker has kept house.
        of_events = select(func.max(_t.created)).where(
            _t.name == self.name,
            _t.object_key == about,
            _t.tenant == claim.tenant,
            _t.created <= LARGEST_NUMBER,
            cleanup.HAD_AN_EFFECT,
        )
        m = watermarks_table.c
        of_marks = select(m.created).where(m.name == self.name, m.object_key == about, m.tenant == claim.tenant)
        with self._reading() as connection:
            found = (connection.scalar(of_events), connection.scalar(of_marks))
        return max((created for created in found if created is not None), default=None)

    def seconds_until_due(self) -> float | None:
        """See `Inbox.seconds_until_due`."""
        self.open()
        with self._reading() as connection:
            due_at: int | None = connection.scalar(_NEXT_DUE, {"name": self.name})
        return None if due_at is None else (due_at - self._now()) / 1e6

    def pause(self, subject: str) -> None:
        """See `Inbox.pause`."""
        self.open()
        with self._writing() as connection:
            connection.execute(insert(paused_table).values(name=self.name, subject=subject))

    def resume(self, subject: str) -> None:
        """See `Inbox.resume`."""
        self.open()
        ours = and_(paused_table.c.name == self.name, paused_table.c.subject == subject)
        with self._writing() as connection:
            connection.execute(delete(paused_table).where(ours))

    def paused(self) -> frozenset[str]:
        """See `Inbox.paused`."""
        self.open()
        with self._reading() as connection:
            return frozenset(connection.scalars(select(paused_table.c.subject).where(paused_table.c.name == self.name)))

    # For people

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """See `Inbox.get`."""
        records = self._select(self._matching(event_id=event_id, tenant=tenant), limit=1)
        return records[0] if records else None

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
        if object_id is not None:
            self._look_up_objects(_t.name == self.name)
        return self._select(self._matching(statuses=statuses, type=type, object_id=object_id), limit=limit)

    def _select(self, condition: ColumnElement[bool], *, limit: int) -> Records:
        self.open()
        with self._reading() as connection:
            rows = connection.execute(select(inbox_table).where(condition).order_by(_t.key.desc()).limit(limit)).all()
        return [record_of(row, moment=moment) for row in rows]

    def stats(self, *, exact: bool = False) -> InboxStats:
        """See `Inbox.stats`."""
        self.open()
        limit = None if exact else COUNTED
        with self._reading() as connection:
            counts = self._count(connection, limit)
        return stats_of(counts, max(0.0, -(self.seconds_until_due() or 0.0)), limit=limit)

    def _count(self, connection: Connection, limit: int | None) -> dict[str, int]:
        """The number of events in each state; those of `COUNTED_IN_PART` are counted up to `limit`."""
        partly = () if limit is None else COUNTED_IN_PART
        wholly = [status.value for status in Status if status not in partly]
        by_status = select(_t.status, func.count().label("number")).where(_t.name == self.name, _t.status.in_(wholly))
        counts = {row.status: row.number for row in connection.execute(by_status.group_by(_t.status))}
        for status in partly:
            # In the index's order: the table itself may hold none of them among its first millions of rows.
            first = select(_t.settled_at).where(_t.name == self.name, _t.status == status.value)
            found = first.order_by(_t.settled_at).limit(limit).subquery()
            counts[status.value] = connection.scalar(select(func.count()).select_from(found)) or 0
        return counts

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
        with self._writing() as connection:
            return self._make_due(connection, condition, self._now())

    def _make_due(self, connection: Connection, condition: ColumnElement[bool], now: int) -> int:
        whole = and_(condition, _t.scrubbed_at.is_(None))
        found = connection.execute(select(_t.key, _t.progress).where(whole).with_for_update()).all()
        for row in found:
            progress = requeued_progress(row.progress)
            connection.execute(
                update(inbox_table)
                .where(_t.key == row.key)
                .values(
                    status=Status.RECEIVED.value,
                    attempts=0,
                    crashes=0,
                    progress=_t.progress if progress is None else json.dumps(progress),
                    due_at=now,
                    settled_at=None,
                )
            )
        return len(found)

    # Clearing

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.prune`."""
        old = self._settled_before(older_than, statuses)
        # What they are about is to be remembered.
        self._look_up_objects(old)
        return self._in_batches(lambda connection: cleanup.prune(connection, old))

    def prune_watermarks(self, older_than: timedelta) -> int:
        """See `Inbox.prune_watermarks`."""
        self.open()
        before = self._clock() - older_than.total_seconds()
        m = watermarks_table.c
        with self._writing() as connection:
            return connection.execute(delete(watermarks_table).where(m.name == self.name, m.created < before)).rowcount

    def scrub(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """See `Inbox.scrub`."""
        old = self._settled_before(older_than, statuses)
        # Afterwards nobody could tell what they were about.
        self._look_up_objects(old)
        return self._in_batches(lambda connection: cleanup.scrub(connection, old, self._now()))

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        """See `Inbox.erase`."""
        self._look_up_objects(_t.name == self.name)
        about_it = self._matching(object_id=object_id, tenant=tenant)
        with self._writing() as connection:
            erased = cleanup.erase(connection, about_it)
        finished = and_(about_it, cleanup.IS_ERASABLE)
        self._in_batches(lambda connection: cleanup.scrub(connection, finished, self._now()))
        return erased

    def _settled_before(self, older_than: timedelta, statuses: tuple[Status | str, ...]) -> ColumnElement[bool]:
        before = self._now() - microseconds(older_than.total_seconds())
        return and_(self._matching(statuses=prunable_statuses(statuses)), _t.settled_at < before)

    def _look_up_objects(self, condition: ColumnElement[bool]) -> None:
        """Note of events that a program of the earlier release stored what they are about."""
        self.open()
        unknown = and_(_t.name == self.name, _t.object_key.is_(None), condition)
        with self._reading() as connection:
            if connection.scalar(select(_t.key).where(unknown).limit(1)) is None:
                return
        self._in_batches(lambda connection: cleanup.look_up_objects(connection, unknown))

    def _in_batches(self, clear: Callable[[Connection], int]) -> int:
        """Call `clear`, each time in a transaction of its own, until it finds no whole batch any more."""
        self.open()
        total = 0
        while True:
            with self._writing() as connection:
                found = clear(connection)
            total += found
            if found < cleanup.BATCH:
                return total

    # Rows and connections

    def _matching(
        self,
        *,
        statuses: frozenset[Status] | None = None,
        event_id: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
        object_id: str | None = None,
    ) -> ColumnElement[bool]:
        conditions = [_t.name == self.name]
        if statuses is not None:
            conditions.append(_t.status.in_(sorted(statuses)))
        key = None if object_id is None else object_key(object_id)
        for column, value in ((_t.event_id, event_id), (_t.type, type), (_t.tenant, tenant), (_t.object_key, key)):
            if value is not None:
                conditions.append(column == value)
        return and_(*conditions)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._turn(), self._engine.begin() as connection:
            yield connection

    def _turn(self) -> AbstractContextManager[Callable[[], None]]:
        return nullcontext(lambda: None) if self.remote else self._write_lock.held()

    def _reading(self) -> Connection:
        # A transaction takes the only write lock there is; looking must not.
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _now(self) -> int:
        return microseconds(self._clock())


@lru_cache(maxsize=256)
def _claim(name: str, claim_filter: ClaimFilter) -> ReturningUpdate[Any]:
    # MATERIALIZED: under some plans PostgreSQL would otherwise look up the limited rows anew for every row it updates,
    # and claim more than was asked for. SQLite has one writer at a time and needs no row locks.
    picked = due(name, claim_filter).with_for_update(skip_locked=True).cte("due").prefix_with("MATERIALIZED")
    return update(inbox_table).where(_t.key.in_(select(picked.c.key))).values(dict(_LEASED)).returning(inbox_table)


def _key(claim: Claim) -> int:
    return claim.key


def _settled(claim: Claim, settlement: Settlement, now: int) -> dict[str, Any]:
    progress = settled_progress(claim, settlement)
    return {
        "new_status": settlement.status.value,
        "new_attempts": settlement.attempts,
        "new_progress": None if progress is None else json.dumps(progress),
        "new_applied": None if progress is None else int(is_applied(progress)),
        "new_due_at": None if settlement.retry_in is None else now + microseconds(settlement.retry_in),
        "new_lease_token": None,
        "new_settled_at": now if settlement.status in FINISHED else None,
        "new_last_error": settlement.error,
        "new_history": encode_history(with_attempt(claim.history, settlement, moment(now))),
    }
