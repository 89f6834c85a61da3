"""Calls of the inbox within a handler's transaction on SQLite, which take part in that transaction.

SQLite has one writer at a time. On a connection of its own, such a call would wait for the lock that its own handler
holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import Connection

from envoyou_core.errors import WouldDeadlockError

__all__ = ["connection_for_reading", "connection_for_writing", "handler_transaction", "refuse_nested"]


@dataclass(slots=True, eq=False)
class _HandlerTransaction:
    """The transaction of the handler that runs in this context.

    Attributes:
        database: identifies the database.
        connection: its connection; `None` if it belongs to an event loop, where no blocking call can use it.
        thread: the thread that may use the connection.
        has_ended: whether it has ended. A task or thread that outlives the handler still has the handler's context.
    """

    database: object
    connection: Connection | None
    thread: int
    has_ended: bool = False

    @property
    def usable_connection(self) -> Connection | None:
        return self.connection if self.thread == threading.get_ident() else None


_current: ContextVar[_HandlerTransaction | None] = ContextVar("envoyou_handler_transaction", default=None)


@contextmanager
def handler_transaction(database: object, connection: Connection | None) -> Iterator[None]:
    """Let calls of the inbox in the block take part in the transaction of `connection`.

    Args:
        database: identifies the database.
        connection: a connection with a transaction in progress; `None` if calls cannot use it, so that those that write
            fail.
    """
    outer = _current.get()
    transaction = _HandlerTransaction(database, connection, threading.get_ident())
    _current.set(transaction)
    try:
        yield
    finally:
        transaction.has_ended = True
        _current.set(outer)


def connection_for_reading(database: object) -> Connection | None:
    """Return the connection of the handler's transaction; `None` to use another one, which waits for no lock."""
    transaction = _find(database)
    return None if transaction is None else transaction.usable_connection


def connection_for_writing(database: object) -> Connection | None:
    """Return the connection of the handler's transaction; `None` if there is no such transaction.

    Raises:
        WouldDeadlockError: there is one, but the caller cannot use its connection.
    """
    transaction = _find(database)
    if transaction is None:
        return None
    if transaction.usable_connection is None:
        raise WouldDeadlockError
    return transaction.usable_connection


def refuse_nested(database: object) -> None:
    """Check that no handler's transaction is in progress, for which another one would wait.

    Raises:
        WouldDeadlockError: there is one.
    """
    if _find(database) is not None:
        raise WouldDeadlockError


def _find(database: object) -> _HandlerTransaction | None:
    transaction = _current.get()
    if transaction is None or transaction.has_ended or transaction.database != database:
        return None
    return transaction
