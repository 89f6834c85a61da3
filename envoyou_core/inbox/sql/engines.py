"""Engines for the databases that the SQL inbox supports, with the settings that each needs."""

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children
from envoyou_core.inbox.urls import driver_options, read_url

__all__ = [
    "CONNECT_TIMEOUT",
    "DIALECTS",
    "WriteLock",
    "check_mariadb",
    "close_engine",
    "dialect_of",
    "is_outage",
    "max_connections",
    "open_engine",
    "wrapped",
]

CONNECT_TIMEOUT = 2
"""Seconds to wait for a database's connection or lock: less than the time a sender waits for its answer."""

UNLIMITED = -1
"""The number of connections that a pool may open beyond its usual size. Each handler in a transaction holds a
connection, and acceptance, claims and settlements must not wait for a handler."""

DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "mariadb": "mariadb", "mysql": "mariadb"}
"""The database for each dialect of SQLAlchemy. The MySQL dialect also works with a MariaDB server."""

OLDEST_MARIADB = (10, 6)
"""The first version with `SKIP LOCKED`. It also has `INSERT ... RETURNING`."""


def dialect_of(connection: Connection) -> str:
    """Return which database a connection is to: `sqlite`, `postgresql` or `mariadb`."""
    return DIALECTS[connection.dialect.name]


def wrapped(error: sqlite3.Error, statement: str, parameters: Sequence[Any], connection: Connection) -> Exception:
    """Return the error of a statement that SQLAlchemy did not execute, as SQLAlchemy would raise it."""
    return DBAPIError.instance(
        statement, parameters, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
    )


_POSTGRES_DEFAULTS: dict[str, Any] = {
    # The next transaction may be on another connection of a pooler, which does not know the statement.
    "prepare_threshold": None,
    "connect_timeout": CONNECT_TIMEOUT,
    # A server that disappears does not close its connections. By default the kernel would retransmit for a quarter of
    # an hour, and wait two hours for a response. After ten seconds (in milliseconds) a new connection is made.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

_MARIADB_DEFAULTS: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "charset": "utf8mb4"}


class WriteLock:
    """Serialises the threads of this process that write to SQLite, which has one writer at a time.

    SQLite itself waits by polling with growing pauses, so that threads that all write would mostly sleep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        call_in_forked_children(self._renew)

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lock until the block ends, or until the yielded function is called, from any thread.

        Raises:
            OperationalError: the lock was not free within `CONNECT_TIMEOUT` seconds.
        """
        lock = self._lock
        if not lock.acquire(timeout=CONNECT_TIMEOUT):
            raise OperationalError(None, None, sqlite3.OperationalError("database is locked"))
        releases = itertools.count()

        def release() -> None:
            # If two threads call it at once, the counter lets one of them through.
            if next(releases) == 0:
                lock.release()

        try:
            yield release
        finally:
            release()

    def _renew(self) -> None:
        # The thread that held the lock does not exist in a forked child.
        self._lock = threading.Lock()


def open_engine(database: str | URL) -> Engine:
    """Create an engine for a database URL, with the settings that an inbox needs.

    On PostgreSQL the engine uses no state that outlives a transaction, so that a pooler such as PgBouncer may assign
    each transaction another connection: no prepared statements, unless the URL has a `prepare_threshold`, and no
    startup options.

    Raises:
        ConfigurationError: the URL is invalid, or its driver is not installed.
    """
    url = read_url(database).url
    try:
        url, options = driver_options(url)
        return _ENGINES[url.get_backend_name()](url, options)
    except ImportError as error:
        raise ConfigurationError(
            f"the inbox's database driver is not installed: {error.name}{_extra_for(url.get_backend_name())}"
        ) from error
    except (ArgumentError, ValueError) as error:
        # The text of the error may contain the URL, and the URL a password.
        raise ConfigurationError(f"the inbox's URL is invalid ({type(error).__name__})") from None


def _extra_for(database: str) -> str:
    extra = {"postgresql": "postgres", "mariadb": "mariadb"}.get(database)
    return f": pip install 'envoyou-webhooks[{extra}]'" if extra else ""


