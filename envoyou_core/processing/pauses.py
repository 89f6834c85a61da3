"""What is paused, as a process remembers it."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pauses"]

LONGEST_MEMORY = 1.0
"""Seconds for which it is not asked for again: who looks for events in a loop must not ask the database each time."""


class Pauses:
    """The paused subjects, asked for at most once a second.

    Args:
        monotonic: seconds, of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: tuple[float, frozenset[str]] | None = None

    def known(self, ask: Callable[[], frozenset[str]]) -> frozenset[str]:
        """What is paused; `ask` is called where that is not known, or no longer."""
        now, known = self._monotonic(), self._known
        if known is None or now - known[0] >= LONGEST_MEMORY:
            self._known = known = (now, ask())
        return known[1]

    def forget(self) -> None:
        """Let the next one ask."""
        self._known = None
