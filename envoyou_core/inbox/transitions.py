"""How an event changes in the inbox: the rules that every inbox applies.

The functions are pure. An inbox reads the values that a rule needs, and writes the changes with statements of its own.
A statement that changes many rows at once states the rule's condition in SQL, with the constants of this module.

All times are aware datetimes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from envoyou_core.event import Event
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.history import INTERRUPTED, Attempt, with_attempt, with_crash, without_failures
from envoyou_core.inbox.owed import Owed, awaited_handlers, wait_key, with_begun, with_crashed
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
from envoyou_core.patterns import matches_any

__all__ = [
    "LEASED",
    "REARMABLE",
    "WAITING",
    "Changes",
    "Ordered",
    "accept",
    "arrive",
    "claimed_by",
    "compare_redelivery",
    "count_crash",
    "deletes_payload",
    "describe",
    "end_lease",
    "extend_lease",
    "had_effect",
    "interruptions",
    "is_awaited",
    "is_rearmed",
    "is_waiting",
    "lease",
    "next_in_order",
    "requeue",
    "scrub",
    "settle",
    "uncount_crash",
    "watermarks",
]

Changes = dict[str, Any]
"""New values by column: statuses, datetimes, histories and progress as objects. Other columns keep their values."""

LEASED = Status.PROCESSING
"""The status of an event that a worker holds. If such an event is due, its lease has expired."""

WAITING = frozenset({Status.RECEIVED, Status.FAILED})
"""The statuses of the events that may wait for a handler."""

REARMABLE = Status.DEAD
"""A redelivery requeues an event of this status, unless its payload was deleted."""


def accept(entry: NewEvent, now: datetime) -> Changes:
    """The columns of a new event; the inbox adds its name. There is no column `traceparent` if it has none."""
    return {**arrive(now), **describe(entry)}


def arrive(now: datetime) -> Changes:
    """The columns of a new event that all events of one commit have in common."""
    return {
        "status": Status.RECEIVED,
        "attempts": 0,
        "crashes": 0,
        "progress": {},
        "received_at": now,
        "due_at": now,
    }


def describe(entry: NewEvent) -> Changes:
    """The other columns of a new event. There is a column `received_at` if it was accepted earlier than now."""
    event = entry.event
    columns: dict[str, Any] = {
        "tenant": entry.tenant,
        "event_id": event.id,
        "type": event.type,
        "created": event.created,
        "webhook_id": entry.webhook_id,
        "body": event.body,
        "object_key": event.object_id or "",
        "accepted_set": None if entry.handlers is None else entry.handlers.id,
        "headers": entry.headers,
    }
    if entry.received_at is not None:
        columns["received_at"] = entry.received_at.astimezone(UTC)
    if entry.traceparent is not None:
        columns["traceparent"] = entry.traceparent
    return columns


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


def end_lease(now: datetime) -> Changes:
    """End the lease of a process that is gone. The next claim takes over, as if the lease had expired."""
    return {"due_at": now}


def extend_lease(seconds: float, now: datetime) -> Changes:
    """Extend an expired lease whose holder may have been unable to renew it. See `LEASED`."""
    return {"due_at": now + timedelta(seconds=seconds)}


def claimed_by(handlers: HandlerSet | None) -> Changes:
    """Record the handlers of the process that leases an event. Only an event that is not leased waits for a handler."""
    return {"claimed_set": None if handlers is None else handlers.id}


def count_crash(claim: Claim, crashed: HandlerSet | None, now: datetime) -> Changes:
    """Count the attempt whose lease expired, because its worker died or was frozen.

    Args:
        claim: the claim that takes over, with the number of crashes before this one.
        crashed: the handlers of the process that had the lease; `None` if they are not known.
        now: the time of the new claim.
    """
    changes: Changes = {"crashes": claim.crashes + 1, "history": with_crash(claim.history, now)}
    if claim.unreadable is None:
        changes["owed"] = with_crashed(claim.owed, claim.event.type, claim.progress, crashed)
    return changes


def uncount_crash(claim: Claim, crashes: int) -> Changes:
    """Take back a crash that was counted when the lease of `claim` had expired, because its process lives.

    The history still shows it.

    Args:
        claim: the claim whose lease was lost.
        crashes: the number of crashes now. If it is not greater than that of the claim, nothing changes.
    """
    return {"crashes": crashes - 1} if crashes > claim.crashes else {}


def is_waiting(status: Status | str, waits_for: str | None) -> bool:
    """Whether an event waits for a handler.

    A claim leaves the column `waits_for` as it is. So do all changes of earlier releases, which do not know it.
    """
    return waits_for is not None and status in WAITING


def is_awaited(waits_for: str | None, event_type: str, handlers: HandlerSet | None) -> bool:
    """Whether an event waits for one of these handlers.

    Args:
        waits_for: the column of the event.
        event_type: of the event. A process whose handler of that name is for other types cannot run it.
        handlers: the handlers of a process.
    """
    if waits_for is None or handlers is None:
        return False
    return any(waits_for == name and matches_any(patterns, event_type) for name, patterns in awaited_handlers(handlers))


def settle(claim: Claim, settlement: Settlement, now: datetime) -> Changes:
    """End an attempt and its lease. If `deletes_payload` is true, `scrub` applies afterwards.

    The stored progress of an unreadable event stays, and what it owes: a newer release may have recorded handlers that
    this one cannot read, and overwriting them would run finished handlers again.
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
    # What does not change, as normally, is not written.
    if claim.owed or settlement.owed:
        changes["owed"] = dict(settlement.owed)
    if claim.waits_for is not None or settlement.waits_for is not None:
        changes["waits_for"] = None if settlement.waits_for is None else wait_key(settlement.waits_for)
    if claim.waits_since is not None or settlement.waits_since is not None:
        changes["waits_since"] = settlement.waits_since
    if claim.unreadable is not None:
        del changes["progress"]
        changes.pop("owed", None)
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


