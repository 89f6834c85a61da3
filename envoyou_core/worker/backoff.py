"""Exponential backoff for a worker whose inbox cannot be reached."""

from __future__ import annotations

__all__ = ["FIRST_RETRY", "MAX_RETRY", "Backoff"]

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
