"""What the inbox holds as plain values, for scripts; and what people write on a command line, as values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from envoyou_core.inbox import InboxRecord, InboxStats, Status

__all__ = ["count_text", "duration", "event_as_json", "event_details_as_json", "json_object", "stats_as_json"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw]?)")


def stats_as_json(
    stats: InboxStats | None,
    paused: Iterable[str],
    spool: InboxStats | None = None,
    inbox_location: str = "",
    spool_location: str = "",
) -> dict[str, Any]:
    """Where the inbox is, counts by state, `overdue` in seconds, what is paused, and how many events wait in a spool.

    `at_least` names the states of which there may be more events than counted.
    What is not there, or could not be looked at, is left out.
    """
    found: dict[str, Any] = {"inbox": inbox_location} if inbox_location else {}
    if stats is not None:
        counts = {status.value: count for status, count in stats.by_status.items()}
        found |= {
            "by_status": counts,
            "total": stats.total,
            "at_least": sorted(stats.at_least),
            "overdue": stats.overdue,
            "paused": sorted(paused),
        }
    if spool is not None:
        found["spool"] = {"waiting": spool.total, "location": spool_location}
    return found


def event_as_json(record: InboxRecord) -> dict[str, Any]:
    """One event, without its payload; times are ISO 8601, in UTC."""
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
        "last_error": record.last_error,
        "unreadable": record.unreadable,
    }


def count_text(stats: InboxStats, status: Status | None = None) -> str:
    """The number of events in a state, or in all of them: `10000+` if there may be more."""
    count = stats.total if status is None else stats.by_status[status]
    is_lower_bound = bool(stats.at_least) if status is None else status in stats.at_least
    return f"{count}+" if is_lower_bound else str(count)


def event_details_as_json(record: InboxRecord, *, in_spool: bool = False) -> dict[str, Any]:
    """One event, what became of each handler, and its attempts; `in_spool` where it waits there."""
    history = [
        {
            "ended_at": attempt.ended_at.isoformat(),
            "status": attempt.status,
            "seconds": attempt.seconds,
            "failures": [{"handler": failure.handler, "error": failure.error} for failure in attempt.failures],
        }
        for attempt in record.history
    ]
    progress = {name: became.value for name, became in record.progress.items()}
    return {**event_as_json(record), "in_spool": in_spool, "progress": progress, "history": history}


def duration(text: str) -> timedelta:
    """A length of time: a number with `s`, `m`, `h`, `d` or `w` behind it, or of days.

    Raises:
        ValueError: it is none, or longer than a calendar reaches.

    Examples:
        >>> duration("90m")
        datetime.timedelta(seconds=5400)
        >>> duration("30") == duration("30d")
        True
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no length of time, such as 90m, 12h, 30d or 2w")
    try:
        return timedelta(**{_UNITS[found[2] or "d"]: float(found[1])})
    except OverflowError:
        raise ValueError(f"{text!r} is longer than a calendar reaches") from None


def json_object(text: str) -> dict[str, Any]:
    """What stands in `text`.

    Raises:
        ValueError: it is no JSON, or no object.

    Examples:
        >>> json_object('{"id": "u1"}')
        {'id': 'u1'}
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is a JSON object, such as {}, and nothing else")
    return found
