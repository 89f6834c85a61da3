"""Lets a worker finish after SIGTERM in the process of an ASGI application that has no lifespan, such as Django's.

`atexit` functions are not enough. uvicorn sends itself the signal again once it has shut down, so that the process ends
by it; granian's worker processes are forked and end without them. So the signal itself stops the worker:

- If the server handles SIGTERM by a function, as uvicorn does, that function is called once the worker has stopped.
  The server answers requests until then, and ends as ever afterwards.
- If the event loop handles the signal, as under granian, the server learns of it at once. The process ends only after
  the worker, because it waits for the thread that stops the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

__all__ = ["TerminationSignal"]


class TerminationSignal:
    """Stops a worker on SIGTERM, before or while the server shuts down.

    Args:
        is_working: whether a worker is running in this process; without one, the server handles the signal as ever.
        stop: stops the worker for good, and returns when it has stopped.
    """

    def __init__(self, *, is_working: Callable[[], bool], stop: Callable[[], object]) -> None:
        self._is_working = is_working
        self._stop = stop
        self._pid: int | None = None
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._server_handler: Callable[[int, FrameType | None], Any]
        self._server_waits = True

    @property
    def installed(self) -> bool:
        """Whether `install` has been called on an event loop of this process."""
        return self._pid == os.getpid()

    def install(self) -> None:
        """Handle SIGTERM from now on, if the server on the running event loop handles it already.

        Does nothing without a running event loop, outside the main thread, where signals cannot be handled, and in a
        process that SIGTERM ends at once.
        """
        if self.installed:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._pid, self._is_stopping = os.getpid(), False
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            self._loop, self._server_handler = loop, handler
            self._server_waits = not _belongs_to_loop(handler, loop)
            try:
                signal.signal(signal.SIGTERM, self._handle)
            except ValueError:
                # A subinterpreter has a main thread too, but no signals.
                return
            if not self._server_waits:
                # As event loops do. `signal.signal` has just undone it.
                signal.siginterrupt(signal.SIGTERM, False)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A forked child has no worker to wait for.
        if self.installed and not self._is_stopping and self._is_working():
            # Without the loop, the server has ended by itself.
            with suppress(RuntimeError):
                # Not from here: the main thread may be holding a lock that is needed to start a thread.
                self._loop.call_soon_threadsafe(self._start_stopping, number)
                self._is_stopping = True
        if not (self.installed and self._is_stopping and self._server_waits):
            self._server_handler(number, frame)

    def _start_stopping(self, number: int) -> None:
        try:
            # Not a daemon: the process waits for this thread, whatever ends the server.
            threading.Thread(target=self._stop_and_pass_on, args=(number,), name="envoyou-termination").start()
        except RuntimeError:
            self._pass_on(number)

    def _stop_and_pass_on(self, number: int) -> None:
        try:
            self._stop()
        finally:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pass_on, number)

    def _pass_on(self, number: int) -> None:
        self._is_stopping = False
        if self._server_waits:
            self._server_handler(number, None)


def _belongs_to_loop(handler: object, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `handler` was set by `loop.add_signal_handler`: a placeholder of asyncio, or a method of another loop."""
    return getattr(handler, "__module__", None) == "asyncio.unix_events" or getattr(handler, "__self__", None) is loop
