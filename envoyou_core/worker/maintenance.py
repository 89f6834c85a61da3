"""Runs the maintenance of the inbox at regular intervals, in a thread of its own."""

from __future__ import annotations

import asyncio

from envoyou_core.errors import describe
from envoyou_core.observability.worker_notices import WorkerFailed
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.threads import DaemonThreads

__all__ = ["FIRST_MAINTENANCE", "MAINTENANCE_INTERVAL", "Maintenance"]

FIRST_MAINTENANCE = 60.0
"""Seconds between the start and the first maintenance. A server may still be forking when the worker starts, and a
SQLite file that is being written to at a fork stays locked in the child."""

MAINTENANCE_INTERVAL = 3600.0
"""Seconds between two maintenance runs."""


class Maintenance:
    """The periodic maintenance of one worker.

    Args:
        engine: runs the maintenance.
        name: the name of the `Webhooks`.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._thread = DaemonThreads(1, f"envoyou-maintenance-{name}", on_thread_exit=engine.run_thread_exit_hooks)

    async def run(self) -> None:
        """Run the maintenance again and again, until cancelled."""
        await asyncio.sleep(FIRST_MAINTENANCE)
        while True:
            try:
                await self._thread.call(self._engine.run_maintenance)
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), MAINTENANCE_INTERVAL))
            await asyncio.sleep(MAINTENANCE_INTERVAL)

    def close(self) -> None:
        """End the thread after its current call."""
        self._thread.close()
