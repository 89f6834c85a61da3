"""A time limit for handler transactions on SQLite, because such a transaction blocks every other writer."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from envoyou_core.errors import TransactionTimeoutError
from envoyou_core.forks import call_in_forked_children

__all__ = ["TRANSACTION_LIMIT", "time_limit"]

TRANSACTION_LIMIT = 1.0
"""Seconds that a handler's transaction may last on SQLite: less than other writers wait for the lock."""

INTERRUPT_AFTER = 0.05
"""Seconds that a running statement may go on after the time limit."""


@contextmanager
def time_limit(connection: sqlite3.Connection, seconds: float, expired: Callable[[], None]) -> Iterator[None]:
    """Roll back the connection's transaction if the block has not ended after `seconds`.

    Python cannot stop the code that holds the lock, but it can end its transaction: statements that the code executes
    afterwards fail, and so does the block.

    Args:
        connection: a connection with a transaction in progress.
        seconds: the time limit of the block, in seconds.
        expired: called in another thread after the rollback.

    Raises:
        TransactionTimeoutError: the block took longer.
    """
    limit = _Deadline(connection, expired)
    _deadlines.set(limit, seconds)
    try:
        yield
    finally:
        was_late = limit.end()
        _deadlines.cancel(limit)
        if was_late:
            raise TransactionTimeoutError(
                f"a handler's transaction on SQLite was rolled back after {seconds:g} s, because it blocks all other "
                "writers, acceptance included. Do slow work outside the transaction: on(..., atomic=False)"
            )


class _DeadlineThread:
    """One thread that watches all deadlines and ends when there are none. A timer thread for each would cost too much.

    It sleeps until the earliest deadline, even if that one is cancelled meanwhile, because hardly any deadline expires.
    """

    def __init__(self) -> None:
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # A forked child has neither the thread nor the transactions.
        self._changed = threading.Condition()
        self._due: dict[_Deadline, float] = {}
        self._sleeps_until = 0.0
        self._running = False

    def set(self, limit: _Deadline, seconds: float) -> None:
        """Let `limit` expire after `seconds`, or later while another deadline is being expired."""
        due = time.monotonic() + seconds
        with self._changed:
            self._due[limit] = due
            if not self._running:
                # Python 3.12 starts no thread while the interpreter exits, when the limit no longer matters.
                with suppress(RuntimeError):
                    threading.Thread(target=self._watch, name="envoyou-time-limits", daemon=True).start()
                    self._running = True
            elif due < self._sleeps_until:
                self._changed.notify()

    def cancel(self, limit: _Deadline) -> None:
        """Forget `limit`. Thousands of ended deadlines would otherwise be kept until they expire."""
        with self._changed:
            self._due.pop(limit, None)

    def _watch(self) -> None:
        while (limit := self._next_expired()) is not None:
            limit.expire()

    def _next_expired(self) -> _Deadline | None:
        """Wait for a deadline to expire; `None` if there are no deadlines left."""
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


_deadlines = _DeadlineThread()


class _Deadline:
    """The deadline of one transaction. Either the block ends first or the time limit is reached first, never both."""

    def __init__(self, connection: sqlite3.Connection, expired: Callable[[], None]) -> None:
        self._connection = connection
        self._on_expired = expired
        self._lock = threading.Lock()
        self.has_ended = False
        self._expired = False

    def end(self) -> bool:
        """Mark the block as ended; returns whether the deadline had expired before."""
        self.has_ended = True
        with self._lock:
            if self._expired:
                self._restore()
            return self._expired

    def expire(self) -> None:
        """Roll back, unless the block has ended."""
        with self._lock:
            if self.has_ended:
                return
            self._expired = True
            # Before the rollback, because later statements of the block would otherwise be committed one by one.
            self._insist(lambda: self._connection.execute("PRAGMA query_only = ON"))
            self._insist(self._connection.rollback)
        self._on_expired()

    def _insist(self, call: Callable[[], object]) -> None:
        """Make a call that waits for the running statement, and interrupt that statement if it goes on.

        Only methods that release the interpreter's lock while they wait can be used here. Others, such as
        `set_authorizer`, would deadlock with a statement that calls a Python function.
        """
        while not self.has_ended:
            interrupting = threading.Timer(INTERRUPT_AFTER, self._interrupt)
            interrupting.start()
            try:
                call()
            except sqlite3.ProgrammingError:
                # The connection was closed meanwhile, and so rolled back.
                return
            except sqlite3.Error:
                # The interrupt hit this call too, as it does while any cursor is open: try again.
                interrupting.join()
            else:
                return
            finally:
                interrupting.cancel()

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
            # A cursor is still open. Closing the connection ends the transaction with that cursor at the latest.
            self._connection.close()
