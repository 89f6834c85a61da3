"""One daemon thread for each process, which stores what was counted and evaluates alerts at regular intervals.

It starts at the first count, so a process that receives and handles nothing has no such thread. It serves all
`Webhooks` objects of the process, and ends when none of them is left.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Final

from envoyou_core.forks import ForkSafeLock, call_in_forked_children

__all__ = ["INTERVAL", "TICKER", "Ticker"]

INTERVAL: Final = 10.0
"""Seconds between two ticks. A process that is killed loses the counts since its last one."""


class Ticker:
    """Calls functions at regular intervals, for as long as their objects live.

    Args:
        interval: seconds.

    Attributes:
        is_ending: whether the process ends, so that there is no other tick.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self.is_ending = False
        self._lock = ForkSafeLock()
        self._methods: list[weakref.WeakMethod[Callable[[], object]]] = []
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._runs_at_exit = False
        call_in_forked_children(self._forget)

    def _forget(self) -> None:
        # A forked child has no thread; its objects add themselves again.
        self._methods, self._thread, self._ended = [], None, threading.Event()

    def add(self, method: Callable[[], object]) -> bool:
        """Call a bound method at each tick and when the process ends; returns whether that will happen.

        The method must not raise.

        A process that is about to end can start no thread.
        """
        with self._lock:
            self._methods.append(weakref.WeakMethod(method))
            if self._thread is None:
                thread = threading.Thread(target=self._run, args=(self._ended,), name="envoyou-ticker", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._methods.pop()
                    return False
                self._thread = thread
            if not self._runs_at_exit:
                self._runs_at_exit = True
                atexit.register(self._end)
        return True

    def remove(self, method: Callable[[], object]) -> None:
        """Call a method no longer; the thread ends with the last one."""
        with self._lock:
            self._keep(lambda kept: kept != method)

    def tick(self) -> None:
        """Call all methods now."""
        for reference in tuple(self._methods):
            method = reference()
            if method is not None:
                method()

    def _end(self) -> None:
        self.is_ending = True
        self.tick()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self.interval):
            self.tick()
            with self._lock:
                self._keep(lambda _: True)

    def _keep(self, is_kept: Callable[[Callable[[], object]], bool]) -> None:
        living = [(reference, method) for reference in self._methods if (method := reference()) is not None]
        self._methods = [reference for reference, method in living if is_kept(method)]
        if not self._methods and self._thread is not None:
            self._ended.set()
            self._thread, self._ended = None, threading.Event()


TICKER: Final = Ticker()
"""That of this process."""
