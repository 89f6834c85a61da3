"""The claims of one worker: queued for a slot, running in one, or waiting to be settled."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from envoyou_core.inbox.records import Claim
from envoyou_core.worker.prefetch import PrefetchController

__all__ = ["InFlight"]


class InFlight:
    """The claims of one worker, from claiming to settling. Safe to use from any thread.

    A running attempt holds a slot. Once its handlers have returned it needs none, although it may still wait for a
    commit that it shares with other attempts.

    Args:
        slots: how many attempts run at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._prefetch = PrefetchController(slots)
        self._queued: deque[Claim] = deque()
        self._started_at: dict[tuple[int, str], float] = {}
        self._started: dict[tuple[int, str], Claim] = {}
        self._last_start = 0.0
        self._closed = False

    def accept(self, claims: Iterable[Claim]) -> None:
        """Queue `claims` for a slot."""
        with self._lock:
            if not self._queued:
                self._last_start = time.monotonic()
            self._queued.extend(claims)

    def begin(self) -> Claim | None:
        """Give the oldest queued claim a slot; `None` if no slot is free or nothing is queued."""
        with self._lock:
            if self._closed or not self._queued or len(self._started_at) >= self._slots:
                return None
            claim = self._queued.popleft()
            self._started[claim.lease_key] = claim
            self._started_at[claim.lease_key] = self._last_start = time.monotonic()
            return claim

    def release(self, claim: Claim) -> None:
        """Free the slot of `claim`, which is in flight until `end`."""
        with self._lock:
            started_at = self._started_at.pop(claim.lease_key, None)
            if started_at is not None:
                self._prefetch.note(time.monotonic() - started_at)

    def end(self, claim: Claim) -> None:
        """Forget `claim`: it is settled or lost."""
        with self._lock:
            self._started_at.pop(claim.lease_key, None)
            self._started.pop(claim.lease_key, None)

    def withdraw(self) -> list[Claim]:
        """Remove the queued claims and return them."""
        with self._lock:
            withdrawn = list(self._queued)
            self._queued.clear()
            return withdrawn

    def take_stale(self, patience: float) -> list[Claim]:
        """Remove the queued claims if none has started for `patience` seconds: another worker may be free."""
        with self._lock:
            if not self._queued or time.monotonic() - self._last_start <= patience:
                return []
            self._prefetch.reset()
        return self.withdraw()

    def close(self) -> None:
        """Give out no more slots."""
        with self._lock:
            self._closed = True

    @property
    def claims(self) -> list[Claim]:
        """All claims in flight, the queued ones included."""
        with self._lock:
            return [*self._started.values(), *self._queued]

    @property
    def begun(self) -> int:
        """How many have started and not ended."""
        return len(self._started)

    @property
    def settling(self) -> int:
        """How many wait to be settled."""
        return len(self._started) - len(self._started_at)

    def capacity(self, max_settling: int) -> int:
        """How many events to claim now. Zero while enough are queued, because one claim should return many events.

        Args:
            max_settling: claim nothing while more than this many attempts wait to be settled.
        """
        with self._lock:
            if self.settling > max_settling:
                return 0
            # Do not prefetch while an event that may have crashed a worker is in flight.
            may_crash = any(claim.crashes for claim in (*self._started.values(), *self._queued))
            ahead = 0 if may_crash else self._prefetch.ahead
            if len(self._queued) > ahead // 2:
                return 0
            return self._slots - len(self._started_at) + ahead - len(self._queued)

    @property
    def below_low_watermark(self) -> bool:
        """Whether so few claims are queued that it is time to claim more."""
        return len(self._queued) <= self._prefetch.ahead // 2
