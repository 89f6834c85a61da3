"""Leases that are kept alive while the work goes on."""

from __future__ import annotations

import threading

from envoyou_core.errors import describe
from envoyou_core.inbox.records import Claim
from envoyou_core.observability.notices import WorkerFailed
from envoyou_core.processing.engine import Engine

__all__ = ["LeaseKeeper"]


class LeaseKeeper:
    """Renews what a worker holds, from a thread of its own, until it is stopped and nothing is held any more.

    A handler that blocks the event loop, or takes longer than a lease, must not have its event handed to someone else;
    nor must one that still runs in its thread when its worker has stopped.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._lock = threading.Lock()
        # By the lease: an event whose lease was lost may be held a second time.
        self._held: dict[tuple[int, str], Claim] = {}
        self._stopping = False
        self._ended = threading.Event()

    def hold(self, *claims: Claim) -> None:
        """Renew the leases of `claims` from now on."""
        with self._lock:
            self._held.update(((claim.key, claim.token), claim) for claim in claims)

    def let_go(self, claim: Claim) -> None:
        """Renew it no longer."""
        with self._lock:
            self._held.pop((claim.key, claim.token), None)
            self._end_when_idle()

    def start(self) -> None:
        """Begin to renew, at a third of the lease."""
        threading.Thread(target=self._keep, name=f"envoyou-leases-{self._name}", daemon=True).start()

    def stop(self) -> None:
        """End as soon as nothing is held."""
        with self._lock:
            self._stopping = True
            self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._stopping and not self._held:
            self._ended.set()

    def _keep(self) -> None:
        interval = self._engine.lease / 3
        while not self._ended.wait(interval):
            with self._lock:
                held = list(self._held.values())
            try:
                if held:
                    self._engine.renew(held)
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), interval))
        self._engine.end_thread()
