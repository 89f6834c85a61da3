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
"""Seconds between two polls of the inbox."""

MAX_SWEEP_INTERVAL = 60.0
"""Seconds. The interval doubles up to this maximum while an event stays overdue although the task was enqueued."""

BROKER_TIMEOUT = 10.0
"""Seconds after which a call to the broker that has not returned is reported."""

MAX_OVERDUE = 5.0
"""Seconds that an event may be overdue before the task is enqueued again, because the first one may be lost."""


class TaskQueueWaker:
    """Enqueues a task when an event is accepted, and again while an event in the inbox is overdue.

    Args:
        enqueue: enqueues the task; it may block or raise.
        report_error: called with what `enqueue` or `seconds_overdue` raised.
        seconds_overdue: for how many seconds the first due event in the inbox has been due; zero or less if none is.
        on_thread_exit: called in each of the two threads, which poll and enqueue, before it ends.
    """

    def __init__(
        self,
        enqueue: Callable[[], object],
        *,
        report_error: Callable[[Exception], None],
        seconds_overdue: Callable[[], float],
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._enqueue = enqueue
        self._waker = Waker(self._enqueue_one, report_error, on_thread_exit=on_thread_exit)
        self._report_error = report_error
        self._seconds_overdue = seconds_overdue
        self._on_thread_exit = on_thread_exit
        self._enqueueing_since: float | None = None
        self._stopped = threading.Event()

    def send(self) -> None:
        """Enqueue the task in a background thread; returns at once."""
        self._waker.send("")

    def start_sweeping(self) -> None:
        """Start polling the inbox in a daemon thread of this process."""
        self._stopped.set()
        self._stopped = threading.Event()
        threading.Thread(target=self._sweep, args=(self._stopped,), name="envoyou-sweep", daemon=True).start()

    def stop(self) -> None:
        """Stop polling, and end the threads without waiting for them."""
        self._stopped.set()
        self._waker.close()

    def _enqueue_one(self, _: str) -> None:
        self._enqueueing_since = time.monotonic()
        try:
            self._enqueue()
        finally:
            self._enqueueing_since = None

    def _sweep(self, stopped: threading.Event) -> None:
        try:
            self._poll_until(stopped)
        finally:
            self._on_thread_exit()

    def _poll_until(self, stopped: threading.Event) -> None:
        interval = SWEEP_INTERVAL
        while not stopped.wait(interval):
            try:
                self._check_broker()
                is_overdue = self._seconds_overdue() > MAX_OVERDUE
            except Exception as error:
                self._report_error(error)
                continue
            if is_overdue:
                self.send()
            interval = min(2 * interval, MAX_SWEEP_INTERVAL) if is_overdue else SWEEP_INTERVAL

    def _check_broker(self) -> None:
        since = self._enqueueing_since
        if since is not None and (waited := time.monotonic() - since) > BROKER_TIMEOUT:
            raise TimeoutError(f"the task queue has not answered for {waited:.0f} s")