def requeue(
    progress: Mapping[str, HandlerStatus] | None,
    owed: Owed | None,
    now: datetime,
    drop_handlers: Collection[str] = (),
) -> Changes:
    """Make an event due again with all attempts before it. Handlers that succeeded do not run again.

    Args:
        progress: the stored progress; `None` if it is unreadable, in which case it stays.
        owed: the stored handlers that it owes; `None` if they are unreadable, in which case they stay.
        now: when the event becomes due.
        drop_handlers: handlers that will not run for the event, although it owes them.

    Returns:
        No changes if there are handlers to drop, and the event does not owe any of them.
    """
    dropped: set[str] = set()
    if drop_handlers:
        dropped = {name for name in drop_handlers if name in _owed_after_requeue(progress, owed)}
        if not dropped:
            return {}
    changes: Changes = {
        "status": Status.RECEIVED,
        "attempts": 0,
        "crashes": 0,
        "due_at": now,
        "settled_at": None,
        "waits_for": None,
        "waits_since": None,
    }
    if progress is not None:
        changes["progress"] = completed_handlers(progress) | dict.fromkeys(sorted(dropped), HandlerStatus.DROPPED)
        if owed is not None:
            left = _owed_after_requeue(progress, owed)
            changes["owed"] = {name: begun for name, begun in left.items() if name not in dropped}
    return changes


def _owed_after_requeue(progress: Mapping[str, HandlerStatus] | None, owed: Owed | None) -> dict[str, bool]:
    if progress is None or owed is None:
        return {}
    # Those that have given up run again, wherever they are known.
    given_up = [name for name, status in progress.items() if status is HandlerStatus.GIVEN_UP]
    return with_begun(owed, given_up, completed_handlers(progress))


def scrub(event: Event, history: tuple[Attempt, ...], now: datetime) -> Changes:
    """Delete the payload, the headers, and the error texts, which may quote the payload.

    The inbox also clears its request to erase.

    The object is kept, because the order of events and `newest_applied` depend on it.
    """
    return {
        "body": scrubbed_body(event),
        "object_key": event.object_id or "",
        "last_error": None,
        "history": without_failures(history),
        "headers": {},
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

    @property
    def type(self) -> str:
        """The event's type."""

    @property
    def waits_for(self) -> str | None:
        """The handler that the event waits for."""


def next_in_order(unfinished: Iterable[Ordered], now: datetime, handlers: HandlerSet | None = None) -> int | None:
    """Find the key of the only event that may be claimed among the unfinished events of one object.

    It is the earliest one by creation time, then by arrival. While a lease on any of them is valid, none may be
    claimed. An expired lease does not count, because two such events would wait for each other. Neither does an event
    that waits for a handler which the claiming process does not know.

    Args:
        unfinished: the events.
        now: the time of the claim.
        handlers: the handlers of the process that claims.

    Returns:
        `None` if no event may be claimed.
    """
    events = list(unfinished)
    if any(event.status == LEASED and event.due_at is not None and event.due_at > now for event in events):
        return None
    in_line = [event for event in events if not _waits_elsewhere(event, now, handlers)]
    return min(in_line, key=lambda event: (event.created, event.key)).key if in_line else None


def _waits_elsewhere(event: Ordered, now: datetime, handlers: HandlerSet | None) -> bool:
    is_waiting = event.waits_for is not None and event.due_at is not None and event.due_at > now
    return is_waiting and not is_awaited(event.waits_for, event.type, handlers)
