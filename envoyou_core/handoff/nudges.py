"""Hints to somebody else who does the work: a function of the user's, which may send them through a broker.

A hint is never needed: whoever looks into the inbox finds what is due. So it is given off the path of the request, and
dropped rather than waited for.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from envoyou_core.forks import call_in_forked_children

__all__ = ["MAX_WAITING", "Nudges"]

MAX_WAITING = 1000
"""Hints that may wait for the function, which a broker that does not answer may hold up; what is more is dropped."""


class Nudges:
    """Calls a function with the id of each accepted event, from one daemon thread of this process.

    Args:
        nudge: the function.
        failed: is told what it raised.
        at_thread_end: called in the thread, as the last thing it does.
    """

    def __init__(
        self,
        nudge: Callable[[str], object],
        failed: Callable[[Exception], None],
        *,
        at_thread_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._nudge = nudge
        self._failed = failed
        self._at_thread_end = at_thread_end
        self._renew_lock()
        call_in_forked_children(self._renew_lock)
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._pid: int | None = None

    def _renew_lock(self) -> None:
        # The thread that held it does not exist in a forked child.
        self._lock = threading.Lock()

    def send(self, event_id: str) -> None:
        """Hint at an event; returns at once."""
        with self._lock:
            if self._pid != os.getpid():
                # What a forked child inherits has no thread behind it, and is its parent's to send.
                self._waiting = queue.Queue(MAX_WAITING)
                sending = threading.Thread(
                    target=self._send_all, args=(self._waiting,), name="envoyou-nudges", daemon=True
                )
                try:
                    sending.start()
                except RuntimeError as error:
                    # Who accepts has committed the event, and must not fail for want of a thread.
                    self._failed(error)
                    return
                self._pid = os.getpid()
        try:
            self._waiting.put_nowait(event_id)
        except queue.Full:
            return

    def close(self) -> None:
        """Let the thread end when it has given the hints that wait; the next one starts another."""
        with self._lock:
            if self._pid == os.getpid():
                self._pid = None
                with suppress(queue.Full):
                    self._waiting.put_nowait(None)

    def _send_all(self, waiting: queue.Queue[str | None]) -> None:
        while (event_id := waiting.get()) is not None:
            try:
                self._nudge(event_id)
            except Exception as error:
                self._failed(error)
        self._at_thread_end()
