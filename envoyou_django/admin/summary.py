"""The inbox at a glance: how many events are in each state, and how the last day went, hour by hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Case, Count, IntegerField, Value, When
from django.utils.safestring import SafeString

from envoyou_core.inbox import COUNTED, Status, stats_of
from envoyou_django.admin.formatting import badge
from envoyou_django.counting import count_by_status
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["Bar", "Glance", "StatusCount", "look"]

HOURS: Final = 24
BAR_WIDTH: Final = 12
GAP: Final = 3
HEIGHT: Final = 60
LEAST: Final = 2
"""So that one failure among thousands of events is seen."""

FAILURES: Final = frozenset({Status.FAILED, Status.DEAD})


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many events are in one state.

    Attributes:
        badge: the state as the admin shows it.
        at_least: whether counting ended at that number.
    """

    status: str
    badge: SafeString
    count: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour of the last day, and its bar in the chart, in the chart's units.

    Attributes:
        began_at: its begin, in UTC.
        events: how many events were received.
        failures: how many of them are failed or dead by now.
    """

    began_at: datetime
    events: int
    failures: int
    x: int
    height: float
    failures_height: float

    @property
    def y(self) -> float:
        """The upper end of the bar."""
        return HEIGHT - self.height

    @property
    def failures_y(self) -> float:
        """The upper end of the part that stands for failures."""
        return HEIGHT - self.failures_height


@dataclass(frozen=True, slots=True)
class Glance:
    """What stands above the list of events."""

    counts: tuple[StatusCount, ...]
    bars: tuple[Bar, ...]
    width: int = HOURS * (BAR_WIDTH + GAP)
    height: int = HEIGHT
    bar_width: int = BAR_WIDTH

    @property
    def events(self) -> int:
        """How many events were received in the last day."""
        return sum(bar.events for bar in self.bars)

    @property
    def failures(self) -> int:
        """How many of them are failed or dead by now."""
        return sum(bar.failures for bar in self.bars)

    @property
    def most(self) -> int:
        """How many events the busiest hour had."""
        return max(bar.events for bar in self.bars)


def look(rows: ProcessedEventQuerySet, now: datetime) -> Glance:
    """Look at `rows` by four queries, however many they are, at a time in UTC."""
    by_status = count_by_status(rows, COUNTED, index_order="-id")
    at_least = stats_of(by_status, 0.0, limit=COUNTED).at_least
    counts = tuple(StatusCount(it.value, badge(it.value), by_status.get(it.value, 0), it in at_least) for it in Status)
    return Glance(counts, _bars(rows, now))


def _bars(rows: ProcessedEventQuerySet, now: datetime) -> tuple[Bar, ...]:
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    begins = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS))]
    events: dict[datetime, int] = dict.fromkeys(begins, 0)
    failures = dict(events)
    for hour, status, count in _counted(rows, begins):
        events[begins[hour]] += count
        if status in FAILURES:
            failures[begins[hour]] += count
    return tuple(_bar(place, begin, events, failures) for place, begin in enumerate(begins))


def _counted(rows: ProcessedEventQuerySet, begins: list[datetime]) -> list[tuple[int, str, int]]:
    # Compared rather than truncated: that asks no database for its time zones.
    hours = [When(received_at__gte=begin, then=Value(place)) for place, begin in enumerate(begins)]
    hour = Case(*reversed(hours), default=Value(0), output_field=IntegerField())
    received = rows.order_by().filter(received_at__gte=begins[0])
    return list(received.annotate(hour=hour).values_list("hour", "status").annotate(Count("pk")))


def _bar(place: int, begin: datetime, events: Mapping[datetime, int], failures: Mapping[datetime, int]) -> Bar:
    unit = HEIGHT / max(1, *events.values())
    return Bar(
        began_at=begin,
        events=events[begin],
        failures=failures[begin],
        x=place * (BAR_WIDTH + GAP),
        height=_height(events[begin], unit),
        failures_height=_height(failures[begin], unit),
    )


def _height(count: int, unit: float) -> float:
    return max(LEAST, round(count * unit, 1)) if count else 0
