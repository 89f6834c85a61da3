"""Daemon threads for blocking work.

The standard library's executor joins its threads when the interpreter exits, so one hanging handler would keep a server
from stopping. These threads are daemons: if a handler is cut off, its event is claimed again when the lease expires.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["DaemonThreads"]


class DaemonThreads:
    """Up to `size` daemon threads, started on demand. Each thread calls `on_thread_exit` before it ends."""

    def __init__(self, size: int, name: str, *, on_thread_exit: Callable[[], object] = lambda: None) -> None:
        self._size = size
        self._name = name
        self._on_thread_exit = on_thread_exit
        self._lock = threading.Lock()
        self._started = 0
        self._busy = 0
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the first thread now.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if not self._started:
                self._start_one()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Call `function` in one of the threads, in a copy of the caller's context.

        Raises:
            RuntimeError: no thread is running and none can be started.
        """
        future: Future[Any] = Future()
        context = contextvars.copy_context()
        with self._lock:
            if self._busy >= self._started and self._started < self._size:
                self._start_one()
            self._busy += 1
        self._calls.put((future, lambda: context.run(function)))
        return future

    def _start_one(self) -> None:
        number = self._started + 1
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()
        except RuntimeError:
            # The running threads take the work, if there are any.
            if not self._started:
                raise
        else:
            self._started = number

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` in one of the threads and await its result."""
        return await asyncio.wrap_future(self.submit(function))

    def close(self) -> None:
        """End each thread after its current call."""
        with self._lock:
            for _ in range(self._started):
                self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        result = function()
                    except BaseException as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
            finally:
                with self._lock:
                    self._busy -= 1
        self._on_thread_exit()
