"""Lists a worker's process in the inbox at regular intervals, so that other processes know that it is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from envoyou_core.errors import describe
from envoyou_core.inbox.processes import BEAT_INTERVAL
from envoyou_core.observability.worker_notices import WorkerFailed
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.inbox_thread import InboxThread

__all__ = ["FIRST_BEAT", "Heartbeat"]

FIRST_BEAT = 2.0
"""Seconds after its start at which an idle worker is listed. A server may still be forking, and a SQLite file that is
being written to at a fork stays locked in the child."""

MAX_LAST_BEAT = 1.0
"""Seconds for which a worker that stops waits for its last beat: the database may be down."""


class Heartbeat:
    """The regular beats of one worker, and a last one. They go on while all its slots are taken.

    Args:
        engine: beats.
        name: the name of the `Webhooks`.
        inbox_thread: the thread in which it beats.
        then: called in that thread after each regular beat.
    """

    def __init__(
        self, engine: Engine, name: str, inbox_thread: InboxThread, *, then: Callable[[], object] = lambda: None
    ) -> None:
        self._engine = engine
        self._then = then
        self._name = name
        self._inbox_thread = inbox_thread

    async def run(self) -> None:
        """Beat again and again, until cancelled."""
        self._engine.presence.works()
        try:
            await asyncio.sleep(FIRST_BEAT)
            while True:
                try:
                    await asyncio.wrap_future(self._inbox_thread.submit(self._beat))
                except Exception as error:
                    self._engine.notices.emit(WorkerFailed(self._name, describe(error), BEAT_INTERVAL))
                await asyncio.sleep(BEAT_INTERVAL)
        finally:
            self._engine.presence.retires()

    def _beat(self) -> None:
        self._engine.beat()
        self._then()

    async def end(self) -> None:
        """List the process as stopped, after the last regular beat; for at most `MAX_LAST_BEAT` seconds."""
        last = asyncio.wrap_future(self._inbox_thread.submit(self._engine.list_as_stopped))
        # If it fails, the process counts as live for some minutes more, which is not worth an error at each stop.
        last.add_done_callback(lambda beat: beat.cancelled() or beat.exception())
        await asyncio.wait([last], timeout=MAX_LAST_BEAT)
