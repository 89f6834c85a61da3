"""What was counted in a minute, an hour or a day, and how it is folded.

Each count is in one row at any time: a minute is moved into its hour when it is old, and an hour into its day. So the
sum over all rows of a window is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Final

from envoyou_core.analytics.histogram import NO_BUCKETS, Buckets, add_buckets

__all__ = [
    "FOLDS",
    "Fold",
    "Measure",
    "Period",
    "RollUp",
    "Tally",
    "TallyKey",
    "fold",
    "scope_of",
    "scoped_name",
    "start_of",
    "sum_tallies",
]

TallyKey = tuple[str, str, str]
"""Measure, type of event, handler. The last two are empty if the count is not by them."""


class Period(IntEnum):
    """The seconds of a roll-up."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86_400


class Measure(StrEnum):
    """What is counted.

    Deliveries are timed until their answer, attempts of handlers until their end, and settled events from their
    acceptance. Events are counted by type, attempts by type and handler, and refused deliveries by neither.
    """

    ACCEPTED = "delivery.accepted"
    DUPLICATE = "delivery.duplicate"
    INVALID = "delivery.invalid"
    UNAUTHORIZED = "delivery.unauthorized"
    REFUSED = "delivery.refused"
    UNAVAILABLE = "delivery.unavailable"
    SPOOLED = "delivery.spooled"
    SUCCEEDED = "attempt.succeeded"
    FAILED = "attempt.failed"
    POSTPONED = "attempt.postponed"
    SKIPPED = "attempt.skipped"
    PROCESSED = "event.processed"
    IGNORED = "event.ignored"
    RETRIED = "event.retried"
    DEAD = "event.dead"


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something happened, and how long it took.

    Attributes:
        measure: a `Measure`, or what a later release counts.
        event_type: the type of event, or empty.
        handler: the handler's name, or empty.
        number: how often it happened.
        total: microseconds, over those that are in `buckets`.
        buckets: the durations that are known; see `envoyou_core.analytics.histogram`.
    """

    measure: str
    event_type: str = ""
    handler: str = ""
    number: int = 0
    total: int = 0
    buckets: Buckets = NO_BUCKETS

    @property
    def key(self) -> TallyKey:
        """What tells it from the other tallies of its period."""
        return self.measure, self.event_type, self.handler


@dataclass(frozen=True, slots=True)
class RollUp:
    """What was counted in one period.

    Attributes:
        period: its length in seconds, a `Period`.
        start: its start, in epoch seconds: a multiple of `period`.
        tally: the counts.
    """

    period: int
    start: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Fold:
    """How roll-ups of one period become those of another.

    Attributes:
        period: what is folded.
        into: the longer period; `None` to delete it.
        after: the age at which this is done.
    """

    period: Period
    into: Period | None
    after: timedelta


FOLDS: Final = (
    Fold(Period.MINUTE, Period.HOUR, timedelta(hours=48)),
    Fold(Period.HOUR, Period.DAY, timedelta(days=30)),
    Fold(Period.DAY, None, timedelta(days=730)),
)
"""How long minutes, hours and days are kept."""


def start_of(moment: float, period: int) -> int:
    """Return the start of the period that contains an epoch time.

    Examples:
        >>> start_of(125.5, Period.MINUTE)
        120
    """
    return int(moment // period) * period


def sum_tallies(tallies: Iterable[Tally]) -> list[Tally]:
    """Add up tallies of the same key; the result is sorted by it."""
    by_key: dict[TallyKey, list[Tally]] = {}
    for tally in tallies:
        by_key.setdefault(tally.key, []).append(tally)
    return [
        Tally(
            *key,
            number=sum(tally.number for tally in same),
            total=sum(tally.total for tally in same),
            buckets=add_buckets(tally.buckets for tally in same),
        )
        for key, same in sorted(by_key.items())
    ]


def fold(rollups: Iterable[RollUp], period: int) -> list[RollUp]:
    """Add up roll-ups by longer periods; the result is sorted by start and key."""
    by_start: dict[int, list[Tally]] = {}
    for rollup in rollups:
        by_start.setdefault(start_of(rollup.start, period), []).append(rollup.tally)
    return [
        RollUp(period, start, tally) for start, tallies in sorted(by_start.items()) for tally in sum_tallies(tallies)
    ]


def scoped_name(name: str, scope: str) -> str:
    """Return the key under which the alerts of an inbox are stored: its name, with the scope if there is one."""
    return f"{name[:47]}@{scope[:16]}" if scope else name


def scope_of(key: str, name: str) -> str:
    """Return the scope in a key that `scoped_name` has made for `name`.

    Examples:
        >>> scope_of("default@0123456789abcdef", "default"), scope_of("default", "default")
        ('0123456789abcdef', '')
    """
    return "" if key == name else key.removeprefix(f"{name[:47]}@")
