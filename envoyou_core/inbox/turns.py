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


LOOK_AGAIN_AFTER = 0.002
"""Seconds after which one who waits tries again."""

PATIENCE = 0.1
"""Seconds after which the first of those who wait is passed by no longer."""


class HandlerTurns:
    """Lets one handler after the other hold the lock, and after a long turn leaves it free for as long.

    SQLite's own way to wait is to look again now and then. Where handlers took the lock from one another at once, an
    acceptance that looks ten times a second would never find it free.

    A turn that is free goes to whoever comes, for a while even past those who wait in line. A thread that has just had
    one comes back with its next event at once; to put it to sleep and wake another for each event would cost more than
    most handlers do.

    Args:
        clock: seconds that never go back.
        sleep: waits that many seconds.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # The thread whose turn it was does not exist in a forked child.
        self._lock = threading.Lock()
        self._line = threading.Lock()
        self._first_waits_since: float | None = None
        self._free_until = 0.0

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for a turn, which ends with the block at the latest."""
        lock = self._lock
        if not self._passes_the_line(lock):
            self._wait_in_line(lock)
        with self._taken(lock) as turn:
            if (pause := self._pause()) > 0:
                self._sleep(pause)
            yield turn

    def _passes_the_line(self, lock: threading.Lock) -> bool:
        since = self._first_waits_since
        return (since is None or self._clock() - since < PATIENCE) and lock.acquire(blocking=False)

    def _wait_in_line(self, lock: threading.Lock) -> None:
        # The first of them looks now and then. Blocked on the lock itself, it would be handed every turn.
        with self._line:
            self._first_waits_since = self._clock()
            try:
                while not lock.acquire(blocking=False):
                    self._sleep(LOOK_AGAIN_AFTER)
            finally:
                self._first_waits_since = None

    @asynccontextmanager
    async def async_turn(self) -> AsyncIterator[Turn]:
        """The same, without blocking the running event loop."""
        import asyncio

        lock = self._lock
        while not self._passes_the_line(lock):  # noqa: ASYNC110 - threads wait for it, too, and other loops
            await asyncio.sleep(LOOK_AGAIN_AFTER)
        with self._taken(lock) as turn:
            if (pause := self._pause()) > 0:
                await asyncio.sleep(pause)
            yield turn

    @contextmanager
    def _taken(self, lock: threading.Lock) -> Iterator[Turn]:
        turn = Turn(partial(self._end, lock), self._clock)
        try:
            yield turn
        finally:
            turn.end()

    def _pause(self) -> float:
        return max(0.0, self._free_until - self._clock())

    def _end(self, lock: threading.Lock, seconds: float) -> None:
        self._free_until = self._clock() + (min(seconds, LONGEST_PAUSE) if seconds > SHORT else 0.0)
        lock.release()


class Turn:
    """The turn of one handler."""

    def __init__(self, end: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._end = end
        self._clock = clock
        self._held_since: float | None = None
        self._ends = itertools.count()

    def holds(self) -> None:
        """The lock is held from now on."""
        self._held_since = self._clock()

    def end(self) -> None:
        """The lock is free again. It may be called several times, in any thread."""
        # Of two threads that come here, a count lets one pass.
        if next(self._ends) == 0:
            self._end(0.0 if self._held_since is None else self._clock() - self._held_since)
