"""Calls the function given as `handoff` in a background thread. The function may use a message broker.

Wake-ups are best effort, because workers also poll the inbox. They are sent outside the request, and dropped if the
function cannot keep up.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from envoyou_core.forks import ForkSafeLock

__all__ = ["MAX_WAITING", "Waker"]

MAX_WAITING = 1000
"""Wake-ups that may be queued while the function blocks, for example on a broker; further ones are dropped."""


class Waker:
    """Calls a function with the id of each accepted event, from one daemon thread of this process.

    Args:
        function: the function given as `handoff`.
        report_error: called with the exception if the function raises.
        on_thread_exit: called in the thread before it ends.
    """

    def __init__(
        self,
        function: Callable[[str], object],
        report_error: Callable[[Exception], None],
        *,
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._function = function
        self._report_error = report_error
        self._on_thread_exit = on_thread_exit
        self._lock = ForkSafeLock()
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._pid: int | None = None
        self._called_at: float | None = None

    def send(self, event_id: str) -> None:
        """Queue a wake-up for an event; returns at once."""
        with self._lock:
            if self._pid != os.getpid():
                # A forked child has no thread, and the queued wake-ups belong to the parent.
                self._waiting, self._called_at = queue.Queue(MAX_WAITING), None
                sending = threading.Thread(
                    target=self._send_all, args=(self._waiting,), name="envoyou-waker", daemon=True
                )
                try:
                    sending.start()
                except RuntimeError as error:
                    # The event is committed: the request must not fail because no thread can be started.
                    self._report_error(error)
                    return
                self._pid = os.getpid()
        try:
            self._waiting.put_nowait(event_id)
        except queue.Full:
            return

    def blocked_for(self) -> float:
        """Return the seconds since the function was called if it has not returned yet, else zero."""
        called_at = self._called_at
        return 0.0 if called_at is None else time.monotonic() - called_at

    def close(self) -> None:
        """End the thread once the queued wake-ups are sent; the next wake-up starts a new one."""
        with self._lock:
            if self._pid == os.getpid():
                self._pid = None
                with suppress(queue.Full):
                    self._waiting.put_nowait(None)

    def _send_all(self, waiting: queue.Queue[str | None]) -> None:
        while (event_id := waiting.get()) is not None:
            self._called_at = time.monotonic()
            try:
                self._function(event_id)
            except Exception as error:
                self._report_error(error)
            finally:
                self._called_at = None
        self._on_thread_exit()
