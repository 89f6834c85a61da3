"""The values that go into an inbox and come out of it, and the statuses of its events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

import msgspec

from envoyou_core.event import Event

if TYPE_CHECKING:
    from envoyou_core.inbox.handler_sets import HandlerSet
    from envoyou_core.inbox.history import Attempt, Failure
    from envoyou_core.inbox.processes import Process

__all__ = [
    "ANY",
    "COUNTED",
    "COUNTED_IN_PART",
    "FINISHED",
    "MAX_AWAITED",
    "REQUEUABLE",
    "Added",
    "Claim",
    "ClaimFilter",
    "HandlerStatus",
    "InboxRecord",
    "InboxStats",
    "NewEvent",
    "Settlement",
    "Status",
    "check_handler_names",
    "completed_handlers",
    "is_applied",
    "prunable_statuses",
    "requeuable_statuses",
    "stats_of",
]


class Status(StrEnum):
    """The status of an event in the inbox."""

    RECEIVED = "received"
    PROCESSING = "processing"
    PROCESSED = "processed"
    IGNORED = "ignored"
    FAILED = "failed"
    DEAD = "dead"


FINISHED = frozenset({Status.PROCESSED, Status.IGNORED, Status.DEAD})
"""The final statuses: no worker touches such an event again."""

COUNTED = 10_000
"""The number of processed or ignored events up to which `stats` counts, unless it must be exact."""

MAX_AWAITED = 100
"""The number of handlers up to which `stats` names those that events wait for."""

COUNTED_IN_PART = (Status.PROCESSED, Status.IGNORED)
"""The statuses whose events accumulate, so that counting all of them would read most of the table."""

REQUEUABLE = frozenset({Status.FAILED, Status.IGNORED, Status.DEAD})
"""The statuses from which `requeue` returns events to `received`."""


class HandlerStatus(StrEnum):
    """The result of a handler that will not run again for an event.

    A handler has given up by a `PermanentError`. It is skipped if the event is stale, and dropped by `requeue`.
    """

    DONE = "done"
    GIVEN_UP = "given_up"
    SKIPPED = "skipped"
    DROPPED = "dropped"


class Added(Enum):
    """The result of `add`: a new event was stored, it existed already, or a dead event was requeued.

    `BODY_DIFFERS` means that an event with this id exists with another body, which does not change.
    """

    NEW = "new"
    DUPLICATE = "duplicate"
    BODY_DIFFERS = "body_differs"
    REARMED = "rearmed"

    @property
    def is_runnable(self) -> bool:
        """Whether the event became due by this call."""
        return self is Added.NEW or self is Added.REARMED


# Structs of msgspec, because several of them are made for each event, at a tenth of the cost of a dataclass.


class NewEvent(msgspec.Struct, frozen=True):
    """An accepted event on its way into the inbox. With the inbox's name, `tenant` and `event.id` are its key.

    Attributes:
        received_at: when it was accepted; `None` if that is now.
        handlers: the handlers of the process that accepted it; `None` if they are not known.
        process: the process that adds it; `None` if it is not to be listed.
        headers: the headers of the request that are kept.
        traceparent: the trace context of the acceptance, as in W3C Trace Context; `None` if it is not traced.
    """

    event: Event
    tenant: str = ""
    webhook_id: str | None = None
    received_at: datetime | None = None
    handlers: HandlerSet | None = None
    process: Process | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    traceparent: str | None = None

    def __repr__(self) -> str:
        # Headers may contain secrets of the application.
        return f"NewEvent({self.event!r}, tenant={self.tenant!r})"


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Selects the due events that may be claimed, by patterns as in `on()`: `user.created`, `user.*` or `*`.

    Attributes:
        include: types that may be claimed; `None` for all.
        exclude: types that may not be claimed.
        ordered: types whose events about one object are claimed one after the other: an event is held back while an
            earlier event about its object is unfinished, or any other is leased. Events are ordered by creation time,
            and within a second by arrival.
        handlers: the handlers of the process that claims; `None` if they are not to be recorded.
        waiting: claim the events that wait for one of these handlers, whether they are due or not.
        process_id: the id of the process that claims, for the lease tokens; `None` if it is not listed. It selects
            nothing.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    handlers: HandlerSet | None = None
    waiting: bool = False
    # Not compared: statements are cached by what they select.
    process_id: str | None = field(default=None, compare=False)


ANY = ClaimFilter()
"""Every due event may be claimed, in any order."""


class Claim(msgspec.Struct, frozen=True):
    """An event that one worker holds for the length of a lease.

    Attributes:
        key: the primary key of the row.
        token: the token of the lease, without which no attempt can be settled.
        attempts: how many attempts have ended before this one.
        crashes: how many attempts have ended because the process died.
        progress: the handlers that will not run again.
        received_at: when the event was accepted, in UTC.
        history: the attempts that ended before this one, the newest last.
        last_error: the error of the last attempt, in one line.
        unreadable: why the stored row is unreadable, else `None`. No handler gets such an event; the attempt fails.
        owed: the handlers that earlier attempts have left, by name, and whether each has begun.
        accepted_set: the id of the handler set of the process that accepted the event; `None` if it is unknown.
        waits_for: the column of that name, which the settlement overwrites.
        waits_since: when the event began to wait for a handler; `None` if it did not wait.
        headers: the headers of the request that were kept.
        traceparent: the trace context of the acceptance; `None` if it was not traced.
    """

    key: int
    token: str
    event: Event
    received_at: datetime
    attempts: int = 0
    crashes: int = 0
    progress: Mapping[str, HandlerStatus] = msgspec.field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None
    history: tuple[Attempt, ...] = ()
    last_error: str | None = None
    unreadable: str | None = None
    owed: Mapping[str, bool] = msgspec.field(default_factory=dict)
    accepted_set: str | None = None
    waits_for: str | None = None
    waits_since: datetime | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    traceparent: str | None = None

    def __repr__(self) -> str:
        return f"Claim(key={self.key}, token={self.token!r}, event={self.event!r}, attempts={self.attempts})"

    @property
    def lease_key(self) -> tuple[int, str]:
        """Identifies the claim. The row's key alone does not: an event whose lease was lost may be claimed again."""
        return self.key, self.token


