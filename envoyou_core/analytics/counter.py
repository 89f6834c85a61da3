"""Counts notices in the memory of this process, until they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from envoyou_core.analytics.histogram import BUCKETS, bucket_of
from envoyou_core.analytics.rollups import Measure, Period, RollUp, Tally, start_of
from envoyou_core.forks import ForkSafeLock, call_in_forked_children
from envoyou_core.inbox.records import Added, Status
from envoyou_core.observability.attempt_notices import (
    HandlerFailed,
    HandlerPostponed,
    HandlerSkipped,
    HandlerSucceeded,
    Settled,
)
from envoyou_core.observability.delivery_notices import Accepted, Rejected
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.storage_notices import Spooled

__all__ = ["COUNTED", "MAX_ROWS", "OTHER", "Counter"]

MAX_ROWS: Final = 10_000
"""The largest number of roll-ups that wait to be stored. It bounds memory while the database is down."""

OTHER: Final = "(other)"
"""The type and the handler of what is counted beyond `MAX_ROWS`."""

MAX_NAME: Final = 255

_NUMBER, _TOTAL, _BUCKETS = 0, 1, 2

Counted = tuple[Measure, str, str, float | None]
"""Measure, type of event, handler, and seconds if they are known."""


def _accepted(notice: Accepted) -> Counted:
    is_new = notice.added is Added.NEW or notice.added is Added.REARMED
    return (Measure.ACCEPTED if is_new else Measure.DUPLICATE, notice.event_type, "", notice.seconds)


def _rejected(notice: Rejected) -> Counted:
    if notice.status >= 500:
        measure = Measure.UNAVAILABLE
    elif notice.status == 401:
        measure = Measure.UNAUTHORIZED
    elif notice.status == 400 and notice.body_size is not None:
        # A body that was read is answered 400 only after its signature was proven.
        measure = Measure.INVALID
    else:
        measure = Measure.REFUSED
    return (measure, "", "", notice.seconds)


def _settled(notice: Settled) -> Counted | None:
    measure = _SETTLED.get(notice.status)
    if measure is None:
        return None
    is_timed = measure is Measure.PROCESSED and notice.settled_at is not None and notice.received_at is not None
    seconds = max(0.0, (notice.settled_at or 0.0) - (notice.received_at or 0.0)) if is_timed else None
    return (measure, notice.event_type, "", seconds)


_SETTLED: Final[Mapping[Status, Measure]] = {
    Status.PROCESSED: Measure.PROCESSED,
    Status.IGNORED: Measure.IGNORED,
    Status.FAILED: Measure.RETRIED,
    Status.DEAD: Measure.DEAD,
}
COUNTED: Final[Mapping[type[Notice], Callable[[Any], Counted | None]]] = {
    Accepted: _accepted,
    Rejected: _rejected,
    Spooled: lambda notice: (Measure.SPOOLED, notice.event_type, "", None),
    HandlerSucceeded: lambda notice: (Measure.SUCCEEDED, notice.event_type, notice.handler, notice.seconds),
    HandlerFailed: lambda notice: (Measure.FAILED, notice.event_type, notice.handler, notice.seconds),
    HandlerPostponed: lambda notice: (Measure.POSTPONED, notice.event_type, notice.handler, notice.seconds),
    HandlerSkipped: lambda notice: (Measure.SKIPPED, notice.event_type, notice.handler, None),
    Settled: _settled,
}
"""The kinds of notices that are counted, and how."""


class Counter:
    """The counts of this process that are not stored yet. A forked child starts with none.

    Args:
        clock: returns epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = ForkSafeLock()
        self._rows: dict[tuple[int, str, str, str], list[int]] = {}
        call_in_forked_children(self._forget)

    def _forget(self) -> None:
        # The parent stores them.
        self._rows = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def count(self, notice: Notice) -> None:
        """Count a notice of one of the kinds in `COUNTED`."""
        counted = COUNTED[type(notice)](notice)
        if counted is not None:
            measure, event_type, handler, seconds = counted
            key = (start_of(self._clock(), Period.MINUTE), measure, event_type[:MAX_NAME], handler[:MAX_NAME])
            with self._lock:
                row = self._row(key)
                row[_NUMBER] += 1
                if seconds is not None:
                    row[_TOTAL] += round(seconds * 1_000_000)
                    row[_BUCKETS + bucket_of(seconds)] += 1

    def take(self) -> list[RollUp]:
        """Return the counts so far, and start again with none."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return [
            RollUp(
                Period.MINUTE, start, Tally(measure, type, handler, row[_NUMBER], row[_TOTAL], tuple(row[_BUCKETS:]))
            )
            for (start, measure, type, handler), row in rows.items()
        ]

    def put_back(self, rollups: list[RollUp]) -> None:
        """Add counts that could not be stored."""
        with self._lock:
            for rollup in rollups:
                tally = rollup.tally
                row = self._row((rollup.start, *tally.key))
                for column, value in enumerate((tally.number, tally.total, *tally.buckets)):
                    row[column] += value

    def _row(self, key: tuple[int, str, str, str]) -> list[int]:
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= MAX_ROWS:
                start, measure, event_type, handler = key
                key = (start_of(start, Period.HOUR), measure, event_type and OTHER, handler and OTHER)
            row = self._rows.setdefault(key, [0] * (_BUCKETS + BUCKETS))
        return row
