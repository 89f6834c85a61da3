"""Engines for the databases that the SQL inbox runs on, and what each has to be told."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children

__all__ = ["CONNECT_TIMEOUT", "DIALECTS", "WriteLock", "is_outage", "open_engine"]

CONNECT_TIMEOUT = 2
"""Seconds to wait for a database's connection or lock: less than the time a sender waits for its answer."""

UNLIMITED = -1
"""What a pool may have beyond its usual size. Each handler in a transaction holds a connection, and those who accept,
claim and settle must not wait until one is done."""

DIALECTS = ("sqlite", "postgresql", "mariadb")

_POSTGRES_PATIENCE = {
    "connect_timeout": CONNECT_TIMEOUT,
    # A machine that vanishes tells nobody. What is sent to it would be sent again for a quarter of an hour, and its
    # answer awaited for two hours; ten seconds (in milliseconds) are enough, and whoever took its place is found.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

_MARIADB_PATIENCE = {"connect_timeout": CONNECT_TIMEOUT}


class WriteLock:
    """The turn of this process's threads to write to SQLite, which has one writer at a time.

    Its own way to wait is to look again after a while, longer each time: threads that all write would mostly sleep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        call_in_forked_children(self._renew)

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Wait for the lock, and hold it until the block ends or what it is given is called, in any thread.

        Raises:
            OperationalError: it was not to be had within `CONNECT_TIMEOUT` seconds.
        """
        lock = self._lock
        if not lock.acquire(timeout=CONNECT_TIMEOUT):
            raise OperationalError(None, None, sqlite3.OperationalError("database is locked"))
        turn = itertools.count()

        def release() -> None:
            # Of two threads that come here, a count lets one pass.
            if next(turn) == 0:
                lock.release()

        try:
            yield release
        finally:
            release()

    def _renew(self) -> None:
        # The thread that held it does not exist in a forked child.
        self._lock = threading.Lock()


def open_engine(database: str | URL) -> Engine:
    """An engine for the database of that URL, with what an inbox needs.

    Raises:
        ConfigurationError: the URL cannot be used, or its driver is not installed.
    """
    try:
        url = make_url(database)
        if url.get_backend_name() == "sqlite":
            if url.database in {None, "", ":memory:"}:
                raise ConfigurationError(
                    "SQLite in memory is not durable: name a file, or use inbox='memory:' in tests"
                )
            engine = create_engine(
                url,
                hide_parameters=True,
                connect_args={"timeout": CONNECT_TIMEOUT},
                # Whoever begins a transaction here also ends it; to roll back once more would cost as much as a write.
                pool_reset_on_return=None,
                # The one that was used last: to another, all its pages would be stale.
                pool_use_lifo=True,
            )
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediately)
            return engine
        if url.get_backend_name() == "postgresql":
            return create_engine(
                url,
                hide_parameters=True,
                pool_pre_ping=True,
                max_overflow=UNLIMITED,
                connect_args={name: value for name, value in _POSTGRES_PATIENCE.items() if name not in url.query},
            )
        if url.get_backend_name() == "mariadb":
            engine = create_engine(
                url,
                hide_parameters=True,
                pool_pre_ping=True,
                max_overflow=UNLIMITED,
                # What has been committed by others since the transaction began is to be seen, as on PostgreSQL.
                isolation_level="READ COMMITTED",
                connect_args={"charset": "utf8mb4"} | ({} if "connect_timeout" in url.query else _MARIADB_PATIENCE),
            )
            event.listen(engine, "connect", _prepare_mariadb)
            return engine
        return create_engine(url, hide_parameters=True)
    except ImportError as error:
        raise ConfigurationError(f"the inbox's database driver is not installed: {error.name}") from error
    except (ArgumentError, NoSuchModuleError) as error:
        # The text of the error may hold the URL, and the URL a password.
        raise ConfigurationError(f"the inbox's URL is not a database URL ({type(error).__name__})") from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by `_begin_immediately`, not by the driver.
    connection.isolation_level = None
    # One row with text that is not UTF-8 must not make every statement fail that returns it.
    connection.text_factory = _decode_text
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _decode_text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


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


def _prepare_mariadb(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        # A value that does not fit is an error, and not cut to what does.
        cursor.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {CONNECT_TIMEOUT}")


def _begin_immediately(connection: Connection) -> None:
    # A transaction that begins by reading and writes later fails at once where another writer came between; one that
    # asks for the lock first waits for it.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def is_outage(error: Exception) -> bool:
    """Whether nothing can be stored now, rather than that one event is refused."""
    # A pool that has no connection left says so with the library's own TimeoutError.
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError | ConfigurationError)