class Settlement(msgspec.Struct, frozen=True):
    """The end of an attempt, and of its lease.

    Attributes:
        status: the new status.
        attempts: how many attempts have now ended.
        progress: the handlers that will not run again.
        retry_in: seconds until the event is due again; `None` if it is finished.
        error: the error, in one line.
        seconds: how long the attempt took; `None` if there was no attempt, so that the history does not change.
        failures: the handlers that failed.
        scrub: delete the payload, because it is no longer needed.
        owed: the handlers that still have to run, and whether each has begun.
        waits_for: the handler that the event waits for; `None` if it does not wait.
        waits_since: when it began to wait for a handler; `None` if it does not wait.
        interrupted: the database interrupted the attempt, which is not counted in `attempts`.
    """

    status: Status
    attempts: int
    progress: Mapping[str, HandlerStatus] = msgspec.field(default_factory=dict)
    retry_in: float | None = None
    error: str | None = None
    seconds: float | None = None
    failures: tuple[Failure, ...] = ()
    scrub: bool = False
    owed: Mapping[str, bool] = msgspec.field(default_factory=dict)
    waits_for: str | None = None
    waits_since: datetime | None = None
    interrupted: bool = False


class InboxRecord(msgspec.Struct, frozen=True):
    """An event as the inbox stores it, for display. All times are in UTC.

    Attributes:
        attempts: how many attempts have ended.
        crashes: how many attempts have ended because the process died.
        next_attempt_at: when it is due, or when its lease ends; `None` if it is finished.
        settled_at: when the event was finished.
        last_error: the last error, in one line.
        history: the newest of the attempts that have ended, the newest last.
        scrubbed_at: when the payload was deleted; the event then has an empty object.
        unreadable: why the stored row is unreadable, else `None`. The event of an unreadable row has its id and type,
            and the stored bytes as its `body`; access to its `data.object` raises `InvalidPayloadError`. A status that
            this release does not know shows as `failed` if the event is still due at some time, else as `dead`.
        waits_for: the handler that it waits for, because no process at hand knows it; `None` if it does not wait.
        owed: the handlers that earlier attempts have left, by name, and whether each has begun.
        headers: the headers of the request that were kept.
        traceparent: the trace context of the acceptance, as in W3C Trace Context; `None` if it was not traced.
    """

    event: Event
    status: Status
    attempts: int
    crashes: int
    received_at: datetime
    next_attempt_at: datetime | None
    settled_at: datetime | None
    last_error: str | None
    progress: Mapping[str, HandlerStatus] = msgspec.field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None
    history: tuple[Attempt, ...] = ()
    scrubbed_at: datetime | None = None
    unreadable: str | None = None
    waits_for: str | None = None
    owed: Mapping[str, bool] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    traceparent: str | None = None

    @property
    def last_traceback(self) -> str | None:
        """The traceback of the last failure, shortened to its end and redacted."""
        failures = [failure for attempt in self.history for failure in attempt.failures]
        return failures[-1].traceback if failures else None


