"""Leases that may have expired because the database could not be reached, although their processes live.

Before a process claims, it renews its own late leases, and a drain settles what could not be settled before. After an
outage a worker also gives the other processes time to do so. That only decides how a takeover is counted: the token of
a lease decides who may settle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from envoyou_core.forks import ForkSafeLock, call_in_forked_children

if TYPE_CHECKING:
    from envoyou_core.inbox.records import Settlement
    from envoyou_core.worker.attempt import RunningAttempt

__all__ = ["RENEWALS", "LateLeases"]

RENEWALS: Final = 3
"""How many times a lease is renewed in its length."""

Renewal = Callable[[], None]


class LateLeases:
    """What a process knows of leases that are late, its own and those of others. Safe to use from any thread.

    A forked child forgets what its parent knew.

    Args:
        lease: seconds for which a claim is held.
        clock: epoch seconds; the clock of the leases.
    """

    def __init__(self, lease: float, clock: Callable[[], float]) -> None:
        self._lease = lease
        self._clock = clock
        self._lock = ForkSafeLock()
        self._forget()
        call_in_forked_children(self._forget)

    def _forget(self) -> None:
        self._renewals: set[Renewal] = set()
        self._unsettled: list[tuple[RunningAttempt, Settlement]] = []
        self._asked_at: float | None = None

    def add_renewal(self, renew_if_late: Renewal) -> None:
        """Call a function before each claim, until `remove_renewal`."""
        with self._lock:
            self._renewals.add(renew_if_late)

    def remove_renewal(self, renew_if_late: Renewal) -> None:
        """Call a function no longer."""
        with self._lock:
            self._renewals.discard(renew_if_late)

    def renew(self) -> None:
        """Renew the leases of this process that are late. Normally it does nothing."""
        for renew_if_late in tuple(self._renewals):
            renew_if_late()

    def is_late(self, renewed_at: float) -> bool:
        """Whether a lease that was renewed at a time will expire before its next regular renewal, or has expired."""
        return self._clock() - renewed_at > self._lease * (RENEWALS - 1) / RENEWALS

    # Attempts that could not be settled

    def keep(self, attempt: RunningAttempt, settlement: Settlement) -> None:
        """Keep an attempt whose settlement could not be stored because the database has failed."""
        with self._lock:
            self._unsettled.append((attempt, settlement))

    def take_unsettled(self) -> list[tuple[RunningAttempt, Settlement]]:
        """Remove the attempts that were kept, and return them with their settlements."""
        with self._lock:
            unsettled, self._unsettled = self._unsettled, []
            return unsettled

    # Outages

    def note_request(self) -> None:
        """Note that a worker asks the database for events, or does so again because it got no answer."""
        if self._asked_at is None:
            self._asked_at = self._clock()

    def note_answer(self) -> None:
        """Note that the database has answered."""
        self._asked_at = None

    @property
    def may_have_expired(self) -> bool:
        """Whether the database was out of reach for so long that others may have failed to renew their leases."""
        return self._asked_at is not None and self._clock() - self._asked_at > self._lease / RENEWALS
