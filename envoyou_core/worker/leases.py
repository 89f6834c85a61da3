"""Renews the leases of claimed events while their handlers run."""

from __future__ import annotations

import threading

from envoyou_core.errors import describe
from envoyou_core.inbox.records import Claim
from envoyou_core.observability.worker_notices import WorkerFailed
from envoyou_core.worker.backoff import Backoff
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.late_leases import RENEWALS

__all__ = ["LeaseKeeper"]

TRIES = 4
"""How often a renewal that fails is tried again in the time that other workers leave after an outage."""


class LeaseKeeper:
    """Renews the leases of a worker's claims from a thread of its own. It ends once it is stopped and holds no claim.

    A handler that blocks the event loop, or runs longer than a lease, must not lose its event to another worker. Nor
    must a handler that still runs in its thread after its worker has stopped.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._lock = threading.Lock()
        self._held: dict[tuple[int, str], Claim] = {}
        self._stopping = False
        self._ended = threading.Event()
        self._renewed_at = engine.clock()

    def hold(self, *claims: Claim) -> None:
        """Renew the leases of `claims` from now on."""
        with self._lock:
            self._held.update((claim.lease_key, claim) for claim in claims)

    def drop(self, claim: Claim) -> None:
        """Stop renewing the lease of `claim`."""
        with self._lock:
            self._held.pop(claim.lease_key, None)
            self._end_if_idle()

    def start(self) -> None:
        """Start the thread. It renews every third of a lease, and more often while that fails."""
        self._renewed_at = self._engine.clock()
        self._engine.late_leases.add_renewal(self._renew_if_late)
        threading.Thread(target=self._renew_until_ended, name=f"envoyou-leases-{self._name}", daemon=True).start()

    def stop(self) -> None:
        """End the thread as soon as no claim is held."""
        with self._lock:
            self._stopping = True
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._stopping and not self._held:
            self._ended.set()

    def _renew_until_ended(self) -> None:
        wait = interval = self._engine.lease / RENEWALS
        backoff = Backoff()
        while not self._ended.wait(wait):
            try:
                self._renew()
            except Exception as error:
                wait = min(backoff.advance(), interval / TRIES)
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), wait))
            else:
                wait = interval
                backoff.reset()
        self._engine.late_leases.remove_renewal(self._renew_if_late)
        self._engine.run_thread_exit_hooks()

    def _renew(self) -> None:
        began = self._engine.clock()
        with self._lock:
            held = list(self._held.values())
        if held:
            self._engine.renew(held)
        self._renewed_at = began

    def _renew_if_late(self) -> None:
        if self._held and self._engine.late_leases.is_late(self._renewed_at):
            self._renew()
