"""Wakes a worker and asks it to stop, from any thread."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from envoyou_core.worker.loop_tasks import LoopTasks

__all__ = ["Signals"]


class Signals:
    """The wake-ups and the stop request of one worker.

    Args:
        loop: the worker's event loop.
    """

    def __init__(self, loop: LoopTasks) -> None:
        self._loop = loop
        self._woken = asyncio.Event()
        self._is_waking = False
        self._deadline = 0.0
        self.stopping = False

    def wake(self) -> None:
        """End the current `wait`, or the next one. Safe to call from any thread, at any time."""
        # If the loop is closed, the next worker polls the inbox when it starts.
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._woken.set)

    def stop(self, timeout: float) -> None:
        """Ask the worker to stop within `timeout` seconds. Safe to call from any thread."""
        self._deadline = time.monotonic() + timeout
        self.stopping = True
        self.wake()

    @property
    def remaining(self) -> float:
        """Seconds until the worker must have stopped."""
        return self._deadline - time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether the worker should have stopped by now."""
        return self.stopping and self.remaining <= 0

    def clear(self) -> None:
        """Forget earlier wake-ups, because the worker polls now."""
        # In this order: a wake-up in between is not lost.
        self._is_waking = False
        self._woken.clear()

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, for at most that long."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
