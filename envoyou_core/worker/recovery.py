"""Ends the leases of processes that are gone, so that their events are due at once instead of when the leases expire.

It only saves time: an expired lease is due anyway, and a claim takes over in either case.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from envoyou_core.inbox.liveness import LocalProcesses, ProcessTable, is_gone
from envoyou_core.inbox.processes import Presence, Process
from envoyou_core.inbox.protocol import WorkerInbox

__all__ = ["RECOVERY_INTERVAL", "Recovery"]

RECOVERY_INTERVAL = 1.0
"""Seconds between two looks of a worker for processes that are gone."""


class Recovery:
    """Looks for processes of this machine that hold leases and are gone.

    Args:
        inbox: the inbox.
        presence: this process.
        table: the processes of this machine.
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        inbox: WorkerInbox,
        presence: Presence,
        *,
        table: ProcessTable | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._presence = presence
        self._table = LocalProcesses() if table is None else table
        self._monotonic = monotonic
        self._looked_at = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether the last look was longer ago than `RECOVERY_INTERVAL`."""
        return self._monotonic() - self._looked_at >= RECOVERY_INTERVAL

    def run(self) -> tuple[int, list[Process]]:
        """End the leases of the processes that are gone; returns how many leases there were, and these processes."""
        # First, so that an error does not keep a worker from claiming until the next look.
        self._looked_at = self._monotonic()
        observer = self._presence.process
        if observer.boot_id is None or observer.pid_namespace is None:
            return 0, []
        others = [process for process in self._inbox.lease_holders() if process.id != observer.id]
        gone = [process for process in others if is_gone(process, observer, self._table)]
        return (self._inbox.end_leases([process.id for process in gone]) if gone else 0), gone
