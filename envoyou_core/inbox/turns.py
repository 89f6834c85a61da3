"""Whose turn it is, of this process's handlers, to hold the only write lock of SQLite."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from envoyou_core.forks import call_in_forked_children

__all__ = ["HandlerTurns", "Turn"]

LONGEST_PAUSE = 0.2
"""Seconds: twice the time after which whoever waits for SQLite's lock looks again."""

SHORT = 0.02
"""Seconds. Between turns that are shorter, those who wait get in by themselves."""


LOOK_AGAIN_AFTER = 0.005
"""Seconds after which one who waits on an event loop tries again."""


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
    def turn(self) -> Iterator[Turn]:
        """Wait for a turn, which ends with the block at the latest."""
        lock = self._lock
        lock.acquire()
        with self._taken(lock) as turn:
            if (pause := self._pause()) > 0:
                time.sleep(pause)
            yield turn

    @asynccontextmanager
    async def async_turn(self) -> AsyncIterator[Turn]:
        """The same, without blocking the running event loop."""
        import asyncio

        lock = self._lock
        while not lock.acquire(blocking=False):  # noqa: ASYNC110 - threads wait for it, too, and other loops
            await asyncio.sleep(LOOK_AGAIN_AFTER)
        with self._taken(lock) as turn:
            if (pause := self._pause()) > 0:
                await asyncio.sleep(pause)
            yield turn

    @contextmanager
    def _taken(self, lock: threading.Lock) -> Iterator[Turn]:
        turn = Turn(partial(self._end, lock))
        try:
            yield turn
        finally:
            turn.end()

    def _pause(self) -> float:
        return max(0.0, self._free_until - time.monotonic())

    def _end(self, lock: threading.Lock, seconds: float) -> None:
        self._free_until = time.monotonic() + (min(seconds, LONGEST_PAUSE) if seconds > SHORT else 0.0)
        lock.release()


class Turn:
    """The turn of one handler."""

    def __init__(self, end: Callable[[float], None]) -> None:
        self._end = end
        self._held_since: float | None = None
        self._ends = itertools.count()

    def holds(self) -> None:
        """The lock is held from now on."""
        self._held_since = time.monotonic()

    def end(self) -> None:
        """The lock is free again. It may be called several times, in any thread."""
        # Of two threads that come here, a count lets one pass.
        if next(self._ends) == 0:
            self._end(0.0 if self._held_since is None else time.monotonic() - self._held_since)
