"""The transactions of the inbox itself: an acceptance is on disk when it has ended, and none of them conflicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction

from envoyou_core.adapter import LOCK_TIMEOUT, POSTGRES_LIMITS
from envoyou_django.connections import ensure_connection

__all__ = ["committed", "own_statement", "own_transaction", "read_committed", "synced"]

SYNCHRONOUS_FULL = 2
"""The value of `PRAGMA synchronous` with which a commit on SQLite is on disk."""

READ_COMMITTED = "read committed"

_default_levels: dict[str, str] = {}
"""The default isolation level of the server for each alias on PostgreSQL, read once."""


@contextmanager
def committed(alias: str) -> Iterator[None]:
    """Run the block in a transaction of its own, which is on disk when the block has ended.

    Raises:
        RuntimeError: another transaction is in progress, whose rollback would undo this one. The transaction of a
            `TestCase` is an exception.
    """
    connection = connections[alias]
    ensure_connection(connection)
    if not connection.in_atomic_block and not connection.get_autocommit():
        raise RuntimeError(f"the database {alias!r} is not in autocommit mode: nothing would be committed")
    with (
        synced(connection),
        _lock_timeout(connection),
        read_committed(connection),
        transaction.atomic(using=alias, durable=True),
    ):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(POSTGRES_LIMITS)
        yield


@contextmanager
def own_transaction(alias: str) -> Iterator[None]:
    """Run the block in a transaction of the inbox itself, or in a savepoint of the one that is open."""
    with read_committed(connections[alias]), transaction.atomic(using=alias):
        yield


@contextmanager
def own_statement(alias: str) -> Iterator[None]:
    """Run a single statement of the inbox: by itself if the server's default isolation level suits it."""
    connection = connections[alias]
    if connection.vendor != "postgresql" or connection.in_atomic_block or _default_level(connection) == READ_COMMITTED:
        yield
        return
    with own_transaction(alias):
        yield


def _default_level(connection: Any) -> str:
    if connection.alias not in _default_levels:
        with connection.cursor() as cursor:
            cursor.execute("SHOW default_transaction_isolation")
            (_default_levels[connection.alias],) = cursor.fetchone()
    return _default_levels[connection.alias]


@contextmanager
def read_committed(connection: Any) -> Iterator[None]:
    """Let the transactions of the block have the isolation level READ COMMITTED, unless one is in progress.

    At a higher level, which the project or the server may have set, they would fail because of one another.
    """
    if connection.vendor == "sqlite" or connection.in_atomic_block or not connection.get_autocommit():
        yield
        return
    if connection.vendor == "mysql":
        if connection.isolation_level != READ_COMMITTED:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield
        return
    # The driver adds the level to BEGIN, so that it costs no round trip.
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    driver = connection.connection
    usual = driver.isolation_level
    driver.isolation_level = IsolationLevel.READ_COMMITTED
    try:
        yield
    finally:
        if not driver.closed:
            driver.isolation_level = usual


@contextmanager
def synced(connection: Any) -> Iterator[None]:
    """Let SQLite sync each commit of the block to disk, which the project may have disabled, as is usual with WAL."""
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
    """Shorten the connection's lock timeout for the block, because the project may have set a longer one, or none."""
    if connection.vendor == "sqlite":
        query, statement, unit = "PRAGMA busy_timeout", "PRAGMA busy_timeout = {:.0f}", 0.001
    elif connection.vendor == "mysql":
        # The second one is for locks on a whole table, such as during an ALTER TABLE.
        query = "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout"
        statement, unit = "SET innodb_lock_wait_timeout = {:.0f}, lock_wait_timeout = {:.0f}", 1.0
    else:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(query)
        usual = cursor.fetchone()
        cursor.execute(statement.format(*(min(value, LOCK_TIMEOUT / unit) for value in usual)))
        try:
            yield
        finally:
            cursor.execute(statement.format(*usual))
