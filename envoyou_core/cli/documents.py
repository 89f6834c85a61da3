"""What commands print as JSON. Times are ISO 8601, in UTC."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from envoyou_core.handler import Handler
from envoyou_core.inbox import InboxRecord, InboxStats, Process, RejectedDelivery, Status
from envoyou_core.payloads import MASK
from envoyou_core.redaction import MARK

if TYPE_CHECKING:
    from envoyou_core.client import Webhook

__all__ = [
    "count_text",
    "event_as_json",
    "event_details_as_json",
    "handler_as_json",
    "process_as_json",
    "rejected_as_json",
    "stats_as_json",
    "webhook_as_json",
]


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


def count_text(stats: InboxStats, status: Status | None = None) -> str:
    """Return the number of events with `status`, or of all events: `10000+` if there may be more."""
    count = stats.total if status is None else stats.by_status[status]
    is_lower_bound = bool(stats.at_least) if status is None else status in stats.at_least
    return f"{count}+" if is_lower_bound else str(count)


def event_as_json(record: InboxRecord) -> dict[str, Any]:
    """Return one event without its payload."""
    return {
        "id": record.event.id,
        "type": record.event.type,
        "created": record.event.created,
        "tenant": record.tenant,
        "status": record.status.value,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "received_at": record.received_at.isoformat(),
        "next_attempt_at": _time(record.next_attempt_at),
        "settled_at": _time(record.settled_at),
        "waits_for": record.waits_for,
        "last_error": record.last_error,
        "unreadable": record.unreadable,
    }


def event_details_as_json(record: InboxRecord, *, in_spool: bool = False, reveal: bool = False) -> dict[str, Any]:
    """Return one event with its handlers and its attempts.

    Args:
        record: the event.
        in_spool: whether it is in the spool.
        reveal: with the values of the headers that were kept.
    """
    history = [
        {
            "ended_at": attempt.ended_at.isoformat(),
            "status": attempt.status,
            "seconds": attempt.seconds,
            "failures": [
                {"handler": failure.handler, "error": failure.error, "traceback": failure.traceback}
                for failure in attempt.failures
            ],
        }
        for attempt in record.history
    ]
    progress = {name: handler_status.value for name, handler_status in record.progress.items()}
    return {
        **event_as_json(record),
        "in_spool": in_spool,
        "progress": progress,
        "owed": dict(record.owed),
        "headers": {name: value if reveal else MASK for name, value in record.headers.items()},
        "history": history,
    }


def rejected_as_json(delivery: RejectedDelivery) -> dict[str, Any]:
    """Return one rejected delivery without its body and its signature."""
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


def handler_as_json(handler: Handler, paused: Iterable[str]) -> dict[str, Any]:
    """Return one handler. `paused`: what pauses it, as `type:user.*` or `handler:welcome`."""
    return {
        "name": handler.name,
        "types": list(handler.patterns),
        "async": handler.is_async,
        "ordered": handler.ordered,
        "stale": handler.stale,
        "atomic": handler.shares_transaction,
        "time_limit": handler.time_limit,
        "concurrency": handler.concurrency,
        "was": list(handler.was),
        "paused": list(paused),
    }


def process_as_json(process: Process, now: datetime) -> dict[str, Any]:
    """Return one process that uses the inbox. `now`: to tell whether it counts as live."""
    return {
        "id": process.id,
        "kind": process.kind.value,
        "host": process.host,
        "pid": process.pid,
        "version": process.version,
        "started_at": process.started_at.isoformat(),
        "seen_at": process.seen_at.isoformat(),
        "live": process.live_for(now) > 0,
        "handlers": {name: list(patterns) for name, patterns in process.handlers.handlers},
    }


def webhook_as_json(webhook: Webhook, *, reveal: bool = False) -> dict[str, Any]:
    """Return one registered webhook. `reveal`: with the secret and the values of custom headers."""
    policy = webhook.retry_policy
    secret = None if webhook.secret is None else webhook.secret if reveal else MARK
    return {
        **webhook.extra,
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "active": webhook.active,
        "secret": secret,
        "retry_policy": None
        if policy is None
        else {
            **policy.extra,
            "max_attempts": policy.max_attempts,
            "backoff_multiplier": policy.backoff_multiplier,
            "initial_delay": policy.initial_delay,
        },
        "headers": {name: value if reveal else MARK for name, value in webhook.headers.items()},
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
