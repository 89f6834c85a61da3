"""Counts what happens in this process, and stores the counts in the inbox's database every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from envoyou_core.analytics.counter import COUNTED, Counter
from envoyou_core.analytics.rollups import RollUp
from envoyou_core.analytics.ticker import TICKER, Ticker
from envoyou_core.errors import describe
from envoyou_core.forks import ForkSafeLock, call_in_forked_children
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.storage_notices import CountsNotStored
from envoyou_core.observability.worker_notices import WorkerStarted

__all__ = ["KINDS", "Recorder"]

KINDS = frozenset({*COUNTED, WorkerStarted})
"""The kinds of notices that a recorder listens to."""


class Recorder:
    """A listener of notices that counts them.

    Args:
        store: stores counts in the inbox.
        name: the name of the `Webhooks`.
        notices: where a failure is reported.
        clock: returns epoch seconds.
        may_tick: whether a thread of this process may use the inbox.
        on_tick: called at each tick, after the counts are stored.
        on_tick_end: called after each tick, in its thread.
        ticker: calls the recorder at regular intervals.
    """

    def __init__(
        self,
        store: Callable[[Sequence[RollUp]], object],
        *,
        name: str,
        notices: Notices,
        clock: Callable[[], float],
        may_tick: Callable[[], bool] = lambda: True,
        on_tick: Callable[[], object] = lambda: None,
        on_tick_end: Callable[[], object] = lambda: None,
        ticker: Ticker = TICKER,
    ) -> None:
        self._store = store
        self._name = name
        self._notices = notices
        self._counter = Counter(clock)
        self._may_tick = may_tick
        self._on_tick = on_tick
        self._on_tick_end = on_tick_end
        self._ticker = ticker
        self._flushing = ForkSafeLock()
        self._is_ticking = False
        self._has_failed = False
        self._flushed_at = time.monotonic()
        call_in_forked_children(self._forget)

    def _forget(self) -> None:
        self._is_ticking = False

    def __call__(self, notice: Notice) -> None:
        """Count a notice; from the first one on, the counts of this process are stored at regular intervals."""
        if not self._is_ticking and self._may_tick():
            self._is_ticking = self._ticker.add(self.tick)
        if type(notice) is not WorkerStarted:
            self._counter.count(notice)

    def tick(self) -> None:
        """Store the counts, and do what else is due. Never raises."""
        try:
            self.flush()
            self._on_tick()
        finally:
            self._on_tick_end()

    def flush(self) -> bool:
        """Store the counts now; returns false if that failed, so that they are kept for the next time."""
        # One at a time, so that a summary sees what another thread is storing.
        with self._flushing:
            self._flushed_at = time.monotonic()
            rollups = self._counter.take()
            if not rollups:
                return True
            try:
                self._store(rollups)
            except Exception as error:
                self._counter.put_back(rollups)
                # The end of a process loses the last counts silently, as a kill does: the inbox may be gone by intent.
                if not self._has_failed and not self._ticker.is_ending:
                    self._has_failed = True
                    self._notices.emit(CountsNotStored(self._name, describe(error)))
                return False
            self._has_failed = False
            return True

    def flush_if_due(self) -> None:
        """Store the counts if no thread does so, and it was not done within the last interval."""
        is_due = time.monotonic() - self._flushed_at >= self._ticker.interval
        if self._counter and not self._is_ticking and is_due:
            self.flush()

    def stop(self) -> None:
        """Store the counts, and do so no longer at regular intervals, until something else is counted."""
        if self._is_ticking:
            self._is_ticking = False
            self._ticker.remove(self.tick)
            self.flush()
