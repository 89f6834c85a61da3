"""A circuit breaker: while a service does not answer, callers do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from envoyou_core.forks import ForkSafeLock

__all__ = ["PAUSE", "CircuitBreaker"]

PAUSE = 1.0
"""Seconds for which no call is made after a failure; then one call at a time tries."""

Result = TypeVar("Result")


class CircuitBreaker:
    """Calls a function unless it failed recently. After a failure one call at a time tries, until one succeeds.

    Args:
        clock: seconds of any epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ForkSafeLock()
        self._try_at: float | None = None

    def call(self, function: Callable[[], Result]) -> Result | None:
        """Call `function` and return its result; return `None` without calling it while the circuit is open.

        Raises:
            Exception: whatever `function` raises.
        """
        if not self._may_call():
            return None
        try:
            result = function()
        except BaseException:
            self._try_at = self._clock() + PAUSE
            raise
        self._try_at = None
        return result

    def _may_call(self) -> bool:
        with self._lock:
            if self._try_at is None:
                return True
            if self._clock() < self._try_at:
                return False
            # Until this call has its answer, the other callers go on without one.
            self._try_at = float("inf")
            return True
