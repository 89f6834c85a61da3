"""The methods of an inbox: one half for users, one for the receiver, the relay of the spool and the workers."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from envoyou_core.inbox.records import ANY, Status

if TYPE_CHECKING:
    from envoyou_core.analytics.rollups import Fold, RollUp, Tally
    from envoyou_core.inbox.handler_sets import HandlerSet
    from envoyou_core.inbox.processes import Process
    from envoyou_core.inbox.records import (
        Added,
        Claim,
        ClaimFilter,
        HandlerStatus,
        InboxRecord,
        InboxStats,
        NewEvent,
        Settlement,
    )
    from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery

__all__ = ["AsyncTransactionalInbox", "Inbox", "TelemetryInbox", "TransactionalInbox", "WorkerInbox"]


@runtime_checkable
class Inbox(Protocol):
    """The inbox as users have it in `webhooks.inbox`: to look at events, requeue them and delete their data.

    Every method blocks, and all are safe to call from any thread.

    Attributes:
        name: separates several inboxes in one database.
    """

    name: str

    def open(self) -> None:
        """Prepare the inbox for use; idempotent. Creates what may be created without an operator.

        Raises:
            ConfigurationError: something is missing that only an operator may create.
        """

    def close(self) -> None:
        """Release connections and threads; the next use opens them again."""

    def processes(self) -> list[Process]:
        """Return the processes that have used the inbox within the last two days, the last seen first."""

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """Return the record of an event, or `None`. Without a `tenant`, the newest event with that id counts."""

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> list[InboxRecord]:
        """Return up to `limit` records, newest first, optionally of one status, some types or one object.

        Args:
            status: only events with this status.
            type: only events whose type matches this pattern, as in `on()`: `user.created`, `user.*` or `*`.
            object_id: only events about the object with this id.
            limit: the maximum number of records.

        Raises:
            ValueError: the status is unknown, or the pattern is invalid.
        """

    def stats(self, *, exact: bool = False) -> InboxStats:
        """Return the number of events by status, and how far behind the workers are.

        Unfinished and dead events are always counted exactly. Processed and ignored events are counted up to `COUNTED`
        each, which takes as long in a table of millions as in a small one; `exact=True` counts all of them.
        """

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        tenant: str | None = None,
        dry_run: bool = False,
        on_progress: Callable[[int], object] | None = None,
        drop_handlers: Collection[str] = (),
    ) -> int:
        """Return failed, ignored and dead events to `received`, with all attempts before them, in small batches.

        Name one event by its id, or several by their status, type or object. Handlers that succeeded do not run again.
        Unless a status is named, events that wait for a handler become due as well. Events whose payload was deleted
        stay as they are.

        Args:
            event_id: only the event with this id.
            status: only events with this status.
            type: only events whose type matches this pattern, as in `on()`: `user.created`, `user.*` or `*`.
            object_id: only events about the object with this id.
            tenant: only events of this tenant.
            dry_run: only count the events.
            on_progress: called after each batch with the number of events that are requeued by then.
            drop_handlers: names of handlers that will not run for these events, in no process and not after another
                `requeue` either: for one that was removed while events still owe it. Only events that owe one of them
                are requeued, so a name that no event owes changes nothing. Without another argument, all events that
                owe one are requeued.

        Returns:
            The number of requeued events.

        Raises:
            ValueError: no event was named, a status that cannot be requeued, an invalid pattern, or `drop_handlers` is
                not a list.
        """

    def prune(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        """Delete finished events that were settled longer ago than `older_than`, in small batches.

        A redelivery of a pruned event is a new event, so keep events for longer than the sender retries. The value of
        `newest_applied` does not change. With `dry_run`, the events are only counted.

        Returns:
            The number of deleted events.

        Raises:
            ValueError: a status is not final.
        """

    def scrub(
        self,
        older_than: timedelta,
        statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED),
        *,
        dry_run: bool = False,
    ) -> int:
        """Delete the payloads of finished events that were settled longer ago than `older_than`, in small batches.

        The rest of the row stays, so that a redelivery is still a duplicate. The error texts are deleted as well. With
        `dry_run`, the payloads are only counted.

        Returns:
            The number of deleted payloads.

        Raises:
            ValueError: a status is not final.
        """

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        """Delete all payloads about an object, such as a person, and the error texts.

        Finished events lose their payload at once, unfinished ones as soon as they are finished. Rejected deliveries
        about the object are deleted, as far as the inbox could read what they are about.

        Returns:
            The number of events, including the unfinished ones. Rejected deliveries are not counted.
        """

    def list_rejected(self, *, limit: int = 100) -> builtins.list[RejectedDelivery]:
        """Return up to `limit` rejected deliveries with their bodies, newest first.

        These are genuine deliveries that were answered 400, for example because their payload has a new shape. The
        newest 1,000 are kept, up to 64 MiB, each body once. Users call `webhooks.retry_rejected` to retry one.
        """

    def get_rejected(self, key: int) -> RejectedDelivery | None:
        """Return a rejected delivery, or `None`."""

    def prune_rejected(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        """Delete the rejected deliveries that were received longer ago than `older_than`, or only count them.

        Returns:
            The number of deleted deliveries.
        """

    def pause(self, subject: str) -> None:
        """Record for all processes that `subject` is paused; idempotent. Users call `webhooks.pause`."""

    def resume(self, subject: str) -> None:
        """Record that `subject` is not paused any more; idempotent. Users call `webhooks.resume`."""

    def paused(self) -> frozenset[str]:
        """Return the paused subjects."""


@runtime_checkable
class TelemetryInbox(Protocol):
    """The half of an inbox that holds what was counted, and the states of alerts."""

    def add_rollups(self, rollups: Sequence[RollUp]) -> None:
        """Add counts to those of the same periods and keys, in one statement for all of them."""

    def sum_rollups(self, since: datetime, until: datetime) -> builtins.list[Tally]:
        """Add up the roll-ups whose periods overlap with a window, by key; the result is sorted by it."""

    def fold_rollups(self, step: Fold) -> int:
        """Move the roll-ups that are old enough into those of a longer period, or delete them; returns how many."""

    def alert_states(self) -> dict[str, str]:
        """Return the states of the alerts as they were stored, by scope."""

    def claim_alerts(self, token: str, lease: float, scope: str = "") -> str | None:
        """Claim the evaluation of the alerts if it is due, for `lease` seconds.

        Args:
            token: a random text.
            lease: seconds.
            scope: up to 16 characters that keep several evaluations apart: each machine has one of its own.

        Returns:
            The states that were stored last, at first an empty text; `None` if the evaluation is not due, or another
            process has claimed it.
        """

    def store_alerts(self, token: str, states: str, due_in: float, scope: str = "") -> bool:
        """Store the states of the alerts, if the claim is still held; returns whether it is.

        Args:
            token: that of the claim.
            states: the new states.
            due_in: seconds until the next evaluation is due.
            scope: that of the claim.
        """


@runtime_checkable
class WorkerInbox(Inbox, TelemetryInbox, Protocol):
    """A complete inbox: the users' half, and what the receiver, the relay of the spool and the workers need.

    It is a durable queue that also remembers the events that were handled. `due_at` alone decides when a row is next
    claimed: it is the time of the next attempt, the end of the lease, or nothing. So a claim of due events also
    recovers the events of a worker that died.

    Every method but `add` blocks, and all are safe to call from any thread. The inbox has a clock of its own. The rules
    for changes are those of `envoyou_core.inbox.transitions`.

    Attributes:
        remote: whether the database is reached over a network, and so may be down for longer than a sender retries.
    """

    remote: bool

    def add(self, entry: NewEvent) -> Future[Added]:
        """Store an event. When the future has a result, the event is on disk; a dead event is requeued.

        The handler set of the entry is stored before a row refers to it, and its process is listed. An event that was
        erased, or whose payload was deleted, is a duplicate and is not stored again.
        """

    def keep_rejected(self, rejection: NewRejection) -> Future[int]:
        """Keep a rejected delivery, unless its body is kept already, and delete the oldest if there are too many.

        When the future has a result, the delivery is on disk. The result is the number of those that were deleted. The
        rules are those of `envoyou_core.inbox.rejected`.
        """

    def accept_rejected(self, key: int, entry: NewEvent) -> Added:
        """Store the event of a rejected delivery, as `add` does, and delete the delivery, in one transaction.

        The delivery may have been deleted meanwhile, because another process has retried it.
        """

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        """Lease up to `limit` due events for `lease` seconds, in the order in which they became due.

        If the lease of an event had expired, a crash is counted and recorded in its history, and the event owes all
        handlers of the process that had the lease. An unreadable row is claimed like any other; see `Claim.unreadable`.
        The handler set of the filter is stored before a row refers to it. The tokens of the leases name its process;
        see `envoyou_core.inbox.lease_tokens`.
        """

    def beat(self, process: Process) -> None:
        """List a process as seen now, and store its handler set."""

    def lease_holders(self) -> builtins.list[Process]:
        """Return the listed processes that hold leases which have not expired. It only reads."""
        return []

    def end_leases(self, process_ids: Collection[str]) -> int:
        """End the leases of processes that are gone: the next claim takes their events over, as from expired leases.

        Returns:
            The number of leases.
        """
        return 0

    def extend_leases(self, seconds: float) -> int:
        """Let the leases that have expired expire `seconds` from now: an outage may have kept them from being renewed.

        Returns:
            The number of leases.
        """
        return 0

    def uncount_crash(self, claim: Claim) -> bool:
        """Take back a crash that was counted because the lease of `claim` had expired: its process lives.

        Returns:
            Whether a crash was counted since the claim.
        """
        return False

    def handler_sets(self, ids: Collection[str]) -> dict[str, HandlerSet]:
        """Return the stored handler sets with these ids; one that is not stored is left out."""

    def has_waiting(self, handlers: HandlerSet | None = None) -> bool:
        """Whether an event waits for one of these handlers, or for any if none are given. It only reads."""

    def prune_processes(self) -> int:
        """Delete the processes that have not been seen for long, and the handler sets that nothing refers to any more.

        Returns:
            The number of processes.
        """

    def renew(self, claims: list[Claim], lease: float) -> None:
        """Extend the leases that are still held to `lease` seconds from now."""

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        """Store during the attempt which handlers will not run again; returns false if the lease was lost."""

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; returns false, without a change, if the lease was lost."""

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """End several attempts in one transaction, which changes nothing if it raises. See `settle`."""

    def newest_applied(self, claim: Claim) -> int | None:
        """Return the creation time, in epoch seconds, of the newest event about the claim's object that had an effect.

        Events of all types count, pruned ones as well. The result is `None` if there is no such event, or if the
        claim's event is not about an object.
        """

    def seconds_until_due(self, *, later_than: float | None = None) -> float | None:
        """Return the seconds until the next event is due, zero or less if one is due, `None` if none will be.

        A due event may still be held back by the order of its object, or be paused.

        Args:
            later_than: only events that are due later than so many seconds from now count; if negative, also those that
                have become due in that many seconds. By default, all events count.
        """

    def connection_shortage(self) -> str:
        """Describe that no connection is free, for the log of a delivery that was not stored; empty if that is not so.

        It must not block.
        """
        return ""

    def connection_limit(self) -> int | None:
        """Return how many connections the server admits for the inbox's role and database; `None` for any number."""
        return None

    def responds(self) -> bool:
        """Whether the database answers on a fresh connection now. It decides what an error of the database means."""
        return True

    def prune_watermarks(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        """Delete what `newest_applied` knows of pruned events that were created longer ago than `older_than`.

        With `dry_run`, it is only counted.

        Returns:
            The number of objects.
        """


@runtime_checkable
class TransactionalInbox(WorkerInbox, Protocol):
    """An inbox whose transactions handlers may share, so that their work in them is done exactly once."""

    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> AbstractContextManager[object]:
        """Open a transaction that records `progress` at its end; it gives the `connection` of a handler.

        With a `settlement`, which is called at the end, the transaction also ends the attempt. It locks the event's
        row only then, and commits only if the lease is still held.

        Raises:
            LeaseLostError: the lease was lost; the transaction is rolled back.
        """


@runtime_checkable
class AsyncTransactionalInbox(WorkerInbox, Protocol):
    """An inbox whose transactions async handlers may share, on the event loop on which they run."""

    def async_transaction(
        self,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None = None,
        *,
        wants: Collection[str] = ("connection",),
    ) -> AbstractAsyncContextManager[Mapping[str, object]]:
        """See `TransactionalInbox.transaction`; it gives `connection` and `session` by name, if named in `wants`.

        A cancellation during the commit takes effect after the commit.

        Raises:
            LeaseLostError: the lease was lost; the transaction is rolled back.
        """
