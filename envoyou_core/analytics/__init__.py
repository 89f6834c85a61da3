"""What the guide asks to track: counts in the inbox's database. See the guide, "Monitoring and Analytics"."""

from __future__ import annotations

from envoyou_core.analytics.reading import Analytics
from envoyou_core.analytics.summary import (
    AttemptCounts,
    DeliveryCounts,
    Durations,
    EventCounts,
    HandlerSummary,
    Summary,
    TypeSummary,
)

__all__ = [
    "Analytics",
    "AttemptCounts",
    "DeliveryCounts",
    "Durations",
    "EventCounts",
    "HandlerSummary",
    "Summary",
    "TypeSummary",
]
