"""What goes into an inbox, what comes out of it, and the states in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum

from envoyou_core.event import Event
from envoyou_core.inbox.history import Attempt, Failure

__all__ = [
    "ANY",
    "COUNTED",
    "COUNTED_IN_PART",
    "FINISHED",
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
    "completed_handlers",
    "is_applied",
    "prunable_statuses",
    "requeuable_statuses",
    "stats_of",
]


class Status(StrEnum):
    """The state of an event in the inbox."""

    RECEIVED = "received"
    PROCESSING = "processing"
    PROCESSED = "processed"
    IGNORED = "ignored"
    FAILED = "failed"
    DEAD = "dead"


FINISHED = frozenset({Status.PROCESSED, Status.IGNORED, Status.DEAD})
"""The states in which nothing further happens by itself."""

COUNTED = 10_000
"""Events of one state, processed or ignored, up to which `stats` counts unless it has to be exact."""

COUNTED_IN_PART = (Status.PROCESSED, Status.IGNORED)
"""The states whose events pile up: counting all of them reads most of the table."""

REQUEUABLE = frozenset({Status.FAILED, Status.IGNORED, Status.DEAD})
"""The states that `requeue` brings back to `received`."""


class HandlerStatus(StrEnum):
    """What became of one handler of an event, where it will not run again."""

    DONE = "done"
    GIVEN_UP = "given_up"
    SKIPPED = "skipped"


class Added(Enum):
    """What `add` did: stored a new event, found it there already, or brought a dead one back.

    One that is `DIFFERENT` is there already by its id, with another body, which stays as it is.
    """

    NEW = "new"
    DUPLICATE = "duplicate"
    BODY_DIFFERS = "body_differs"
    REARMED = "rearmed"

    @property
    def is_runnable(self) -> bool:
        """Whether there is something to do now that was not there before."""
        return self in {Added.NEW, Added.REARMED}


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An accepted event on its way into the inbox. With the inbox's name, `tenant` and `event.id` are its key.

    Attributes:
        received_at: when it was accepted, where that was not now and here.
    """

    event: Event
    tenant: str = ""
    webhook_id: str | None = None
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Which due events may be claimed. Patterns are those of `on()`: `user.created`, `user.*` or `*`.

    Attributes:
        include: types that may be; `None` for all.
        exclude: types that may not be.
        ordered: types of which those about one object are claimed one after the other: an event is held back while an
            earlier one of its object is unfinished, or a later one is in work. Earlier is what was created before it,
            and within a second what arrived before it.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()


