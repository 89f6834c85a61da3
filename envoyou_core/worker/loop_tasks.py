"""Callbacks and coroutines on a worker's event loop, submitted from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

__all__ = ["LoopTasks"]


class LoopTasks:
    """The event loop of a worker and the tasks that the worker runs on it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self) -> None:
        """Use the running event loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def is_closed(self) -> bool:
        """Whether the loop has been closed; false if there has been none yet."""
        return self._loop is not None and self._loop.is_closed()

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call `function` on the loop, from any thread; false if no loop is running."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def run_soon(self, make: Callable[[], Coroutine[Any, Any, None]], *, otherwise: Callable[[], object]) -> None:
        """Run the coroutine that `make` returns on the loop, from any thread; without a loop, call `otherwise`."""
        if not self.call_soon(lambda: self.spawn(make())):
            otherwise()

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` on the loop and wait in the calling thread for its result."""
        loop = cast(asyncio.AbstractEventLoop, self._loop)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` as a task of the running loop."""
        task = asyncio.create_task(coroutine)
        # A reference is needed: a task without one may be garbage collected while it waits.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_all(self, timeout: float) -> None:
        """Cancel all tasks and wait for them, for at most `timeout` seconds."""
        for task in self._tasks:
            # If the loop itself is ending, the tasks are cancelled already and are returning their events.
            if not task.cancelling():
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
