"""Announces events that become due without being accepted: retries, and what another process has left behind.

A worker polls its inbox, and a task queue does not. So each process that accepts events also reads when the next event
is due: once a second while an event is due soon or being handled, else every ten seconds.
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
        soon: between two reads while an event is due soon or being handled.
        idle: between two reads otherwise, and between two reads of all due events.
        overdue: how long an event may be overdue before it is announced again: the first announcement may be lost.
        longest: the interval of the repetitions doubles up to this maximum while an event stays overdue.
    """

    soon: float = 1.0
    idle: float = 10.0
    overdue: float = 5.0
    longest: float = 60.0


INTERVALS = Intervals()


class ReadPlan:
    """When the inbox is read, and what its answers mean. Times are monotonic.

    An event that stays due, for example because it is paused, must not hide those that become due after it. So most
    reads concern only the events that have become due since the one before.

    Args:
        lease: seconds of a lease. An event that is being handled is due again within that time.
        intervals: how often to read.
    """

    def __init__(self, lease: float, intervals: Intervals) -> None:
        self._lease = lease
        self._intervals = intervals
        self._announced_until: float | None = None
        self._reads_all_at = float("-inf")
        self._reads_all = True
        self._repeat_interval = intervals.idle
        self._repeat_at = float("-inf")

    def next_read(self, now: float) -> float | None:
        """Return what to read: the events due later than so many seconds from now, or with `None` all events."""
        self._reads_all = self._announced_until is None or now >= self._reads_all_at
        return None if self._reads_all or self._announced_until is None else self._announced_until - now - MARGIN

    def evaluate(self, now: float, until_due: float | None) -> tuple[bool, float]:
        """Return whether to announce due events, and the seconds until the next read.

        Args:
            now: the time of the read.
            until_due: seconds until the first of the events that were read is due; `None` if there is none.
        """
        is_due = until_due is not None and until_due <= 0
        announces = is_due
        if self._reads_all:
            self._reads_all_at = now + self._intervals.idle
            announces = until_due is not None and is_due and self._is_news(now, -until_due)
        if announces or not is_due:
            self._announced_until = now
        if until_due is None:
            return announces, self._intervals.idle
        return announces, self._intervals.soon if until_due <= self._lease else min(until_due, self._intervals.idle)

    def _is_news(self, now: float, overdue: float) -> bool:
        """Whether an event that has been due for `overdue` seconds is announced, for the first time or again."""
        if self._announced_until is None or overdue <= now - self._announced_until + MARGIN:
            self._repeat_interval = self._intervals.idle
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
        lease: seconds of a lease.
        report_error: called with what a read or `check` raised.
        intervals: how often to read; by default `INTERVALS`.
        check: called before each read.
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
        on_thread_exit: Callable[[], object] = lambda: None,
    ) -> None:
        self._announce = announce
        self._seconds_until_due = seconds_until_due
        self._lease = lease
        self._report_error = report_error
        self._intervals = INTERVALS if intervals is None else intervals
        self._check = check
        self._on_thread_exit = on_thread_exit
        self._lock = ForkSafeLock()
        self._pid: int | None = None
        self._woken = threading.Event()
        self._stopped = threading.Event()

    def watch(self) -> None:
        """Read the inbox within a second, because an event may be due soon; start the thread if it is not running."""
        if self._pid != os.getpid():
            self._start()
        # Most often it is set already, and `set` takes a lock.
        if not self._woken.is_set():
            self._woken.set()

    def stop(self) -> None:
        """End the thread without waiting for it; `watch` starts a new one."""
        with self._lock:
            if self._pid == os.getpid():
                self._pid = None
                self._stopped.set()
                self._woken.set()

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            # Events of its own: in a forked child, a thread of the parent may have held the locks of the old ones.
            self._woken, self._stopped = threading.Event(), threading.Event()
            try:
                threading.Thread(
                    target=self._run, args=(self._woken, self._stopped), name="envoyou-due-timer", daemon=True
                ).start()
            except RuntimeError as error:
                self._report_error(error)
            else:
                self._pid = os.getpid()

    def _run(self, woken: threading.Event, stopped: threading.Event) -> None:
        plan = ReadPlan(self._lease, self._intervals)
        try:
            # An event that has just been accepted is announced already, and will have been claimed by then.
            stopped.wait(self._intervals.soon)
            while not stopped.is_set():
                read_at = time.monotonic()
                pause = self._read(plan)
                if pause is None:
                    # Whatever is accepted meanwhile: a failure must not be reported every second.
                    stopped.wait(self._intervals.idle)
                elif woken.wait(pause):
                    stopped.wait(max(0.0, read_at + self._intervals.soon - time.monotonic()))
                woken.clear()
        finally:
            self._on_thread_exit()

    def _read(self, plan: ReadPlan) -> float | None:
        """Read the inbox, and return the seconds until the next read; `None` if it has failed."""
        now = time.monotonic()
        try:
            self._check()
            until_due = self._seconds_until_due(plan.next_read(now))
        except Exception as error:
            self._report_error(error)
            return None
        announces, pause = plan.evaluate(now, until_due)
        if announces:
            self._announce()
        return pause
