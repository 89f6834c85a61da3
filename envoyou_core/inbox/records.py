"""What goes into an inbox, what comes out of it, and the states in between."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Protocol, runtime_checkable

from envoyou_core.event import Event

__all__ = [
    "FINISHED",
    "REQUEUABLE",
    "Added",
    "Claim",
    "Entry",
    "Inbox",
    "InboxRecord",
    "InboxStats",
    "Progress",
    "Settlement",
    "Status",
    "TransactionalInbox",
    "prunable_statuses",
    "requeuable_statuses",
    "unfinished_progress",
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

REQUEUABLE = frozenset({Status.FAILED, Status.IGNORED, Status.DEAD})
"""The states that `requeue` brings back to `received`."""


class Progress(StrEnum):
    """What became of one handler of an event, where it will not run again."""

    DONE = "done"
    GIVEN_UP = "given_up"


class Added(Enum):
    """What `add` did: stored a new event, found it there already, or brought a dead one back."""

    NEW = "new"
    DUPLICATE = "duplicate"
    REARMED = "rearmed"


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted event on its way into the inbox. With the inbox's name, `tenant` and `event.id` are its key."""

    event: Event
    tenant: str = ""
    webhook_id: str | None = None


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
    """

    key: int
    token: str
    event: Event
    received_at: datetime
    attempts: int = 0
    crashes: int = 0
    progress: Mapping[str, Progress] = field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a worker writes at the end of an attempt, giving up its lease.

    Attributes:
        status: the new state.
        attempts: how many attempts have now ended.
        progress: the handlers that will not run again.
        retry_in: seconds until it is due again; `None` when it is finished.
        error: what went wrong, in one line.
    """

    status: Status
    attempts: int
    progress: Mapping[str, Progress] = field(default_factory=dict)
    retry_in: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """An event as the inbox holds it, for people to look at. All times are in UTC.

    Attributes:
        attempts: how many attempts have ended.
        crashes: how many of its workers died over it.
        next_attempt_at: when it is due, or when its worker's lease ends; `None` when it is finished.
        settled_at: when it was finished.
        last_error: what went wrong last, in one line.
    """

    event: Event
    status: Status
    attempts: int
    crashes: int
    received_at: datetime
    next_attempt_at: datetime | None
    settled_at: datetime | None
    last_error: str | None
    progress: Mapping[str, Progress] = field(default_factory=dict)
    tenant: str = ""
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True)
class InboxStats:
    """Counts for a glance.

    Attributes:
        by_status: how many events are in each state; every state is named.
        overdue: seconds that the longest waiting due event has waited; 0 when none is due.
    """

    by_status: Mapping[Status, int]
    overdue: float

    @property
    def total(self) -> int:
        """How many events there are."""
        return sum(self.by_status.values())


@runtime_checkable
class Inbox(Protocol):
    """A durable queue of events, which is also the memory of those that were handled.

    One column says when a row is next of interest: `due`, the time of the next attempt, or the end of the lease, or
    nothing. So claiming what is due is also what recovers the events of a worker that died.

    Every method blocks, but for `add`, and all are safe to call from any thread. The inbox has its own clock.
    """

    name: str

    def open(self) -> None:
        """Make the inbox ready: idempotent; creates what may be created by itself.

        Raises:
            ConfigurationError: something is missing that only an operator may create.
        """

    def close(self) -> None:
        """Let go of connections and threads; the next use opens them again."""

    def add(self, entry: Entry) -> Future[Added]:
        """Store an event. When the future has a result, the event is on disk; a dead one is re-armed."""

    def claim(self, limit: int, lease: float) -> list[Claim]:
        """Take up to `limit` due events for `lease` seconds, those that came due first, first.

        An event whose last holder let its lease run out counts one crash more.
        """

    def renew(self, claims: list[Claim], lease: float) -> None:
        """Hold what is still held for `lease` seconds from now."""

    def record(self, claim: Claim, progress: Mapping[str, Progress]) -> bool:
        """Note which handlers will not run again, while the attempt goes on; false when the lease was lost."""

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false, and nothing is changed, when the lease was lost."""

    def seconds_until_due(self) -> float | None:
        """How long until the next event is due, zero or less when one is; `None` when none will be."""

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """The record of an event; of the newest of that id, where `tenant` is not given."""

    def list(
        self, *, status: Status | str | None = None, type: str | None = None, limit: int = 100
    ) -> list[InboxRecord]:
        """The newest records first, of one status or type if asked."""

    def stats(self) -> InboxStats:
        """Counts by status, and how far behind the workers are."""

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> int:
        """Bring failed, ignored and dead events back to `received`, with all attempts before them; returns how many.

        Name one by its id, or several by their status or type. Handlers that were done stay done.

        Raises:
            ValueError: nothing was named, or a status that cannot be requeued.
        """

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """Delete finished events that were settled longer ago than that; returns how many.

        A redelivery of a pruned event is new again: keep them for longer than the sender resends.

        Raises:
            ValueError: a status that is not a finished one.
        """


@runtime_checkable
class TransactionalInbox(Inbox, Protocol):
    """An inbox whose transactions handlers may share, so that their work there is done exactly once."""

    def transaction(self, claim: Claim, progress: Mapping[str, Progress]) -> AbstractContextManager[object]:
        """A transaction, as what a handler gets for `connection`, that records `progress` at its end.

        The event's row is touched only then, and only if the lease is still held.

        Raises:
            LeaseLostError: at its end, the lease was lost; the transaction is rolled back.
        """


def unfinished_progress(progress: Mapping[str, Progress]) -> dict[str, Progress]:
    """What a requeued event keeps of its progress: handlers that were given up get another chance."""
    return {name: became for name, became in progress.items() if became is Progress.DONE}


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
