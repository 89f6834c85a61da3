"""Threads for work that blocks.

The standard library's executor joins its threads when the interpreter ends, so one handler that hangs would keep a
server from stopping. These threads are daemons: an event whose handler is cut off is recovered by its lease.
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
    """Up to `size` daemon threads, started as they are needed; each calls `at_end` as the last thing it does."""

    def __init__(self, size: int, name: str, *, at_end: Callable[[], object] = lambda: None) -> None:
        self._size = size
        self._name = name
        self._at_end = at_end
        self._lock = threading.Lock()
        self._started = 0
        self._busy = 0
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the first of them now.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if not self._started:
                self._start_one()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Call `function` in one of the threads, in a copy of the caller's context.

        Raises:
            RuntimeError: there is none, and none can be started.
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
            # Those that there are have to do, if there are any.
            if not self._started:
                raise
        else:
            self._started = number

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` in one of the threads and await its result."""
        return await asyncio.wrap_future(self.submit(function))

    def close(self) -> None:
        """Let each thread end after what it is doing."""
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
        self._at_end()
