"""The database of a SQL inbox: its engine, its tables and its transactions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, text, true

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children
from envoyou_core.inbox.server_settings import POSTGRES_LIMITS
from envoyou_core.inbox.sql import cleanup, joining
from envoyou_core.inbox.sql.engines import DIALECTS, WriteLock, check_mariadb, open_engine
from envoyou_core.inbox.sql.migrations import build_key_online, build_waits_online, check_schema, set_up
from envoyou_core.inbox.sql.schema import inbox_table
from envoyou_core.inbox.urls import read_url, shown_url, sqlite_file

__all__ = ["SqlDatabase"]

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"

LOCK_INTERVAL = 0.1
"""Seconds between two attempts to get the lock of a migration."""

_t = inbox_table.c


class SqlDatabase:
    """Opens, migrates and connects to the database of an inbox.

    Args:
        database: a URL, or the application's engine, which is used unchanged.

    Attributes:
        file: the SQLite file; `None` for a server, and for an application's engine in memory.
        location: the URL without its password, with the absolute path of a file, for display.
        creates_file: whether `open` creates a file that does not exist, readable by its owner only. If false, `open`
            raises a `ConfigurationError`. Commands set it to false, because their working directory may differ from
            the application's.
        remote: whether the database is reached over a network.

    Raises:
        ConfigurationError: the URL is invalid, its driver is not installed, or the dialect is not supported.
    """

    kind = "inbox"
    """What the database stores, for errors."""

    def __init__(self, database: str | URL | Engine) -> None:
        # The URL is read once. A relative path means the same file in a child that was forked after a change of
        # directory.
        self._url: URL | None = None
        if isinstance(database, Engine):
            self._engine = database
        else:
            read = read_url(database, kind=self.kind)
            self._url, self.file, self._engine = read.url, read.file, open_engine(read.url)
        dialect = self._engine.dialect.name
        if dialect not in DIALECTS:
            raise ConfigurationError(f"the inbox must be on SQLite, PostgreSQL or MariaDB, got {dialect}")
        self._dialect = DIALECTS[dialect]
        if self._engine.dialect.is_async:
            raise ConfigurationError(
                f"the engine's driver must not be async, got {self._engine.dialect.driver}: use another driver, or "
                "share the transactions of your async engine with inbox=AsyncSqlInbox(engine)"
            )
        self.remote = self._dialect != "sqlite"
        if self._url is None:
            self.file = None if self.remote else sqlite_file(self._engine.url)
        self.location = shown_url(self._engine.url) if self.file is None else self.file.url
        self.creates_file = True
        self._opening = threading.Lock()
        self._opened_in: int | None = None
        self._write_lock = WriteLock()
        call_in_forked_children(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        # The threads that held these locks do not exist in the child, and the connections belong to the parent.
        self._opening = threading.Lock()
        self._engine.dispose(close=False)
        if self._url is not None:
            self._engine = open_engine(self._url)

    @property
    def dialect(self) -> str:
        """See `InspectableInbox.dialect`."""
        return self._dialect

    @property
    def database_file(self) -> Path | None:
        """See `InspectableInbox.database_file`."""
        return None if self.file is None else self.file.path

    def read_row(self, statement: str) -> tuple[object, ...]:
        """See `InspectableInbox.read_row`."""
        self.open()
        with self._reading() as connection:
            row = connection.exec_driver_sql(statement).first()
        return () if row is None else tuple(row)

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
                    cleanup.fill_object_keys(connection, _t.due_at.is_not(None))
            self._opened_in = os.getpid()

    def migrate(self) -> None:
        """Create the tables, or upgrade them to this release; idempotent. See `envoyou migrate`."""
        self._provide_file()
        with self._migrating():
            with self._reading() as connection:
                self._check_server(connection)
                build_key_online(connection)
            with self._writing() as connection:
                set_up(connection)
            with self._reading() as connection:
                build_waits_online(connection)
        self._in_batches(lambda connection: cleanup.fill_object_keys(connection, true()))

    def _provide_file(self) -> None:
        if self.file is not None and self.creates_file:
            self.file.create()
        elif self.file is not None:
            self.file.require(self.kind)

    def _check_server(self, connection: Connection) -> None:
        # An engine of `open_engine` checks each new connection itself.
        if self._dialect == "mariadb" and self._url is None:
            check_mariadb(str(connection.exec_driver_sql("SELECT VERSION()").scalar()))

    @contextmanager
    def _migrating(self) -> Iterator[None]:
        """Keep other processes from migrating. A transaction that does nothing else holds the lock."""
        if not self.remote:
            yield
            return
        with self._engine.connect() as connection:
            # Polled, because PostgreSQL finishes an index that it builds online only when all statements that began
            # before have ended. A statement that waits for this lock would be one of them.
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
        # it. A lock of the transaction works behind a pooler, a lock of the session does not.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('envoyou_schema'))")))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Begin a transaction of the inbox itself. At a higher isolation level its statements would conflict."""
        joined = None if self.remote else joining.connection_for_writing(self._lock_domain)
        if joined is not None:
            # In a savepoint: a handler may catch the error of a call, and its transaction must not keep half of it.
            with joined.begin_nested():
                yield joined
            return
        with self._write_turn(), self._own_engine.begin() as connection:
            yield connection

    @contextmanager
    def _accepting(self) -> Iterator[Connection]:
        """Begin the transaction of an acceptance: on PostgreSQL with time limits, and with a commit that is on disk."""
        if self._dialect != "postgresql" or self._url is None or self._engine.dialect.driver != "psycopg":
            with self._writing() as connection:
                if self._dialect == "postgresql":
                    connection.exec_driver_sql(POSTGRES_LIMITS)
                yield connection
            return
        # The driver would send BEGIN by itself, and the settings would cost a round trip of their own.
        with self._reading() as connection, connection.begin():
            driver: Any = connection.connection.driver_connection
            # The server prepares no statement that consists of several.
            together = driver.prepare_threshold is None
            for statement in [f"{BEGIN}; {POSTGRES_LIMITS}"] if together else [BEGIN, POSTGRES_LIMITS]:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            yield connection

    @property
    def _own_engine(self) -> Engine:
        if self._dialect == "postgresql":
            # The level is part of BEGIN and costs no round trip. The connections are those of the same pool.
            return self._engine.execution_options(isolation_level="READ COMMITTED")
        return self._engine

    def _write_turn(self) -> AbstractContextManager[Callable[[], None]]:
        return nullcontext(lambda: None) if self.remote else self._write_lock.held()

    def _reading(self) -> AbstractContextManager[Connection]:
        joined = None if self.remote else joining.connection_for_reading(self._lock_domain)
        if joined is not None:
            return nullcontext(joined)
        # Outside of a transaction, because every transaction on SQLite takes the only write lock.
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @property
    def _lock_domain(self) -> object:
        """Identifies the SQLite database, in which one writer excludes all others."""
        return self._engine if self.file is None else self.file.path

    def _in_batches(self, process: Callable[[Connection], int]) -> int:
        """Call `process` in one transaction after the other, until it returns less than a full batch; returns the sum.

        Args:
            process: changes up to `cleanup.BATCH` rows and returns how many.
        """
        self.open()
        total = 0
        while True:
            with self._writing() as connection:
                processed = process(connection)
            total += processed
            if processed < cleanup.BATCH:
                return total
