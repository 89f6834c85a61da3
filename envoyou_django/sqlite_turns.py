"""Whose turn it is, of this process's handlers, to hold the only write lock of SQLite."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from envoyou_core.forks import call_in_forked_children

__all__ = ["HandlerTurns"]

LONGEST_PAUSE = 0.2
"""Seconds: twice the time after which whoever waits for SQLite's lock looks again."""

SHORT = 0.01
"""Seconds. Between turns that are shorter, those who wait get in by themselves."""


class HandlerTurns:
    """Lets one handler after the other hold the lock, and after a long turn leaves it free for as long.

    SQLite's own way to wait is to look again now and then. Where handlers took the lock from one another at once, an
    acceptance that looks ten times a second would never find it free.
    """

    def __init__(self) -> None:
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # The thread whose turn it was does not exist in a forked child.
        self._lock = threading.Lock()
        self._free_until = 0.0

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Wait for a turn; it ends with the block, or when what it is given is called, in any thread."""
        lock = self._lock
        lock.acquire()
        time.sleep(max(0.0, self._free_until - time.monotonic()))
        began = time.monotonic()
        ends = itertools.count()

        def end() -> None:
            # Of two threads that come here, a count lets one pass.
            if next(ends) == 0:
                now = time.monotonic()
                self._free_until = now + min(now - began, LONGEST_PAUSE) if now - began > SHORT else now
                lock.release()

        try:
            yield end
        finally:
            end()
