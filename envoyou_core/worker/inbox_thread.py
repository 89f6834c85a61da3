"""Calls of the inbox in a thread of their own, so that blocking handlers do not delay them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from envoyou_core.errors import describe
from envoyou_core.inbox.database_errors import is_database_failure
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

    async def retry(self, function: Callable[[], Any], error: Exception | None = None) -> Any:
        """Call `function` in the thread, and retry it for as long as the database fails, or else for a lease.

        Handlers that have succeeded must not run again because of an outage, and the attempt must not count as a crash.
        The claim is renewed meanwhile, or as soon as the database answers.

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
                is_late = time.monotonic() + backoff.next > deadline
                if self._is_stopping() or (is_late and not is_database_failure(raised, in_inbox=True)):
                    raise
                error = None
                retry_in = min(backoff.advance(), self._engine.lease)
                self._engine.notices.emit(WorkerFailed(self._name, describe(raised), retry_in))
            await asyncio.sleep(retry_in)

    def close(self) -> None:
        """End the thread after its current call."""
        self._threads.close()
