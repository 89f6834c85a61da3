"""How many events a worker claims beyond its free slots.

A claim is a transaction. If handlers take a millisecond, claiming one event for each free slot would cost more than the
handlers do. If they take a minute, an event that is queued here could run in another worker.
"""

from __future__ import annotations

__all__ = ["LOOK_AHEAD", "MAX_AHEAD", "PrefetchController"]

LOOK_AHEAD = 0.05
"""Seconds of work that a worker may have claimed but not started."""

MAX_AHEAD = 128
"""The largest number of events that a worker may have claimed but not started: a crash delays all of them."""

_WEIGHT = 0.1


class PrefetchController:
    """Decides how many events to prefetch from the recent duration of attempts.

    Args:
        concurrency: how many attempts run at once.

    Examples:
        >>> prefetch = PrefetchController(8)
        >>> prefetch.ahead  # no attempt has ended yet
        0
        >>> prefetch.note(0.010)
        >>> prefetch.ahead
        40
        >>> prefetch.note(30.0)
        >>> prefetch.ahead
        0
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._mean: float | None = None

    def note(self, seconds: float) -> None:
        """Record the duration of an attempt, in seconds."""
        self._mean = seconds if self._mean is None else self._mean + _WEIGHT * (seconds - self._mean)

    def reset(self) -> None:
        """Forget the durations, because prefetched events could not be started in time."""
        self._mean = None

    @property
    def ahead(self) -> int:
        """How many events to claim beyond the free slots."""
        if self._mean is None:
            return 0
        # At least a microsecond: the clock may not tick between two readings.
        return min(MAX_AHEAD, int(self._concurrency * LOOK_AHEAD / max(self._mean, 1e-6)))
