"""What a worker has in hand: what waits for a slot, what is in one, and what waits to be settled."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from envoyou_core.handoff.pace import Pace
from envoyou_core.inbox.records import Claim

__all__ = ["InHand"]


class InHand:
    """The claims of one worker, each from its claiming to its end. Safe to use from any thread.

    An attempt that is being made has a slot. Once its handlers are done it needs none, though it may have to wait for a
    commit that it shares with others.

    Args:
        slots: how many attempts are made at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._pace = Pace(slots)
        self._waiting: deque[Claim] = deque()
        self._began: dict[tuple[int, str], float] = {}
        self._begun: dict[tuple[int, str], Claim] = {}
        self._last_turn = 0.0
        self._closed = False

    def accept(self, claims: Iterable[Claim]) -> None:
        """They wait for a slot from now on."""
        with self._lock:
            if not self._waiting:
                self._last_turn = time.monotonic()
            self._waiting.extend(claims)

    def begin(self) -> Claim | None:
        """Give the one that has waited longest a slot; `None` where there is none for it, or nothing waits."""
        with self._lock:
            if self._closed or not self._waiting or len(self._began) >= self._slots:
                return None
            claim = self._waiting.popleft()
            self._begun[_identity(claim)] = claim
            self._began[_identity(claim)] = self._last_turn = time.monotonic()
            return claim

    def release(self, claim: Claim) -> None:
        """Its slot is free again; it is in hand until it has ended."""
        with self._lock:
            began = self._began.pop(_identity(claim), None)
            if began is not None:
                self._pace.note(time.monotonic() - began)

    def end(self, claim: Claim) -> None:
        """It is in hand no longer."""
        with self._lock:
            self._began.pop(_identity(claim), None)
            self._begun.pop(_identity(claim), None)

    def withdraw(self) -> list[Claim]:
        """Those that wait, and do so no longer."""
        with self._lock:
            withdrawn = list(self._waiting)
            self._waiting.clear()
            return withdrawn

    def withdraw_overdue(self, patience: float) -> list[Claim]:
        """Those that wait, where none has had its turn for `patience` seconds: another worker may have time for them.

        How long attempts take is then to be learnt anew.
        """
        with self._lock:
            if not self._waiting or time.monotonic() - self._last_turn <= patience:
                return []
            self._pace.forget()
        return self.withdraw()

    def close(self) -> None:
        """Give no more slots."""
        with self._lock:
            self._closed = True

    @property
    def claims(self) -> list[Claim]:
        """All of them."""
        with self._lock:
            return [*self._begun.values(), *self._waiting]

    @property
    def begun(self) -> int:
        """How many have begun and not ended."""
        return len(self._begun)

    @property
    def settling(self) -> int:
        """How many wait to be settled."""
        return len(self._begun) - len(self._began)

    def room(self, most_settling: int) -> int:
        """How many events are to be claimed now; none while enough wait already, for a claim should bring many.

        Args:
            most_settling: how many may wait to be settled, for more to be claimed.
        """
        with self._lock:
            if self.settling > most_settling:
                return 0
            # Whoever was in hand when a process died may have ended it: no more than need be is put at that risk again.
            risky = any(claim.crashes for claim in (*self._begun.values(), *self._waiting))
            ahead = 0 if risky else self._pace.ahead
            if len(self._waiting) > ahead // 2:
                return 0
            return self._slots - len(self._began) + ahead - len(self._waiting)

    @property
    def is_running_low(self) -> bool:
        """Whether so few wait that it is time to claim more."""
        return len(self._waiting) <= self._pace.ahead // 2


def _identity(claim: Claim) -> tuple[int, str]:
    # By the lease: an event whose lease was lost may be in hand a second time.
    return claim.key, claim.token
