"""A time limit for a transaction on SQLite, which keeps every other writer out while it lasts."""

from __future__ import annotations

import heapq
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from envoyou_core.errors import EnvoyouError

__all__ = ["TRANSACTION_LIMIT", "TransactionTimeoutError", "time_limit"]

TRANSACTION_LIMIT = 1.0
"""Seconds that a handler's transaction may last on SQLite: less than another writer waits for its lock."""


class TransactionTimeoutError(EnvoyouError):
    """A handler held SQLite's only write lock for too long; its transaction was rolled back."""


@contextmanager
def time_limit(connection: sqlite3.Connection, seconds: float, expired: Callable[[], None]) -> Iterator[None]:
    """Roll the connection's transaction back when the block has not ended after `seconds`.

    Python cannot stop the code that holds the lock, but its transaction can be taken from it: what it executes
    afterwards fails, and so does the block.

    Args:
        connection: with a transaction begun.
        seconds: the seconds that the block may last.
        expired: called in another thread once the transaction was taken away.

    Raises:
        TransactionTimeoutError: the time was over before the block was.
    """
    limit = _Limit(connection, expired)
    _alarms.set(limit, seconds)
    try:
        yield
    finally:
        if limit.end():
            raise TransactionTimeoutError(
                f"a transaction on SQLite was not over after {seconds:g} s and was rolled back: it keeps out all who "
                "write, acceptance too. Slow work belongs in a handler that does not share it: on(..., atomic=False)"
            )


class _Alarms:
    """One thread for all time limits, for as long as there are any: a thread for each would cost more than its work.

    It wakes for those that are not over in time: the others are gone when it next looks.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, _Limit]] = []
        self._numbers = itertools.count()
        self._running = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def set(self, limit: _Limit, seconds: float) -> None:
        """Let it expire in `seconds`, or up to as long afterwards as another one takes to expire."""
        due = time.monotonic() + seconds
        with self._changed:
            is_first = not self._due or due < self._due[0][0]
            heapq.heappush(self._due, (due, next(self._numbers), limit))
            if not self._running:
                self._running = True
                threading.Thread(target=self._watch, name="envoyou-time-limits", daemon=True).start()
            elif is_first:
                self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while self._due and self._due[0][2].has_ended:
                    heapq.heappop(self._due)
                if not self._due:
                    self._running = False
                    return
                left = self._due[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                _, _, limit = heapq.heappop(self._due)
            limit.expire()

    def _renew(self) -> None:
        # A forked child has neither the thread nor the transactions.
        self._changed = threading.Condition()
        self._due = []
        self._running = False


_alarms = _Alarms()


class _Limit:
    """Either the block ends first, or its time does: whichever comes second finds the matter decided."""

    def __init__(self, connection: sqlite3.Connection, expired: Callable[[], None]) -> None:
        self._connection = connection
        self._tell = expired
        self._lock = threading.Lock()
        self.has_ended = False
        self._expired = False

    def end(self) -> bool:
        """The block has ended; true when it was too late."""
        with self._lock:
            self.has_ended = True
            if self._expired:
                with suppress(sqlite3.ProgrammingError):
                    self._connection.set_authorizer(None)
            return self._expired

    def expire(self) -> None:
        """The time is over: roll back, unless the block has ended."""
        with self._lock:
            if self.has_ended:
                return
            self._expired = True
            # In this order: nothing new may begin, for it would be committed by itself once the transaction is gone;
            # what is under way is cut short.
            # Who has closed it meanwhile has rolled it back.
            with suppress(sqlite3.ProgrammingError):
                self._connection.set_authorizer(_allow_only_rollback)
                self._connection.interrupt()
                self._connection.rollback()
        self._tell()


def _allow_only_rollback(action: int, argument: str | None, *_: str | None) -> int:
    rolls_back = action == sqlite3.SQLITE_TRANSACTION and argument == "ROLLBACK"
    return sqlite3.SQLITE_OK if rolls_back else sqlite3.SQLITE_DENY
