"""The summary above the list of events: counts by status, what needs attention, figures of the last 24 hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Min
from django.utils.safestring import SafeString

from envoyou_core.adapter import CurrentAlert, current_alerts
from envoyou_core.inbox import COUNTED, Status, stats_of
from envoyou_django.admin.attention import Pauses, overdue
from envoyou_django.admin.figures import Figures, read_figures
from envoyou_django.admin.formatting import badge
from envoyou_django.counting import count_by_status, count_waiting
from envoyou_django.models import AlertStates, ProcessedEventQuerySet

__all__ = ["StatusCount", "Summary", "summarize"]


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
class Summary:
    """What is shown above the list of events.

    Attributes:
        waiting: the number of events that wait for a process with a handler, by the handler.
        overdue: the number of events that no worker has taken although they are due, at most `COUNTED`.
        overdue_since: when the first of them was due.
        paused: the paused types and handlers, such as `type:user.*`, with the name of the inbox if there are several.
        alerts: the alerts that fire.
        figures: what was counted in the last 24 hours.
    """

    counts: tuple[StatusCount, ...]
    waiting: Mapping[str, int]
    overdue: int
    overdue_since: datetime | None
    paused: tuple[str, ...]
    alerts: tuple[CurrentAlert, ...]
    figures: Figures


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
        alerts=_firing(rows.db, now),
        figures=read_figures(rows.db, now),
    )


def _firing(alias: str, now: datetime) -> tuple[CurrentAlert, ...]:
    """The alerts of all inboxes in the database that fire, as of the last evaluation."""
    stored = AlertStates.objects.using(alias).order_by("name").values_list("states", flat=True)
    return tuple(alert for alert in current_alerts(stored, now.timestamp()) if alert.is_firing)
