"""The figures of the last 24 hours, from what was counted: they cost the same however many events there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Case, IntegerField, Sum, Value, When

from envoyou_core.adapter import Measure, Period, Tally, summarize_tallies
from envoyou_django.models import RollUp

__all__ = ["Bar", "Figures", "read_figures"]

HOURS: Final = 24
BAR_WIDTH: Final = 12
BAR_GAP: Final = 3
CHART_HEIGHT: Final = 60
MIN_BAR_HEIGHT: Final = 2
"""So that one failure among thousands of events is visible."""

FAILURES: Final = (Measure.RETRIED, Measure.DEAD)


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour and its bar in the chart. Lengths are in the units of the chart.

    Attributes:
        starts_at: the start of the hour, in UTC.
        events: the number of new events in the hour.
        failures: the number of attempts that failed in it.
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
class Figures:
    """What was counted in the last 24 hours, by all processes and of all inboxes in a database.

    Attributes:
        bars: the hours.
        delivery_rate: the share of the genuine deliveries that was answered 200, in percent; `None` if there was none.
        error_rate: the share of the calls of handlers that failed, likewise.
    """

    bars: tuple[Bar, ...]
    delivery_rate: float | None
    error_rate: float | None
    width: int = HOURS * (BAR_WIDTH + BAR_GAP)
    height: int = CHART_HEIGHT
    bar_width: int = BAR_WIDTH

    @property
    def events(self) -> int:
        """The number of new events."""
        return sum(bar.events for bar in self.bars)

    @property
    def failures(self) -> int:
        """The number of attempts that failed."""
        return sum(bar.failures for bar in self.bars)

    @property
    def peak(self) -> int:
        """The number of events in the busiest hour."""
        return max(bar.events for bar in self.bars)


def read_figures(alias: str, now: datetime) -> Figures:
    """Read the figures of the hours up to `now`, in UTC, by one query."""
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    starts = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS))]
    counted = _counts_by_hour(alias, starts)
    events: dict[datetime, int] = dict.fromkeys(starts, 0)
    failures = dict(events)
    for hour, measure, number in counted:
        if measure == Measure.ACCEPTED:
            events[starts[hour]] += number
        elif measure in FAILURES:
            failures[starts[hour]] += number
    summary = summarize_tallies([Tally(measure, number=number) for _, measure, number in counted], starts[0], now)
    return Figures(
        tuple(_bar(index, start, events, failures) for index, start in enumerate(starts)),
        _percent(summary.deliveries.rate),
        _percent(summary.attempts.error_rate),
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def _counts_by_hour(alias: str, starts: list[datetime]) -> list[tuple[int, str, int]]:
    # Comparing times, unlike truncating them, needs no time zones in the database.
    hours = [When(start__gte=start, then=Value(index)) for index, start in enumerate(starts)]
    hour = Case(*reversed(hours), default=Value(0), output_field=IntegerField())
    # Minutes are kept for 48 hours.
    rows = RollUp.objects.using(alias).filter(period=int(Period.MINUTE), start__gte=starts[0]).order_by()
    summed = rows.annotate(hour=hour).values_list("hour", "measure").annotate(Sum("number"))
    return [(hour, measure, int(number)) for hour, measure, number in summed]


def _bar(index: int, start: datetime, events: Mapping[datetime, int], failures: Mapping[datetime, int]) -> Bar:
    unit = CHART_HEIGHT / max(1, *events.values(), *failures.values())
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