class InboxStats(msgspec.Struct, frozen=True):
    """The number of events by status, and the backlog.

    Attributes:
        by_status: the number of events in each status, for every status.
        overdue: seconds since the oldest due event became due; 0 if none is due.
        at_least: the states that have at least as many events as `by_status` says: counting ended there, at
            `COUNTED` events. Only processed and ignored events are counted so; with `exact=True` none are.
        rejected: the number of rejected deliveries that are kept. They are not events, and not in `total`.
        waiting: how many of the unfinished events wait for a process that knows a handler, by its name. Up to
            `MAX_AWAITED` handlers are named.
    """

    by_status: Mapping[Status, int]
    overdue: float
    at_least: frozenset[Status] = frozenset()
    rejected: int = 0
    waiting: Mapping[str, int] = msgspec.field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of events; a lower bound if `at_least` names a status."""
        return sum(self.by_status.values())


def stats_of(
    counts: Mapping[str, int],
    overdue: float,
    *,
    limit: int | None,
    rejected: int = 0,
    waiting: Mapping[str, int] | None = None,
) -> InboxStats:
    """Build the stats of an inbox from its counts.

    Args:
        counts: how many events are in each state. States that this release does not know are left out.
        overdue: see `InboxStats`.
        limit: up to how many events of each state in `COUNTED_IN_PART` were counted; `None` if all were.
        rejected: see `InboxStats`.
        waiting: see `InboxStats`.
    """
    by_status = {status: counts.get(status.value, 0) for status in Status}
    partly = () if limit is None else tuple(status for status in COUNTED_IN_PART if by_status[status] >= limit)
    return InboxStats(by_status, overdue, frozenset(partly), rejected, {} if waiting is None else waiting)


def is_applied(progress: Mapping[str, HandlerStatus]) -> bool:
    """Whether one of the handlers of an event succeeded."""
    return HandlerStatus.DONE in progress.values()


def completed_handlers(progress: Mapping[str, HandlerStatus]) -> dict[str, HandlerStatus]:
    """Return the progress that a requeued event keeps: handlers that have given up or were skipped run again."""
    kept = {HandlerStatus.DONE, HandlerStatus.DROPPED}
    return {handler: status for handler, status in progress.items() if status in kept}


def check_handler_names(drop_handlers: Collection[str]) -> None:
    """Check that the handlers to drop are given as a list and not as one name, of which each letter would be a name.

    Raises:
        ValueError: they are one name.
    """
    if isinstance(drop_handlers, str):
        raise ValueError(f"drop_handlers must be a list of handler names, got {drop_handlers!r}")


def requeuable_statuses(
    event_id: str | None,
    status: Status | str | None,
    type: str | None,
    object_id: str | None,
    drop_handlers: Collection[str] = (),
) -> frozenset[Status]:
    """Return the statuses that a call of `requeue` selects.

    Raises:
        ValueError: no event was named, a status that cannot be requeued, or `drop_handlers` is not a list.
    """
    check_handler_names(drop_handlers)
    if event_id is None and status is None and type is None and object_id is None and not drop_handlers:
        raise ValueError("name an event id, a status, a type, an object or a handler to drop")
    # An ignored event owes nothing, and there may be millions of them.
    requeuable = REQUEUABLE - {Status.IGNORED} if drop_handlers else REQUEUABLE
    if status is None:
        return requeuable
    if Status(status) not in REQUEUABLE:
        raise ValueError(f"{status} events cannot be requeued: only {', '.join(sorted(REQUEUABLE))}")
    return requeuable & {Status(status)}


def prunable_statuses(statuses: tuple[Status | str, ...]) -> frozenset[Status]:
    """Return the statuses that a call of `prune` selects.

    Raises:
        ValueError: a status is not final.
    """
    selected = frozenset(Status(status) for status in statuses)
    if not selected <= FINISHED:
        raise ValueError(f"only finished events are pruned: {', '.join(sorted(FINISHED))}")
    return selected