ANY = ClaimFilter()
"""Every due event may be claimed, in any order."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An event that one worker holds for the length of a lease.

    Attributes:
        key: what the inbox knows the row by.
        token: the lease; only its holder can settle.
        attempts: how many attempts have ended before this one.
        crashes: how many have ended because the process died.
        progress: the handlers that will not run again.
        received_at: when the event was accepted, in UTC.
        history: the attempts that ended before this one, the newest last.
        last_error: what went wrong in the last one, in one line.
        unreadable: why the stored row is unreadable, else `None`. No handler gets such an event; the attempt fails.
    """

    key: int
    token: str
    event: Event
    received_at: datetime
    attempts: int = 0
    crashes: int = 0
    progress: Mapping[str, HandlerStatus] = field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None
    history: tuple[Attempt, ...] = ()
    last_error: str | None = None
    unreadable: str | None = None

    @property
    def lease_key(self) -> tuple[int, str]:
        """Identifies the claim. The row's key alone does not: an event whose lease was lost may be claimed again."""
        return self.key, self.token


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a worker writes at the end of an attempt, giving up its lease.

    Attributes:
        status: the new state.
        attempts: how many attempts have now ended.
        progress: the handlers that will not run again.
        retry_in: seconds until it is due again; `None` when it is finished.
        error: what went wrong, in one line.
        seconds: how long the attempt took; `None` where there was none, and nothing is added to the history.
        failures: what went wrong, handler by handler.
        scrub: delete the payload, as it is no longer needed.
    """

    status: Status
    attempts: int
    progress: Mapping[str, HandlerStatus] = field(default_factory=dict)
    retry_in: float | None = None
    error: str | None = None
    seconds: float | None = None
    failures: tuple[Failure, ...] = ()
    scrub: bool = False


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """An event as the inbox holds it, for people to look at. All times are in UTC.

    Attributes:
        attempts: how many attempts have ended.
        crashes: how many of its workers died over it.
        next_attempt_at: when it is due, or when its worker's lease ends; `None` when it is finished.
        settled_at: when it was finished.
        last_error: what went wrong last, in one line.
        history: the attempts that have ended, the newest last; of many only the newest.
        scrubbed_at: when the payload was deleted; the event then has an empty object.
        unreadable: why the stored row is unreadable, else `None`. The event of an unreadable row has its id and type,
            and the stored bytes as its `body`; access to its `data.object` raises `InvalidPayloadError`. A status that
            this release does not know shows as `failed` if the event is still due at some time, else as `dead`.
    """

    event: Event
    status: Status
    attempts: int
    crashes: int
    received_at: datetime
    next_attempt_at: datetime | None
    settled_at: datetime | None
    last_error: str | None
    progress: Mapping[str, HandlerStatus] = field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None
    history: tuple[Attempt, ...] = ()
    scrubbed_at: datetime | None = None
    unreadable: str | None = None

    @property
    def last_traceback(self) -> str | None:
        """The traceback of what went wrong last, as text: cut to its end, and without what looks like a secret."""
        failures = [failure for attempt in self.history for failure in attempt.failures]
        return failures[-1].traceback if failures else None


@dataclass(frozen=True, slots=True)
class InboxStats:
    """Counts for a glance.

    Attributes:
        by_status: how many events are in each state; every state is named.
        overdue: seconds that the longest waiting due event has waited; 0 when none is due.
        at_least: the states that have at least as many events as `by_status` says: counting ended there, at
            `COUNTED` events. Only processed and ignored events are counted so; with `exact=True` none are.
    """

    by_status: Mapping[Status, int]
    overdue: float
    at_least: frozenset[Status] = frozenset()

    @property
    def total(self) -> int:
        """How many events there are; at least as many, if `at_least` names a state."""
        return sum(self.by_status.values())


def stats_of(counts: Mapping[str, int], overdue: float, *, limit: int | None) -> InboxStats:
    """The counts of an inbox.

    Args:
        counts: how many events are in each state. States that this release does not know are left out.
        overdue: see `InboxStats`.
        limit: up to how many events of each state in `COUNTED_IN_PART` were counted; `None` if all were.
    """
    by_status = {status: counts.get(status.value, 0) for status in Status}
    partly = () if limit is None else tuple(status for status in COUNTED_IN_PART if by_status[status] >= limit)
    return InboxStats(by_status, overdue, frozenset(partly))


def is_applied(progress: Mapping[str, HandlerStatus]) -> bool:
    """Whether an event has had an effect: one of its handlers succeeded."""
    return HandlerStatus.DONE in progress.values()


def completed_handlers(progress: Mapping[str, HandlerStatus]) -> dict[str, HandlerStatus]:
    """What a requeued event keeps of its progress: handlers that were given up get another chance."""
    return {name: became for name, became in progress.items() if became is HandlerStatus.DONE}


def requeuable_statuses(event_id: str | None, status: Status | str | None, type: str | None) -> frozenset[Status]:
    """The statuses that a call of `requeue` is about.

    Raises:
        ValueError: nothing was named, or a status that cannot be requeued.
    """
    if event_id is None and status is None and type is None:
        raise ValueError("name an event id, a status or a type to requeue")
    if status is None:
        return REQUEUABLE
    if Status(status) not in REQUEUABLE:
        raise ValueError(f"{status} events cannot be requeued: only {', '.join(sorted(REQUEUABLE))}")
    return frozenset({Status(status)})


def prunable_statuses(statuses: tuple[Status | str, ...]) -> frozenset[Status]:
    """The statuses that a call of `prune` is about.

    Raises:
        ValueError: one of them is not a finished one.
    """
    found = frozenset(Status(status) for status in statuses)
    if not found <= FINISHED:
        raise ValueError(f"only finished events are pruned: {', '.join(sorted(FINISHED))}")
    return found
