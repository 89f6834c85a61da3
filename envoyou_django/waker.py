"""Enqueues the task that drains the inbox, after the commit and outside the request.

A broker may lose a message, or not answer at all. So each process that serves requests also polls the inbox, and
enqueues the task again while an event is overdue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from envoyou_core.adapter import Waker

__all__ = ["TaskQueueWaker"]

SWEEP_INTERVAL = 10.0
"""Seconds between two looks into the inbox."""

MAX_SWEEP_INTERVAL = 60.0
"""Seconds, once hints have been without effect: twice as long each time, up to this."""

SILENCE = 10.0
"""Seconds that a broker may take to answer before it is worth an error in the log."""

OVERDUE = 5.0
"""Seconds after which what is due has waited for too long: the hint at it may be lost."""


class TaskQueueWaker:
    """TaskQueueWaker for as long as it is told that there is work, and where it finds some that waits.

    Args:
        hint: tells the task queue; it may block, or fail.
        failed: is told what it raised.
        overdue: looks into the inbox, and says for how many seconds something there has been due; zero or less when
            nothing is.
        on_thread_exit: called in the thread that looks, and in the one that hints, as the last thing it does.
    """

    def __init__(
        self,
        hint: Callable[[], object],
        *,
        failed: Callable[[Exception], None],
        overdue: Callable[[], float],
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._hint = hint
        self._waker = Waker(self._send_one, failed, on_thread_exit=on_thread_exit)
        self._failed = failed
        self._overdue = overdue
        self._on_thread_exit = on_thread_exit
        self._began: float | None = None
        self._stopped = threading.Event()

    def send(self) -> None:
        """Hint once; returns at once."""
        self._waker.send("")

    def start_sweeping(self) -> None:
        """Look into the inbox from now on, in a daemon thread of this process."""
        self._stopped.set()
        self._stopped = threading.Event()
        threading.Thread(target=self._sweep, args=(self._stopped,), name="envoyou-sweep", daemon=True).start()

    def stop(self) -> None:
        """Leave that to others, and let the threads end."""
        self._stopped.set()
        self._waker.close()

    def _send_one(self, _: str) -> None:
        self._began = time.monotonic()
        try:
            self._hint()
        finally:
            self._began = None

    def _sweep(self, stopped: threading.Event) -> None:
        try:
            self._look_again_and_again(stopped)
        finally:
            self._on_thread_exit()

    def _look_again_and_again(self, stopped: threading.Event) -> None:
        interval = SWEEP_INTERVAL
        while not stopped.wait(interval):
            try:
                self._report_silence()
                is_overdue = self._overdue() > OVERDUE
            except Exception as error:
                self._failed(error)
                continue
            if is_overdue:
                self.send()
            interval = min(2 * interval, MAX_SWEEP_INTERVAL) if is_overdue else SWEEP_INTERVAL

    def _report_silence(self) -> None:
        began = self._began
        if began is not None and (waited := time.monotonic() - began) > SILENCE:
            raise TimeoutError(f"the task queue has not answered for {waited:.0f} s")
