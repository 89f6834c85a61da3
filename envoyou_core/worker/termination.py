"""Lets a worker finish after SIGTERM in the process of an ASGI application that has no lifespan, such as Django's.

`atexit` functions are not enough. uvicorn sends itself the signal again once it has shut down, so that the process ends
by it; granian's worker processes are forked and end without them; hypercorn sends SIGTERM to its worker processes while
they end. So the signal itself stops the worker:

- If the event loop handles the signal, as under granian, the server learns of it at once. The process ends only after
  the worker, because it waits for the thread that stops the worker.
- Otherwise what the server has set happens once the worker has stopped: uvicorn's function is called, hypercorn's
  worker process ends. The server answers requests until then.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
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
        is_working: whether a worker of this process runs or is being stopped; without one, the signal has its usual
            effect. Must not take a lock, because a signal handler calls it.
        stop: stops the worker for good, and returns when it has stopped.
    """

    def __init__(self, *, is_working: Callable[[], bool], stop: Callable[[], object]) -> None:
        self._is_working = is_working
        self._stop = stop
        self._pid: int | None = None
        self._is_stopping = self._has_stopped = self._is_exiting = False
        self._loop: asyncio.AbstractEventLoop
        self._usual: Callable[[int, FrameType | None], Any]
        self._handled_by_loop = False

    @property
    def installed(self) -> bool:
        """Whether `install` has been called on an event loop of this process."""
        return self._pid == os.getpid()

    def install(self) -> None:
        """Handle SIGTERM from now on.

        Does nothing without a running event loop, outside the main thread, where signals cannot be handled, and in a
        process that ignores SIGTERM.
        """
        if self.installed:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._pid = os.getpid()
        self._is_stopping = self._has_stopped = self._is_exiting = False
        if threading.current_thread() is not threading.main_thread():
            return
        usual = signal.getsignal(signal.SIGTERM)
        if usual is signal.SIG_DFL:
            usual = _end_process
        if not callable(usual):
            return
        self._loop, self._usual, self._handled_by_loop = loop, usual, _belongs_to_loop(usual, loop)
        try:
            signal.signal(signal.SIGTERM, self._handle)
        except ValueError:
            # A subinterpreter has a main thread too, but no signals.
            return
        if self._handled_by_loop:
            # As event loops do. `signal.signal` has just undone it.
            signal.siginterrupt(signal.SIGTERM, False)
        # Called before the functions that were registered earlier, which wait for the worker.
        atexit.register(self._note_exit)

    def _note_exit(self) -> None:
        self._is_exiting = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A forked child has no worker to wait for.
        if not self.installed or self._has_stopped or not self._is_working():
            self._usual(number, frame)
        elif self._handled_by_loop:
            self._usual(number, frame)
            self._stop_beside_the_server()
        elif not (self._is_stopping or self._is_exiting):
            try:
                # Not a `Thread`: its start takes locks, of which the main thread may be holding one.
                _thread.start_new_thread(self._stop_and_send_again, (number,))
            except RuntimeError:
                self._usual(number, frame)
            else:
                self._is_stopping = True

    def _stop_beside_the_server(self) -> None:
        if not self._is_stopping:
            # Without the loop, the server has ended by itself.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._start_stopping)
                self._is_stopping = True

    def _start_stopping(self) -> None:
        # Not a daemon: the process waits for this thread. If it cannot be started, an `atexit` function may still stop
        # the worker.
        with suppress(RuntimeError):
            threading.Thread(target=self._stop, name="envoyou-termination").start()

    def _stop_and_send_again(self, number: int) -> None:
        try:
            self._stop()
        finally:
            self._has_stopped = True
            _send_to_main_thread(number)


def _belongs_to_loop(handler: object, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `handler` was set by `loop.add_signal_handler`: a placeholder of asyncio, or a method of another loop."""
    return getattr(handler, "__module__", None) == "asyncio.unix_events" or getattr(handler, "__self__", None) is loop


def _end_process(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _send_to_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        # The main thread may be waiting in a system call, which only a signal of its own interrupts.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
