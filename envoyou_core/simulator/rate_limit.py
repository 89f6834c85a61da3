"""The rate limit of the management API: a number of requests for each minute of the clock."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Quota", "RateLimit"]

WINDOW = 60
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of the limit after a request.

    Attributes:
        limit: the requests in a minute.
        remaining: the requests that are left in this minute.
        reset: the end of this minute, in epoch seconds.
        retry_after: the seconds until then if the request was one too many, else `None`.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: int | None

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }
        if self.retry_after is not None:
            headers |= {"X-RateLimit-Retry-After": str(self.retry_after), "Retry-After": str(self.retry_after)}
        return headers


class RateLimit:
    """Counts requests.

    Args:
        limit: the requests that are answered in a minute.
        clock: returns epoch seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = -1
        self._count = 0

    def take(self) -> Quota:
        """Count one request, unless the limit is reached."""
        now = self._clock()
        minute = int(now // WINDOW)
        reset = (minute + 1) * WINDOW
        with self._lock:
            if minute != self._minute:
                self._minute, self._count = minute, 0
            is_over = self._count >= self._limit
            self._count += not is_over
            remaining = self._limit - self._count
        return Quota(self._limit, remaining, reset, max(1, math.ceil(reset - now)) if is_over else None)
