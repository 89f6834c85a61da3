"""Waiting on an event loop for results of threads, such as the writer that stores events.

A thread that resolves many futures at once wakes each loop once, not once for each of them. Deadlines are checked by
one timer for each loop, which runs only while something is awaited.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

__all__ = ["wait_on_loop"]

TICK: Final = 0.05
"""Seconds between two checks of the deadlines. So much later than its deadline a wait may end."""


async def wait_on_loop(future: Future[Any], deadline: float) -> Any:
    """Return the result of a thread's future. If the wait ends earlier, the future is cancelled.

    Args:
        future: the future.
        deadline: in seconds of `time.monotonic`.

    Raises:
        TimeoutError: there was no result at the deadline.
    """
    if not future.done():
        waits = _waits_of(asyncio.get_running_loop())
        wait = waits.begin(future, deadline)
        try:
            is_done = await wait
        except asyncio.CancelledError:
            future.cancel()
            raise
        finally:
            waits.end(wait)
        if not is_done and not future.done():
            future.cancel()
            raise TimeoutError
    return future.result()


class _LoopWaits:
    """The waits of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._deadlines: dict[asyncio.Future[bool], float] = {}
        self._has_timer = False
        self._ended: deque[asyncio.Future[bool]] = deque()
        self._is_woken = False

    def begin(self, future: Future[Any], deadline: float) -> asyncio.Future[bool]:
        """Return what to await: true once the future is done, false if the deadline passes. Call `end` afterwards."""
        wait = self.loop.create_future()
        self._deadlines[wait] = deadline
        if not self._has_timer:
            self._has_timer = True
            self.loop.call_later(TICK, self._check_deadlines)
        future.add_done_callback(partial(self._wake, wait))
        return wait

    def end(self, wait: asyncio.Future[bool]) -> None:
        """Forget a wait."""
        del self._deadlines[wait]

    def _wake(self, wait: asyncio.Future[bool], _future: object) -> None:
        """End a wait; called in any thread."""
        # First the wait and then the flag, which `_end_waits` handles in the opposite order. So none is left behind.
        self._ended.append(wait)
        if not self._is_woken:
            self._is_woken = True
            try:
                self.loop.call_soon_threadsafe(self._end_waits)
            except RuntimeError:
                # The loop is closed, and with it all of its tasks have ended.
                self._ended.clear()

    def _end_waits(self) -> None:
        self._is_woken = False
        while self._ended:
            _end(self._ended.popleft(), is_done=True)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for wait, deadline in self._deadlines.items():
            if deadline <= now:
                _end(wait, is_done=False)
        self._has_timer = bool(self._deadlines)
        if self._has_timer:
            self.loop.call_later(TICK, self._check_deadlines)


def _end(wait: asyncio.Future[bool], *, is_done: bool) -> None:
    if not wait.done():
        wait.set_result(is_done)


_of_this_thread = threading.local()


def _waits_of(loop: asyncio.AbstractEventLoop) -> _LoopWaits:
    # A thread runs one loop at a time. A wait of an earlier loop keeps the object that it has begun with.
    waits: _LoopWaits | None = getattr(_of_this_thread, "waits", None)
    if waits is None or waits.loop is not loop:
        waits = _of_this_thread.waits = _LoopWaits(loop)
    return waits
