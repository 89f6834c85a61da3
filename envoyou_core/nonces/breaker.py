"""A rest for what has failed: nobody waits again and again for an answer that does not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PAUSE", "Breaker"]

PAUSE = 1.0
"""Seconds for which what has failed is not called; then one call at a time tries."""

Result = TypeVar("Result")


class Breaker:
    """Calls what may hang, one call after the other once it has failed, until one succeeds.

    Args:
        clock: seconds, of any epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._try_at: float | None = None

    def call(self, function: Callable[[], Result]) -> Result | None:
        """Its result; `None`, and it is not called, during a pause and while another call tries.

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
            # Until it has its answer, the others go on without one.
            self._try_at = float("inf")
            return True
