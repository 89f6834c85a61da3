"""Converts events and statistics to JSON, and command line arguments to values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from envoyou_core.inbox import InboxRecord, InboxStats, RejectedDelivery, Status

__all__ = [
    "count_text",
    "duration",
    "event_as_json",
    "event_details_as_json",
    "json_object",
    "rejected_as_json",
    "stats_as_json",
]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw]?)")


def stats_as_json(
    stats: InboxStats | None,
    paused: Iterable[str],
    spool: InboxStats | None = None,
    inbox_location: str = "",
    spool_location: str = "",
) -> dict[str, Any]:
    """Return the statistics as a JSON object: locations, counts by status, `overdue` in seconds, what is paused.

    `waiting` has the number of events that wait for a process with a handler, by the handler. `at_least` lists the
    statuses whose counts are lower bounds. Keys of a store without statistics are omitted.
    """
    document: dict[str, Any] = {"inbox": inbox_location} if inbox_location else {}
    if stats is not None:
        counts = {status.value: count for status, count in stats.by_status.items()}
        document |= {
            "by_status": counts,
            "total": stats.total,
            "at_least": sorted(stats.at_least),
            "rejected": stats.rejected,
            "overdue": stats.overdue,
            "waiting": dict(stats.waiting),
            "paused": sorted(paused),
        }
    if spool is not None:
        document["spool"] = {"waiting": spool.total, "location": spool_location}
    return document


def event_as_json(record: InboxRecord) -> dict[str, Any]:
    """Return one event without its payload; times are ISO 8601, in UTC."""
    return {
        "id": record.event.id,
        "type": record.event.type,
        "created": record.event.created,
        "tenant": record.tenant,
        "status": record.status.value,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "received_at": record.received_at.isoformat(),
        "next_attempt_at": None if record.next_attempt_at is None else record.next_attempt_at.isoformat(),
        "waits_for": record.waits_for,
        "last_error": record.last_error,
        "unreadable": record.unreadable,
    }


def count_text(stats: InboxStats, status: Status | None = None) -> str:
    """Return the number of events with `status`, or of all events: `10000+` if there may be more."""
    count = stats.total if status is None else stats.by_status[status]
    is_lower_bound = bool(stats.at_least) if status is None else status in stats.at_least
    return f"{count}+" if is_lower_bound else str(count)


def event_details_as_json(record: InboxRecord, *, in_spool: bool = False) -> dict[str, Any]:
    """Return one event with its handlers and its attempts. `in_spool`: whether it is in the spool."""
    history = [
        {
            "ended_at": attempt.ended_at.isoformat(),
            "status": attempt.status,
            "seconds": attempt.seconds,
            "failures": [{"handler": failure.handler, "error": failure.error} for failure in attempt.failures],
        }
        for attempt in record.history
    ]
    progress = {name: handler_status.value for name, handler_status in record.progress.items()}
    return {**event_as_json(record), "in_spool": in_spool, "progress": progress, "history": history}


def rejected_as_json(delivery: RejectedDelivery) -> dict[str, Any]:
    """Return one rejected delivery without its body and its signature; times are ISO 8601, in UTC."""
    return {
        "key": delivery.key,
        "received_at": delivery.received_at.isoformat(),
        "reason": delivery.reason,
        "error": delivery.error,
        "event_type": delivery.event_type,
        "webhook_id": delivery.webhook_id,
        "tenant": delivery.tenant,
        "size": delivery.size,
    }


def duration(text: str) -> timedelta:
    """Parse a duration: a number followed by `s`, `m`, `h`, `d` or `w`; without a unit, it is in days.

    Raises:
        ValueError: `text` is not a duration, or the duration is too long.

    Examples:
        >>> duration("90m")
        datetime.timedelta(seconds=5400)
        >>> duration("30") == duration("30d")
        True
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"a duration must be like 90m, 12h, 30d or 2w, got {text!r}")
    try:
        return timedelta(**{_UNITS[match[2] or "d"]: float(match[1])})
    except OverflowError:
        raise ValueError(f"the duration {text!r} is too long") from None


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: `text` is not a JSON object.

    Examples:
        >>> json_object('{"id": "u1"}')
        {'id': 'u1'}
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value
