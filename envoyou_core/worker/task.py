"""What a task of a task queue does: handle the events that are due, and enqueue the next task if one is needed.

A task carries no event, so a lost or doubled task does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from envoyou_core.worker.maintenance import MAINTENANCE_INTERVAL

__all__ = ["DrainTask"]

TIME_BUDGET = 20.0
"""Seconds after which a task starts no further event and enqueues another task, so that a queue's worker can stop."""


class Drainable(Protocol):
    """What a task needs of a `Webhooks` object."""

    def drain(self, *, within: float | None = None) -> int:
        """See `Webhooks.drain`."""

    def apply_retention(self) -> object:
        """See `Webhooks.apply_retention`."""

    def seconds_until_next_due(self) -> float | None:
        """See `Lifecycle.seconds_until_next_due`."""


class DrainTask:
    """The task of one `Webhooks` object in this process.

    Args:
        webhooks: whose events are handled.
        enqueue: enqueues the task with a delay in seconds; zero for none.
    """

    def __init__(self, webhooks: Drainable, enqueue: Callable[[float], object]) -> None:
        self._webhooks = webhooks
        self._enqueue = enqueue
        self._enqueued_until = 0.0
        self._next_maintenance = float("-inf")

    def run(self) -> None:
        """Handle due events for up to `TIME_BUDGET` seconds, enqueue a task for later ones, and apply the retention."""
        started = time.monotonic()
        settled = self._webhooks.drain(within=TIME_BUDGET)
        if time.monotonic() - started >= TIME_BUDGET:
            self._enqueue(0.0)
        elif settled:
            self._enqueue_for_next_due()
        self._run_maintenance()

    def _run_maintenance(self) -> None:
        """Apply the retention settings once an hour in each process, because no worker may be running that does."""
        if time.monotonic() >= self._next_maintenance:
            self._next_maintenance = time.monotonic() + MAINTENANCE_INTERVAL
            self._webhooks.apply_retention()

    def _enqueue_for_next_due(self) -> None:
        """Enqueue a task for when the next event is due, such as a retry, unless one is enqueued until then."""
        until_due = self._webhooks.seconds_until_next_due()
        now = time.monotonic()
        if until_due is None or now < self._enqueued_until <= now + until_due:
            return
        self._enqueued_until = now + until_due
        self._enqueue(until_due)
