"""Calls of the inbox in a thread of their own, so that blocking handlers do not delay them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from envoyou_core.errors import describe
from envoyou_core.observability.worker_notices import WorkerFailed
from envoyou_core.worker.backoff import Backoff
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.threads import DaemonThreads

__all__ = ["InboxThread"]


class InboxThread:
    """The thread in which a worker calls its inbox.

    Args:
        engine: its lease bounds the retries.
        name: the name of the `Webhooks`.
        is_stopping: whether the worker is stopping; it does not retry then.
    """

    def __init__(self, engine: Engine, name: str, *, is_stopping: Callable[[], bool]) -> None:
        self._engine = engine
        self._name = name
        self._is_stopping = is_stopping
        self._threads = DaemonThreads(1, f"envoyou-inbox-{name}", on_thread_exit=engine.run_thread_exit_hooks)

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Call `function` in the thread.

        Raises:
            RuntimeError: the thread cannot be started.
        """
        return self._threads.submit(function)

    async def retry_within_lease(self, function: Callable[[], Any], error: Exception | None = None) -> Any:
        """Call `function` in the thread, and retry it until a lease would have expired.

        During a short outage of the database, handlers that have succeeded must not run again, and the attempt must not
        count as a crash.

        Args:
            function: calls the inbox.
            error: the error of a first call that the caller has already made.
        """
        backoff = Backoff()
        deadline = time.monotonic() + self._engine.lease
        while True:
            try:
                if error is not None:
                    raise error
                return await self._threads.call(function)
            except Exception as raised:
                if self._is_stopping() or time.monotonic() + backoff.next > deadline:
                    raise
                error = None
                retry_in = backoff.advance()
                self._engine.notices.emit(WorkerFailed(self._name, describe(raised), retry_in))
            await asyncio.sleep(retry_in)

    def close(self) -> None:
        """End the thread after its current call."""
        self._threads.close()
