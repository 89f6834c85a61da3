"""What an inbox must do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from envoyou_core.inbox.records import (
    ANY,
    Added,
    Claim,
    ClaimFilter,
    HandlerStatus,
    InboxRecord,
    InboxStats,
    NewEvent,
    Settlement,
    Status,
)

__all__ = ["AsyncTransactionalInbox", "Inbox", "TransactionalInbox"]


@runtime_checkable
class Inbox(Protocol):
    """A durable queue of events, which is also the memory of those that were handled.

    One column says when a row is next of interest: `due`, the time of the next attempt, or the end of the lease, or
    nothing. So claiming what is due is also what recovers the events of a worker that died.

    Every method blocks, but for `add`, and all are safe to call from any thread. The inbox has its own clock.

    Attributes:
        name: keeps several on one database apart.
        remote: whether a network lies between, whose database may be away for longer than a sender tries.
    """

    name: str
    remote: bool

    def open(self) -> None:
        """Make the inbox ready: idempotent; creates what may be created by itself.

        Raises:
            ConfigurationError: something is missing that only an operator may create.
        """

    def close(self) -> None:
        """Let go of connections and threads; the next use opens them again."""

    def add(self, entry: NewEvent) -> Future[Added]:
        """Store an event. When the future has a result, the event is on disk; a dead one is re-armed.

        One that was erased, or whose payload is gone, is a duplicate: it is not stored again.
        """

    def claim(self, limit: int, lease: float, claim_filter: ClaimFilter = ANY) -> list[Claim]:
        """Take up to `limit` due events for `lease` seconds, those that came due first, first.

        An event whose last holder let its lease run out counts one crash more, and has it in its history. An unreadable
        row is claimed like any other; see `Claim.unreadable`.
        """

    def renew(self, claims: list[Claim], lease: float) -> None:
        """Hold what is still held for `lease` seconds from now."""

    def record(self, claim: Claim, progress: Mapping[str, HandlerStatus]) -> bool:
        """Note which handlers will not run again, while the attempt goes on; false when the lease was lost."""

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false, and nothing is changed, when the lease was lost."""

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """End several attempts in one transaction: all of them, or where it raises, none. See `settle`."""

    def newest_applied(self, claim: Claim) -> int | None:
        """When the newest event about the claim's object that had an effect was created, in epoch seconds.

        Of all types, and pruned ones too; `None` where there is none, or the claim's event is about no object.
        """

    def seconds_until_due(self) -> float | None:
        """How long until the next event is due, zero or less when one is; `None` when none will be.

        One that is due may still be held back: by its order, or because it is paused.
        """

    def pause(self, subject: str) -> None:
        """Remember, for all processes, that `subject` is paused; idempotent. What that means is the workers' affair."""

    def resume(self, subject: str) -> None:
        """Forget that `subject` is paused; idempotent."""

    def paused(self) -> frozenset[str]:
        """The subjects that are paused."""

    def get(self, event_id: str, *, tenant: str | None = None) -> InboxRecord | None:
        """The record of an event; of the newest of that id, where `tenant` is not given."""

    def list(
        self,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
    ) -> list[InboxRecord]:
        """The newest records first: of one status, of one type, about one object if asked."""

    def stats(self, *, exact: bool = False) -> InboxStats:
        """Counts by status, and how far behind the workers are.

        Unfinished and dead events are always counted exactly. Processed and ignored ones are counted up to `COUNTED`
        each, which takes as long in a table of millions as in a small one; `exact=True` counts them all.
        """

    def requeue(
        self,
        event_id: str | None = None,
        *,
        status: Status | str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> int:
        """Bring failed, ignored and dead events back to `received`, with all attempts before them; returns how many.

        Name one by its id, or several by their status or type. Handlers that were done stay done. Events whose payload
        is gone stay as they are.

        Raises:
            ValueError: nothing was named, or a status that cannot be requeued.
        """

    def prune(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """Delete finished events that were settled longer ago than that, in small batches; returns how many.

        A redelivery of a pruned event is new again: keep them for longer than the sender resends. What `newest_applied`
        says stays as it is.

        Raises:
            ValueError: a status that is not a finished one.
        """

    def prune_watermarks(self, older_than: timedelta) -> int:
        """Forget of pruned events how new they were, where they were created longer ago than that; returns how many."""

    def scrub(
        self, older_than: timedelta, statuses: tuple[Status | str, ...] = (Status.PROCESSED, Status.IGNORED)
    ) -> int:
        """Delete the payloads of finished events that were settled longer ago than that, in small batches.

        The rest of the row stays, so that a redelivery is still a duplicate; what errors said is deleted too.

        Returns:
            How many had one.

        Raises:
            ValueError: a status that is not a finished one.
        """

    def erase(self, object_id: str, *, tenant: str | None = None) -> int:
        """Delete all payloads about an object, a person for instance, and what errors said; returns how many events.

        Finished events lose theirs at once, others as soon as they are finished; those are counted, too.
        """


@runtime_checkable
class TransactionalInbox(Inbox, Protocol):
    """An inbox whose transactions handlers may share, so that their work there is done exactly once."""

    def transaction(
        self, claim: Claim, progress: Mapping[str, HandlerStatus], settlement: Callable[[], Settlement] | None = None
    ) -> AbstractContextManager[object]:
        """A transaction, as what a handler gets for `connection`, that records `progress` at its end.

        With a `settlement`, which is asked for then, its end also ends the attempt. The event's row is touched only
        then, and only if the lease is still held.

        Raises:
            LeaseLostError: at its end, the lease was lost; the transaction is rolled back.
        """


@runtime_checkable
class AsyncTransactionalInbox(Inbox, Protocol):
    """An inbox whose transactions async handlers may share, on the event loop on which they run."""

    def async_transaction(
        self,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None = None,
        *,
        wants: Collection[str] = ("connection",),
    ) -> AbstractAsyncContextManager[Mapping[str, object]]:
        """See `TransactionalInbox.transaction`; it gives, by name, what a handler wants of `connection` and `session`.

        A cancellation that meets its commit waits for that.

        Raises:
            LeaseLostError: at its end, the lease was lost; the transaction is rolled back.
        """
