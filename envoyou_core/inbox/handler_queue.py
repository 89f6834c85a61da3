"""The queue in which the transactional handlers of a process wait for SQLite's only write lock."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from envoyou_core.forks import call_in_forked_children

__all__ = ["HandlerTransactionQueue", "Slot"]

MAX_PAUSE = 0.2
"""Seconds: twice the interval at which SQLite polls for its lock."""

SHORT = 0.02
"""Seconds. Other writers get the lock by themselves between transactions that are shorter."""


POLL_INTERVAL = 0.002
"""Seconds between two attempts of a waiting handler to take the slot."""

PATIENCE = 0.1
"""Seconds for which other handlers may barge past the first one in the queue."""


class HandlerTransactionQueue:
    """Admits one handler transaction at a time. After a long one it leaves the lock free for as long.

    SQLite waits for its lock by polling. If handlers took the lock from one another without a gap, an acceptance that
    polls ten times a second would never find it free.

    A free slot goes to the first handler that asks, for a while even past the queue (barging). A thread that has just
    finished asks again at once with its next event; to block it and wake another thread for each event would cost more
    than most handlers do.

    Args:
        clock: a monotonic clock, in seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # The thread that held the slot does not exist in a forked child.
        self._lock = threading.Lock()
        self._queue = threading.Lock()
        self._first_waits_since: float | None = None
        self._free_until = 0.0

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for the slot. It is released at the end of the block at the latest."""
        lock = self._lock
        if not self._try_barge(lock):
            self._wait_in_queue(lock)
        with self._taken(lock) as slot:
            if (pause := self._pause()) > 0:
                self._sleep(pause)
            yield slot

    def _try_barge(self, lock: threading.Lock) -> bool:
        since = self._first_waits_since
        return (since is None or self._clock() - since < PATIENCE) and lock.acquire(blocking=False)

    def _wait_in_queue(self, lock: threading.Lock) -> None:
        # The first in the queue polls. If it blocked on the lock itself, it would be handed the slot each time.
        with self._queue:
            self._first_waits_since = self._clock()
            try:
                while not lock.acquire(blocking=False):
                    self._sleep(POLL_INTERVAL)
            finally:
                self._first_waits_since = None

    @asynccontextmanager
    async def async_slot(self) -> AsyncIterator[Slot]:
        """Wait for the slot without blocking the running event loop."""
        import asyncio

        lock = self._lock
        while not self._try_barge(lock):  # noqa: ASYNC110 - threads and other loops wait for it, too
            await asyncio.sleep(POLL_INTERVAL)
        with self._taken(lock) as slot:
            if (pause := self._pause()) > 0:
                await asyncio.sleep(pause)
            yield slot

    @contextmanager
    def _taken(self, lock: threading.Lock) -> Iterator[Slot]:
        slot = Slot(partial(self._release, lock), self._clock)
        try:
            yield slot
        finally:
            slot.release()

    def _pause(self) -> float:
        return max(0.0, self._free_until - self._clock())

    def _release(self, lock: threading.Lock, seconds: float) -> None:
        self._free_until = self._clock() + (min(seconds, MAX_PAUSE) if seconds > SHORT else 0.0)
        lock.release()


class Slot:
    """The right of one handler to hold SQLite's write lock."""

    def __init__(self, release: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._release = release
        self._clock = clock
        self._held_since: float | None = None
        self._releases = itertools.count()

    def lock_taken(self) -> None:
        """Note that the handler holds the lock from now on."""
        self._held_since = self._clock()

    def release(self) -> None:
        """Release the slot. It may be called several times, from any thread."""
        # If two threads call it at once, the counter lets one of them through.
        if next(self._releases) == 0:
            self._release(0.0 if self._held_since is None else self._clock() - self._held_since)
