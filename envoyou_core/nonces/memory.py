"""A nonce store in the memory of one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import ForkSafeLock

__all__ = ["MemoryNonceStore"]


class MemoryNonceStore:
    """A bounded `NonceStore` in the memory of this process.

    It keeps two generations: when the younger one is full, the older one is dropped as a whole. So it never exceeds its
    bound and needs no sweep.

    Args:
        max_entries: the largest number of nonces to keep.
        clock: seconds of any epoch.

    Raises:
        ConfigurationError: `max_entries` is less than 2.
    """

    blocking = False

    def __init__(self, *, max_entries: int = 200_000, clock: Callable[[], float] = time.monotonic) -> None:
        if max_entries < 2:
            raise ConfigurationError(f"max_entries must be at least 2, got {max_entries!r}")
        self._generation_size = max_entries // 2
        self._clock = clock
        self._lock = ForkSafeLock()
        self._younger: dict[str, tuple[str, float]] = {}
        self._older: dict[str, tuple[str, float]] = {}

    def lookup(self, key: str) -> str | None:
        """See `NonceStore.lookup`."""
        with self._lock:
            return self._bound(key)

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """See `NonceStore.bind`."""
        with self._lock:
            if self._bound(key) is not None:
                return
            if len(self._younger) >= self._generation_size:
                self._older, self._younger = self._younger, {}
            self._younger[key] = (event_id, self._clock() + lifetime)

    def _bound(self, key: str) -> str | None:
        event_id, ends_at = self._younger.get(key) or self._older.get(key) or (None, 0.0)
        return event_id if ends_at > self._clock() else None
