"""Announces events that become due without being accepted: retries, and what another process has left behind.

A worker polls its inbox, and a task queue does not. So each process that accepts events also reads once a second when
the next event is due, from the index. While events are being handled, it also looks for processes that are gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from envoyou_core.forks import ForkSafeLock

__all__ = ["INTERVALS", "DueTimer", "Intervals", "ReadPlan"]

MARGIN = 0.1
"""Seconds by which a read overlaps the one before it, because the inbox computes its own time a little later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How often the inbox is read, and events are announced again. All in seconds.

    Attributes:
        read: between two reads.
        full: between two reads of all due events, and after a read that has failed.
        overdue: how long an event may be overdue before it is announced again: the first announcement may be lost.
        longest: the interval of the repetitions doubles up to this maximum while an event stays overdue.
    """

    read: float = 1.0
    full: float = 10.0
    overdue: float = 5.0
    longest: float = 60.0


INTERVALS = Intervals()


class ReadPlan:
    """What is read of the inbox, and what its answers mean. Times are monotonic.

    An event that stays due, for example because it is paused, must not hide those that become due after it. So most
    reads concern only the events that have become due since the one before.

    Args:
        intervals: how often to read.
    """

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._announced_until: float | None = None
        self._reads_all_at = float("-inf")
        self._reads_all = True
        self._repeat_interval = intervals.full
        self._repeat_at = float("-inf")

    def next_read(self, now: float) -> float | None:
        """Return what to read: the events due later than so many seconds from now, or with `None` all events."""
        self._reads_all = self._announced_until is None or now >= self._reads_all_at
        return None if self._reads_all or self._announced_until is None else self._announced_until - now - MARGIN

    def evaluate(self, now: float, until_due: float | None) -> bool:
        """Return whether to announce due events.

        Args:
            now: the time of the read.
            until_due: seconds until the first of the events that were read is due; `None` if there is none.
        """
        is_due = until_due is not None and until_due <= 0
        announces = is_due
        if self._reads_all:
            self._reads_all_at = now + self._intervals.full
            announces = until_due is not None and is_due and self._is_news(now, -until_due)
        if announces or not is_due:
            self._announced_until = now
        return announces

    def _is_news(self, now: float, overdue: float) -> bool:
        """Whether an event that has been due for `overdue` seconds is announced, for the first time or again."""
        if self._announced_until is None or overdue <= now - self._announced_until + MARGIN:
            self._repeat_interval = self._intervals.full
        elif overdue <= self._intervals.overdue or now < self._repeat_at:
            return False
        else:
            self._repeat_interval = min(2 * self._repeat_interval, self._intervals.longest)
        self._repeat_at = now + self._repeat_interval
        return True


class DueTimer:
    """Reads the inbox in a daemon thread of this process, and announces due events.

    Args:
        announce: called when events are due.
        seconds_until_due: reads the inbox. See `WorkerInbox.seconds_until_due`.
        lease: seconds of a lease. An event that is being handled is due again within that time.
        report_error: called with what a read, `check` or `recover` raised.
        intervals: how often to read; by default `INTERVALS`.
        check: called before each read.
        recover: ends leases whose processes are gone, and returns how many. Called if events may be leased.
        on_thread_exit: called in the thread before it ends.
    """

    def __init__(
        self,
        announce: Callable[[], object],
        *,
        seconds_until_due: Callable[[float | None], float | None],
        lease: float,
        report_error: Callable[[Exception], object],
        intervals: Intervals | None = None,
        check: Callable[[], object] = lambda: None,
        recover: Callable[[], int] = lambda: 0,
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._announce = announce
        self._seconds_until_due = seconds_until_due
        self._lease = lease
        self._report_error = report_error
        self._intervals = INTERVALS if intervals is None else intervals
        self._check = check
        self._recover = recover
        self._on_thread_exit = on_thread_exit
        self._lock = ForkSafeLock()
        self._pid: int | None = None
        self._stopped = threading.Event()

    def watch(self) -> None:
        """Start the thread if it is not running in this process."""
        if self._pid != os.getpid():
            self._start()

    def stop(self) -> None:
        """End the thread without waiting for it; `watch` starts a new one."""
        with self._lock:
            if self._pid == os.getpid():
                self._pid = None
                self._stopped.set()

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            # Its own: in a forked child, a thread of the parent may have held the lock of the old one.
            self._stopped = threading.Event()
            try:
                threading.Thread(target=self._run, args=(self._stopped,), name="envoyou-due-timer", daemon=True).start()
            except RuntimeError as error:
                self._report_error(error)
            else:
                self._pid = os.getpid()

    def _run(self, stopped: threading.Event) -> None:
        plan = ReadPlan(self._intervals)
        try:
            # An event that has just been accepted is announced already, and will have been claimed by then.
            pause = self._intervals.read
            while not stopped.wait(pause):
                try:
                    self._read(plan)
                    pause = self._intervals.read
                except Exception as error:
                    self._report_error(error)
                    # A failure must not be reported every second.
                    pause = self._intervals.full
        finally:
            self._on_thread_exit()

    def _read(self, plan: ReadPlan) -> None:
        now = time.monotonic()
        self._check()
        until_due = self._seconds_until_due(plan.next_read(now))
        if until_due is not None and until_due <= self._lease and self._recover():
            until_due = 0.0
        if plan.evaluate(now, until_due):
            self._announce()