def _sqlite_engine(url: URL, options: dict[str, Any]) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": CONNECT_TIMEOUT} | options,
        # Every transaction is ended where it begins; another rollback would cost as much as a write.
        pool_reset_on_return=None,
        # Reuse the last connection: the page cache of another one would be stale.
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def _postgres_engine(url: URL, options: dict[str, Any]) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        max_overflow=UNLIMITED,
        connect_args=_POSTGRES_DEFAULTS | options,
    )


def _mariadb_engine(url: URL, options: dict[str, Any]) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        max_overflow=UNLIMITED,
        # A transaction must see what others commit after it begins, as on PostgreSQL.
        isolation_level="READ COMMITTED",
        connect_args=_MARIADB_DEFAULTS | options,
    )
    # Runs before SQLAlchemy's own check, whose error does not say what is missing.
    event.listen(engine, "connect", _prepare_mariadb, insert=True)
    return engine


_ENGINES: dict[str, Callable[[URL, dict[str, Any]], Engine]] = {
    "sqlite": _sqlite_engine,
    "postgresql": _postgres_engine,
    "mariadb": _mariadb_engine,
}


def close_engine(engine: Engine) -> None:
    """Close the engine's connections, those in use when they are returned; the next use opens new ones."""
    pool = engine.pool
    engine.dispose()
    # A connection in use is returned to this pool, which would leave it to the garbage collector.
    event.listen(pool, "checkin", lambda _, record: record.invalidate())
    # For connections that were returned before the line above.
    pool.dispose()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # `_begin_immediately` begins transactions, not the driver.
    connection.isolation_level = None
    # One row with text that is not UTF-8 must not fail every statement that returns it. It is called for each text, and
    # a partial of `str` needs no frame.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    cursor = connection.cursor()
    try:
        _switch_to_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()
    except BaseException:
        # SQLAlchemy forgets a connection that it cannot use, and does not close it.
        connection.close()
        raise


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            # Several processes may open a new file at once, and SQLite does not wait for the lock of this switch.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _prepare_mariadb(connection: Any, _record: object) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            check_mariadb(cursor.fetchone()[0])
            # A value that does not fit must be an error, not be truncated.
            cursor.execute(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                f"SESSION innodb_lock_wait_timeout = {CONNECT_TIMEOUT}"
            )
    except BaseException:
        connection.close()
        raise


def check_mariadb(version: str) -> None:
    """Check that the server has the features that the inbox needs.

    Args:
        version: the result of `SELECT VERSION()`, such as `10.11.6-MariaDB`.

    Raises:
        ConfigurationError: the server is MySQL, or too old.
    """
    number = re.match(r"(\d+)\.(\d+)", version)
    if "mariadb" not in version.lower():
        raise ConfigurationError(
            f"the inbox's server is MySQL {version[:40]}, which is not supported because it has no INSERT ... "
            "RETURNING: use MariaDB or PostgreSQL"
        )
    if number is not None and (int(number[1]), int(number[2])) < OLDEST_MARIADB:
        raise ConfigurationError(f"the inbox needs MariaDB 10.6 or later, got {version[:40]}")


def _begin_immediately(connection: Connection) -> None:
    # A transaction that begins by reading and writes later fails at once if another writer came between. BEGIN
    # IMMEDIATE waits for the lock first.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # Executing it by SQLAlchemy would cost a third of an empty transaction.
        driver: Any = connection.connection.driver_connection
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise wrapped(error, "BEGIN IMMEDIATE", (), connection) from error


def max_connections(engine: Engine) -> int | None:
    """Return the largest number of connections that an engine's pool can have; `None` if that is not bounded."""
    pool = engine.pool
    if not isinstance(pool, QueuePool) or pool._max_overflow == UNLIMITED:  # noqa: SLF001 - there is no other way
        return None
    return pool.size() + pool._max_overflow  # noqa: SLF001 - as above


def is_outage(error: Exception) -> bool:
    """Whether the database cannot store anything now, as opposed to rejecting one event."""
    # An exhausted pool raises the library's own TimeoutError.
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError | ConfigurationError)
