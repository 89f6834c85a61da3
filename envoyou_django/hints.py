"""Hints to the project's task queue that there is work: after the commit, off the path of a request, never needed.

A broker may lose a message, or not answer at all. So each process that serves requests looks into the inbox from time
to time, and hints again while something there has waited for too long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from envoyou_core.handoff.nudges import Nudges

__all__ = ["Hints"]

SWEEP_INTERVAL = 10.0
"""Seconds between two looks into the inbox."""

LONGEST_SWEEP_INTERVAL = 60.0
"""Seconds, once hints have been without effect: twice as long each time, up to this."""

SILENCE = 10.0
"""Seconds that a broker may take to answer before it is worth an error in the log."""

OVERDUE = 5.0
"""Seconds after which what is due has waited for too long: the hint at it may be lost."""


class Hints:
    """Hints for as long as it is told that there is work, and where it finds some that waits.

    Args:
        hint: tells the task queue; it may block, or fail.
        failed: is told what it raised.
        overdue: looks into the inbox, and says for how many seconds something there has been due; zero or less when
            nothing is.
        at_thread_end: called in the thread that looks, and in the one that hints, as the last thing it does.
    """

    def __init__(
        self,
        hint: Callable[[], object],
        *,
        failed: Callable[[Exception], None],
        overdue: Callable[[], float],
        at_thread_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._hint = hint
        self._nudges = Nudges(self._send_one, failed, at_thread_end=at_thread_end)
        self._failed = failed
        self._overdue = overdue
        self._at_thread_end = at_thread_end
        self._began: float | None = None
        self._stopped = threading.Event()

    def send(self) -> None:
        """Hint once; returns at once."""
        self._nudges.send("")

    def start_sweeping(self) -> None:
        """Look into the inbox from now on, in a daemon thread of this process."""
        self._stopped.set()
        self._stopped = threading.Event()
        threading.Thread(target=self._sweep, args=(self._stopped,), name="envoyou-sweep", daemon=True).start()

    def stop(self) -> None:
        """Leave that to others, and let the threads end."""
        self._stopped.set()
        self._nudges.close()

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
            self._at_thread_end()

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
            interval = min(2 * interval, LONGEST_SWEEP_INTERVAL) if is_overdue else SWEEP_INTERVAL

    def _report_silence(self) -> None:
        began = self._began
        if began is not None and (waited := time.monotonic() - began) > SILENCE:
            raise TimeoutError(f"the task queue has not answered for {waited:.0f} s")
