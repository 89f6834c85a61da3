"""Counts notices in the memory of this process, until they are stored."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, Final

from envoyou_core.analytics.histogram import BOUNDS, BUCKETS
from envoyou_core.analytics.rollups import Measure, Period, RollUp, Tally
from envoyou_core.forks import call_in_forked_children
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
"""The largest number of roll-ups that wait to be stored by type and handler. It bounds memory during an outage."""

OTHER: Final = "(other)"
"""The type and the handler of what is counted beyond `MAX_ROWS`."""

MAX_NAME: Final = 255
"""The largest number of characters of a handler's name that are stored."""

Counted = tuple[str, str, str, float | None]
"""Measure, type of event, handler, and seconds if they are known."""

Key = tuple[int, str, str, str]
"""The number of a minute since the epoch, measure, type of event, handler."""

_NUMBER, _TOTAL, _BUCKETS = 0, 1, 2
"""The positions in the row of a key."""

# As plain text, because the hash of a member of an enum is computed in Python, each time.
_ACCEPTED = Measure.ACCEPTED.value
_DUPLICATE = Measure.DUPLICATE.value
_SUCCEEDED = Measure.SUCCEEDED.value
_PROCESSED = Measure.PROCESSED.value
_UNPROCESSED: Final[Mapping[Status, str]] = {
    Status.IGNORED: Measure.IGNORED.value,
    Status.FAILED: Measure.RETRIED.value,
    Status.DEAD: Measure.DEAD.value,
}


def _accepted(notice: Accepted) -> Counted:
    added = notice.added
    is_new = added is Added.NEW or added is Added.REARMED
    return (_ACCEPTED if is_new else _DUPLICATE, notice.event_type, "", notice.seconds)


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
    return (measure.value, "", "", notice.seconds)


def _spooled(notice: Spooled) -> Counted:
    return (Measure.SPOOLED.value, notice.event_type, "", None)


def _succeeded(notice: HandlerSucceeded) -> Counted:
    return (_SUCCEEDED, notice.event_type, notice.handler, notice.seconds)


def _failed(notice: HandlerFailed) -> Counted:
    return (Measure.FAILED.value, notice.event_type, notice.handler, notice.seconds)


def _postponed(notice: HandlerPostponed) -> Counted:
    return (Measure.POSTPONED.value, notice.event_type, notice.handler, notice.seconds)


def _skipped(notice: HandlerSkipped) -> Counted:
    return (Measure.SKIPPED.value, notice.event_type, notice.handler, None)


def _settled(notice: Settled) -> Counted | None:
    if notice.status is not Status.PROCESSED:
        measure = _UNPROCESSED.get(notice.status)
        return None if measure is None else (measure, notice.event_type, "", None)
    settled_at, received_at = notice.settled_at, notice.received_at
    seconds = None if settled_at is None or received_at is None else max(0.0, settled_at - received_at)
    return (_PROCESSED, notice.event_type, "", seconds)


COUNTED: Final[Mapping[type[Notice], Callable[[Any], Counted | None]]] = {
    Accepted: _accepted,
    Rejected: _rejected,
    Spooled: _spooled,
    HandlerSucceeded: _succeeded,
    HandlerFailed: _failed,
    HandlerPostponed: _postponed,
    HandlerSkipped: _skipped,
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
        self._lock = threading.Lock()
        self._rows: dict[Key, list[int]] = {}
        call_in_forked_children(self._forget)

    def _forget(self) -> None:
        # The parent stores them. Another thread of it may have held the lock.
        self._rows, self._lock = {}, threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def count(self, notice: Notice) -> None:
        """Count a notice of one of the kinds in `COUNTED`."""
        counted = COUNTED[type(notice)](notice)
        if counted is None:
            return
        measure, event_type, handler, seconds = counted
        key = (int(self._clock() // 60), measure, event_type, handler)
        with self._lock:
            row = self._rows.get(key) or self._new_row(key)
            row[_NUMBER] += 1
            if seconds is not None:
                row[_TOTAL] += round(seconds * 1_000_000)
                row[_BUCKETS + bisect_left(BOUNDS, seconds)] += 1

    def take(self) -> list[RollUp]:
        """Return the counts so far, and start again with none."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return [
            RollUp(
                Period.MINUTE,
                minute * Period.MINUTE,
                Tally(measure, event_type, handler[:MAX_NAME], row[_NUMBER], row[_TOTAL], tuple(row[_BUCKETS:])),
            )
            for (minute, measure, event_type, handler), row in rows.items()
        ]

    def put_back(self, rollups: list[RollUp]) -> None:
        """Add counts that could not be stored."""
        with self._lock:
            for rollup in rollups:
                tally = rollup.tally
                key = (rollup.start // Period.MINUTE, *tally.key)
                row = self._rows.get(key) or self._new_row(key)
                for column, value in enumerate((tally.number, tally.total, *tally.buckets)):
                    row[column] += value

    def _new_row(self, key: Key) -> list[int]:
        minute, measure, event_type, handler = key
        if len(self._rows) >= MAX_ROWS:
            # One row an hour for each measure.
            key = (minute // 60 * 60, measure, event_type and OTHER, handler and OTHER)
        return self._rows.setdefault(key, [0] * (_BUCKETS + BUCKETS))
