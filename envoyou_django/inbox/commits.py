"""The transaction of an acceptance, which is on disk when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction

__all__ = ["LOCK_TIMEOUT", "committed", "synced"]

LOCK_TIMEOUT = 2.0
"""Seconds that an acceptance waits for a lock: less than a sender waits for the response."""

SYNCHRONOUS_FULL = 2
"""The value of `PRAGMA synchronous` with which a commit on SQLite is on disk."""


@contextmanager
def committed(alias: str) -> Iterator[None]:
    """Run the block in a transaction of its own, which is on disk when the block has ended.

    Raises:
        RuntimeError: another transaction is in progress, whose rollback would undo this one. The transaction of a
            `TestCase` is an exception.
    """
    connection = connections[alias]
    connection.ensure_connection()
    if not connection.in_atomic_block and not connection.get_autocommit():
        raise RuntimeError(f"the database {alias!r} is not in autocommit mode: nothing would be committed")
    with synced(connection), _lock_timeout(connection), transaction.atomic(using=alias, durable=True):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
        yield


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
