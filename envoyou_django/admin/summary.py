"""The summary above the list of events: counts by status, what needs attention, a chart of the last 24 hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Case, Count, IntegerField, Min, Value, When
from django.utils.safestring import SafeString

from envoyou_core.inbox import COUNTED, Status, stats_of
from envoyou_django.admin.attention import Pauses, overdue
from envoyou_django.admin.formatting import badge
from envoyou_django.counting import count_by_status, count_waiting
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["Bar", "StatusCount", "Summary", "summarize"]

HOURS: Final = 24
BAR_WIDTH: Final = 12
BAR_GAP: Final = 3
CHART_HEIGHT: Final = 60
MIN_BAR_HEIGHT: Final = 2
"""So that one failure among thousands of events is visible."""

FAILURES: Final = frozenset({Status.FAILED, Status.DEAD})


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The number of events with one status.

    Attributes:
        badge: the status as the admin shows it.
        at_least: whether `events` is a lower bound.
    """

    status: str
    badge: SafeString
    events: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour and its bar in the chart. Lengths are in the units of the chart.

    Attributes:
        starts_at: the start of the hour, in UTC.
        events: the number of events received in the hour.
        failures: how many of them are failed or dead now.
    """

    starts_at: datetime
    events: int
    failures: int
    x: int
    height: float
    failures_height: float

    @property
    def y(self) -> float:
        """The top of the bar."""
        return CHART_HEIGHT - self.height

    @property
    def failures_y(self) -> float:
        """The top of the part of the bar for failures."""
        return CHART_HEIGHT - self.failures_height


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts and the chart above the list of events.

    Attributes:
        waiting: the number of events that wait for a process with a handler, by the handler.
        overdue: the number of events that no worker has taken although they are due, at most `COUNTED`.
        overdue_since: when the first of them was due.
        paused: the paused types and handlers, such as `type:user.*`, with the name of the inbox if there are several.
    """

    counts: tuple[StatusCount, ...]
    waiting: Mapping[str, int]
    overdue: int
    overdue_since: datetime | None
    paused: tuple[str, ...]
    bars: tuple[Bar, ...]
    width: int = HOURS * (BAR_WIDTH + BAR_GAP)
    height: int = CHART_HEIGHT
    bar_width: int = BAR_WIDTH

    @property
    def events(self) -> int:
        """The number of events received in the last 24 hours."""
        return sum(bar.events for bar in self.bars)

    @property
    def failures(self) -> int:
        """How many of `events` are failed or dead now."""
        return sum(bar.failures for bar in self.bars)

    @property
    def peak(self) -> int:
        """The number of events in the busiest hour."""
        return max(bar.events for bar in self.bars)


def summarize(rows: ProcessedEventQuerySet, now: datetime) -> Summary:
    """Summarize `rows` at `now`, in UTC. The number of queries does not depend on the number of rows."""
    by_status = count_by_status(rows, COUNTED, index_order="-id")
    at_least = stats_of(by_status, 0.0, limit=COUNTED).at_least
    counts = tuple(
        StatusCount(status.value, badge(status.value), by_status.get(status.value, 0), status in at_least)
        for status in Status
    )
    pauses = Pauses.read(rows.db)
    late = overdue(rows, pauses, now).order_by()
    number = late[:COUNTED].count()
    return Summary(
        counts=counts,
        waiting=count_waiting(rows),
        overdue=number,
        overdue_since=late.aggregate(first=Min("due_at"))["first"] if number else None,
        paused=pauses.labels,
        bars=_bars(rows, now),
    )


def _bars(rows: ProcessedEventQuerySet, now: datetime) -> tuple[Bar, ...]:
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    starts = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS))]
    events: dict[datetime, int] = dict.fromkeys(starts, 0)
    failures = dict(events)
    for hour, status, count in _counts_by_hour(rows, starts):
        events[starts[hour]] += count
        if status in FAILURES:
            failures[starts[hour]] += count
    return tuple(_bar(index, start, events, failures) for index, start in enumerate(starts))


def _counts_by_hour(rows: ProcessedEventQuerySet, starts: list[datetime]) -> list[tuple[int, str, int]]:
    # Comparing times, unlike truncating them, needs no time zones in the database.
    hours = [When(received_at__gte=start, then=Value(index)) for index, start in enumerate(starts)]
    hour = Case(*reversed(hours), default=Value(0), output_field=IntegerField())
    received = rows.order_by().filter(received_at__gte=starts[0])
    return list(received.annotate(hour=hour).values_list("hour", "status").annotate(Count("pk")))


def _bar(index: int, start: datetime, events: Mapping[datetime, int], failures: Mapping[datetime, int]) -> Bar:
    unit = CHART_HEIGHT / max(1, *events.values())
    return Bar(
        starts_at=start,
        events=events[start],
        failures=failures[start],
        x=index * (BAR_WIDTH + BAR_GAP),
        height=_height(events[start], unit),
        failures_height=_height(failures[start], unit),
    )


def _height(count: int, unit: float) -> float:
    return max(MIN_BAR_HEIGHT, round(count * unit, 1)) if count else 0
