"""Exponential backoff for a worker whose inbox cannot be reached, and for events that a failing database interrupts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["FIRST_RETRY", "MAX_RETRY", "Backoff", "OutageBackoff", "delay_after_interruption"]

FIRST_RETRY = 0.5
"""Seconds until the first retry; each further one waits twice as long."""

MAX_RETRY = 30.0
"""The longest wait, in seconds."""


class Backoff:
    """The waits between retries."""

    def __init__(self) -> None:
        self._next = FIRST_RETRY

    @property
    def next(self) -> float:
        """The next wait, in seconds."""
        return self._next

    def advance(self) -> float:
        """Return the next wait, in seconds, and double the one after it."""
        wait, self._next = self._next, min(2 * self._next, MAX_RETRY)
        return wait

    def reset(self) -> None:
        """Start again with the first wait, because a call has succeeded."""
        self._next = FIRST_RETRY


FIRST_DELAY = 1.0
"""Seconds until an event that the database has interrupted is due again; each further delay is twice as long."""

MAX_DELAY = 60.0
"""The longest delay, in seconds."""


def delay_after_interruption(interruptions: int) -> float:
    """Return the seconds until an event is due again that was interrupted so many times before."""
    return min(FIRST_DELAY * 2.0 ** min(interruptions, 10), MAX_DELAY)


class OutageBackoff:
    """The delays of the events of a process while its database fails. Safe to use from any thread.

    Many events fail at the same time. The delay grows with the length of the outage, not with the number of events.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._delay = 0.0
        self._grows_at = 0.0

    def next(self) -> float:
        """Return the delay of an event that fails now, in seconds."""
        with self._lock:
            now = self._clock()
            if not self._delay or now >= self._grows_at:
                self._delay = min(2 * self._delay, MAX_DELAY) or FIRST_DELAY
                self._grows_at = now + self._delay
            return self._delay

    def reset(self) -> None:
        """Start again with the first delay, because a handler has succeeded."""
        self._delay = 0.0
