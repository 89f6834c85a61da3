"""How far a worker claims ahead of its free slots.

A claim is a transaction. Where handlers take a millisecond, claiming one event for each slot that gets free would cost
more than the handlers do; where they take a minute, an event that waits here could be worked on elsewhere.
"""

from __future__ import annotations

__all__ = ["LOOK_AHEAD", "MAX_AHEAD", "Pace"]

LOOK_AHEAD = 0.05
"""Seconds of work that may wait in a worker, claimed and not begun."""

MAX_AHEAD = 128
"""Events that may wait in a worker, at most: what a crash has to be taken over from."""

_WEIGHT = 0.1


class Pace:
    """How long attempts have taken of late.

    Args:
        concurrency: how many are made at once.

    Examples:
        >>> pace = Pace(8)
        >>> pace.ahead  # nothing is known yet
        0
        >>> pace.note(0.010)
        >>> pace.ahead
        40
        >>> pace.note(30.0)
        >>> pace.ahead
        0
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._mean: float | None = None

    def note(self, seconds: float) -> None:
        """An attempt took that long."""
        self._mean = seconds if self._mean is None else self._mean + _WEIGHT * (seconds - self._mean)

    def forget(self) -> None:
        """What was claimed ahead did not get its turn: how long attempts take is to be learnt anew."""
        self._mean = None

    @property
    def ahead(self) -> int:
        """How many events may be claimed beyond the free slots."""
        if self._mean is None:
            return 0
        # A microsecond: a clock that does not tick between two looks is no reason to divide by zero.
        return min(MAX_AHEAD, int(self._concurrency * LOOK_AHEAD / max(self._mean, 1e-6)))
