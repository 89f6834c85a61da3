"""How an event changes in the inbox: the rules that every inbox applies.

The functions are pure. An inbox reads the values that a rule needs, and writes the changes with statements of its own.
A statement that changes many rows at once states the rule's condition in SQL, with the constants of this module.

All times are aware datetimes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from envoyou_core.event import Event
from envoyou_core.inbox.history import INTERRUPTED, Attempt, with_attempt, with_crash, without_failures
from envoyou_core.inbox.records import (
    FINISHED,
    Added,
    Claim,
    HandlerStatus,
    NewEvent,
    Settlement,
    Status,
    completed_handlers,
    is_applied,
)
from envoyou_core.inbox.scrubbing import scrubbed_body

__all__ = [
    "LEASED",
    "REARMABLE",
    "Changes",
    "Ordered",
    "accept",
    "compare_redelivery",
    "count_crash",
    "deletes_payload",
    "had_effect",
    "interruptions",
    "is_rearmed",
    "lease",
    "next_in_order",
    "requeue",
    "scrub",
    "settle",
    "watermarks",
]

Changes = dict[str, Any]
"""New values by column: statuses, datetimes, histories and progress as objects. Other columns keep their values."""

LEASED = Status.PROCESSING
"""The status of an event that a worker holds. If such an event is due, its lease has expired."""

REARMABLE = Status.DEAD
"""A redelivery requeues an event of this status, unless its payload was deleted."""


def accept(entry: NewEvent, now: datetime) -> Changes:
    """The columns of a new event; the inbox adds its name."""
    return {
        "tenant": entry.tenant,
        "event_id": entry.event.id,
        "type": entry.event.type,
        "created": entry.event.created,
        "webhook_id": entry.webhook_id,
        "body": entry.event.body,
        "status": Status.RECEIVED,
        "attempts": 0,
        "crashes": 0,
        "progress": {},
        "received_at": now if entry.received_at is None else entry.received_at.astimezone(UTC),
        "due_at": now,
        "object_key": entry.event.object_id or "",
    }


def is_rearmed(status: Status, *, has_payload: bool) -> bool:
    """Whether a redelivery requeues the stored event."""
    return status == REARMABLE and has_payload


def compare_redelivery(body: bytes, stored: bytes | None) -> Added:
    """Classify a redelivery that does not requeue the stored event, which never changes.

    Args:
        body: the redelivered body.
        stored: the stored body; `None` if the payload was deleted, so that no comparison is possible.
    """
    return Added.DUPLICATE if stored is None or stored == body else Added.BODY_DIFFERS


def lease(token: str, seconds: float, now: datetime) -> Changes:
    """Lease a due event; if its status was `LEASED`, `count_crash` applies as well."""
    return {"status": LEASED, "due_at": now + timedelta(seconds=seconds), "lease_token": token}


def count_crash(crashes: int, history: tuple[Attempt, ...], now: datetime) -> Changes:
    """Count the attempt whose lease expired, because its worker died or was frozen."""
    return {"crashes": crashes + 1, "history": with_crash(history, now)}


def settle(claim: Claim, settlement: Settlement, now: datetime) -> Changes:
    """End an attempt and its lease. If `deletes_payload` is true, `scrub` applies afterwards.

    The stored progress of an unreadable event stays: a newer release may have recorded handlers that this one cannot
    read, and overwriting them would run finished handlers again.
    """
    changes: Changes = {
        "status": settlement.status,
        "attempts": settlement.attempts,
        "progress": dict(settlement.progress),
        "due_at": None if settlement.retry_in is None else now + timedelta(seconds=settlement.retry_in),
        "lease_token": None,
        "settled_at": now if settlement.status in FINISHED else None,
        "last_error": settlement.error,
        "history": with_attempt(claim.history, settlement, now),
    }
    if claim.unreadable is not None:
        del changes["progress"]
    return changes


def deletes_payload(settlement: Settlement, *, erase_requested: bool) -> bool:
    """Whether the end of the attempt deletes the event's payload."""
    return settlement.scrub or (erase_requested and settlement.status in FINISHED)


def interruptions(history: tuple[Attempt, ...]) -> int:
    """Count the attempts that the database has interrupted since the event was stored or last finished."""
    count = 0
    for attempt in reversed(history):
        if attempt.status in FINISHED:
            break
        count += attempt.status == INTERRUPTED
    return count


def requeue(progress: Mapping[str, HandlerStatus] | None, now: datetime) -> Changes:
    """Make an event due again with all attempts before it. Handlers that succeeded do not run again.

    Args:
        progress: the stored progress; `None` if it is unreadable, in which case it stays.
        now: when the event becomes due.
    """
    changes: Changes = {"status": Status.RECEIVED, "attempts": 0, "crashes": 0, "due_at": now, "settled_at": None}
    if progress is not None:
        changes["progress"] = completed_handlers(progress)
    return changes


def scrub(event: Event, history: tuple[Attempt, ...], now: datetime) -> Changes:
    """Delete the payload and the error texts, which may quote it; the inbox also clears its request to erase.

    The object is kept, because the order of events and `newest_applied` depend on it.
    """
    return {
        "body": scrubbed_body(event),
        "object_key": event.object_id or "",
        "last_error": None,
        "history": without_failures(history),
        "scrubbed_at": now,
    }


def had_effect(status: Status | str, progress: Mapping[str, HandlerStatus]) -> bool:
    """Whether an event has been applied to its object, wholly or by some of its handlers."""
    return status == Status.PROCESSED or is_applied(progress)


def watermarks(applied: Iterable[tuple[str, str | None, object]]) -> dict[tuple[str, str], int]:
    """Find the newest creation time for each object; events without an object or a readable time are left out.

    Args:
        applied: tenant, object and creation time of pruned events that had an effect.

    Returns:
        Epoch seconds by tenant and object, in a fixed order, so that two processes that write them cannot deadlock.
    """
    newest: dict[tuple[str, str], int] = {}
    for tenant, object_key, created in applied:
        if object_key and isinstance(created, int):
            newest[tenant, object_key] = max(created, newest.get((tenant, object_key), created))
    return dict(sorted(newest.items()))


class Ordered(Protocol):
    """The columns that the order of one object's events depends on."""

    @property
    def key(self) -> int:
        """The row's primary key, in the order of arrival."""

    @property
    def created(self) -> int:
        """Epoch seconds."""

    @property
    def status(self) -> Status:
        """The event's status."""

    @property
    def due_at(self) -> datetime | None:
        """When the event is due, or when its lease expires; `None` if it is finished."""


def next_in_order(unfinished: Iterable[Ordered], now: datetime) -> int | None:
    """Find the key of the only event that may be claimed among the unfinished events of one object.

    It is the earliest one by creation time, then by arrival. While a lease on any of them is valid, none may be
    claimed. An expired lease does not count, because two such events would wait for each other.

    Returns:
        `None` if no event may be claimed.
    """
    events = list(unfinished)
    if any(event.status == LEASED and event.due_at is not None and event.due_at > now for event in events):
        return None
    return min(events, key=lambda event: (event.created, event.key)).key if events else None
