"""The paused subjects, cached in each process."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pauses"]

CACHE_SECONDS = 1.0
"""Seconds for which the paused subjects are cached: a worker that polls must not query them each time."""


class Pauses:
    """The paused subjects, read from the inbox at most once a second.

    Args:
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: tuple[float, frozenset[str]] | None = None

    def known(self, read: Callable[[], frozenset[str]]) -> frozenset[str]:
        """The paused subjects. Calls `read` if the cache is empty or expired."""
        now, known = self._monotonic(), self._known
        if known is None or now - known[0] >= CACHE_SECONDS:
            self._known = known = (now, read())
        return known[1]

    def forget(self) -> None:
        """Empty the cache."""
        self._known = None
