"""A nonce store in the memory of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children

__all__ = ["MemoryNonceStore"]

_UNBOUND: Final[tuple[str | None, float]] = (None, 0.0)


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
        self._younger: dict[str, tuple[str, float]] = {}
        self._older: dict[str, tuple[str, float]] = {}
        self._renew_lock()
        call_in_forked_children(self._renew_lock)

    def _renew_lock(self) -> None:
        # A thread of the parent may have held it.
        self._lock = threading.Lock()

    def lookup(self, key: str) -> str | None:
        """See `NonceStore.lookup`."""
        # Without the lock: the younger generation becomes the older one before a new one takes its place.
        event_id, ends_at = self._younger.get(key) or self._older.get(key) or _UNBOUND
        return event_id if ends_at > self._clock() else None

    def bind(self, key: str, event_id: str, lifetime: float) -> None:
        """See `NonceStore.bind`."""
        with self._lock:
            if self.lookup(key) is not None:
                return
            if len(self._younger) >= self._generation_size:
                self._older = self._younger
                self._younger = {}
            self._younger[key] = (event_id, self._clock() + lifetime)
