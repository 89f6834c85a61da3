"""A time limit for a transaction on SQLite, which keeps every other writer out while it lasts."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from envoyou_core.errors import EnvoyouError
from envoyou_core.forks import call_in_forked_children

__all__ = ["TRANSACTION_LIMIT", "TransactionTimeoutError", "time_limit"]

TRANSACTION_LIMIT = 1.0
"""Seconds that a handler's transaction may last on SQLite: less than another writer waits for its lock."""


CUT_SHORT_AFTER = 0.05
"""Seconds that a statement may go on when the time is over."""


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
        was_late = limit.end()
        _alarms.cancel(limit)
        if was_late:
            raise TransactionTimeoutError(
                f"a transaction on SQLite was not over after {seconds:g} s and was rolled back: it keeps out all who "
                "write, acceptance too. Slow work belongs in a handler that does not share it: on(..., atomic=False)"
            )


class _Alarms:
    """One thread for all time limits, for as long as there are any: a thread for each would cost more than its work.

    It sleeps until the first of them is over, whatever has ended meanwhile: hardly ever is there one to be told.
    """

    def __init__(self) -> None:
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # A forked child has neither the thread nor the transactions.
        self._changed = threading.Condition()
        self._due: dict[_Limit, float] = {}
        self._sleeps_until = 0.0
        self._running = False

    def set(self, limit: _Limit, seconds: float) -> None:
        """Let it expire in `seconds`, or up to as long afterwards as another one takes to expire."""
        due = time.monotonic() + seconds
        with self._changed:
            self._due[limit] = due
            if not self._running:
                # Python 3.12 starts no thread while the process ends, by which time the limit does not matter any more.
                with suppress(RuntimeError):
                    threading.Thread(target=self._watch, name="envoyou-time-limits", daemon=True).start()
                    self._running = True
            elif due < self._sleeps_until:
                self._changed.notify()

    def cancel(self, limit: _Limit) -> None:
        """Forget it, for it has ended: kept until its time is over, it would lie there with thousands of others."""
        with self._changed:
            self._due.pop(limit, None)

    def _watch(self) -> None:
        while (limit := self._next_over()) is not None:
            limit.expire()

    def _next_over(self) -> _Limit | None:
        """Wait for one whose time is over; `None` when there are no limits any more."""
        with self._changed:
            while self._due:
                limit = min(self._due, key=self._due.__getitem__)
                left = self._due[limit] - time.monotonic()
                if left <= 0:
                    del self._due[limit]
                    return limit
                self._sleeps_until = self._due[limit]
                self._changed.wait(left)
            self._running = False
            return None


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
        self.has_ended = True
        with self._lock:
            if self._expired:
                self._restore()
            return self._expired

    def expire(self) -> None:
        """The time is over: roll back, unless the block has ended."""
        with self._lock:
            if self.has_ended:
                return
            self._expired = True
            # First: what was written after the transaction is gone would be committed by itself.
            self._insist(lambda: self._connection.execute("PRAGMA query_only = ON"))
            self._insist(self._connection.rollback)
        self._tell()

    def _insist(self, call: Callable[[], object]) -> None:
        """Make a call that waits for the statement under way, which is cut short when it goes on.

        The connection's other methods, those that say what may be executed among them, wait for it as well, but let no
        other thread run meanwhile: not even the statement, where it calls a function in Python.
        """
        while not self.has_ended:
            cut_short = threading.Timer(CUT_SHORT_AFTER, self._interrupt)
            cut_short.start()
            try:
                call()
            except sqlite3.ProgrammingError:
                # Whoever has closed it meanwhile has rolled it back.
                return
            except sqlite3.Error:
                # It was interrupted with the others, as everything is for as long as some cursor is open.
                cut_short.join()
            else:
                return
            finally:
                cut_short.cancel()

    def _interrupt(self) -> None:
        with suppress(sqlite3.ProgrammingError):
            self._connection.interrupt()

    def _restore(self) -> None:
        try:
            self._connection.rollback()
            self._connection.execute("PRAGMA query_only = OFF")
        except sqlite3.ProgrammingError:
            pass
        except sqlite3.Error:
            # A cursor is open still. With it at the latest, the transaction of a closed connection ends.
            self._connection.close()
