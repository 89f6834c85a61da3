"""What a worker does with its inbox: claims, leases, settlements and maintenance, in the contexts of the framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from envoyou_core.analytics.rollups import FOLDS
from envoyou_core.handlers import Handlers
from envoyou_core.inbox.processes import Presence
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement, Status
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.storage_notices import RetentionApplied
from envoyou_core.observability.worker_notices import Claimed, LeasesEnded
from envoyou_core.retention import Retention, RetentionReport, apply_retention, preview_retention
from envoyou_core.worker.claim_plan import RoundRobin, paused_patterns, plan_claims
from envoyou_core.worker.invocation import HandlerContext, enter_all
from envoyou_core.worker.known_handlers import KnownHandlers
from envoyou_core.worker.late_leases import RENEWALS, LateLeases
from envoyou_core.worker.pauses import Pauses
from envoyou_core.worker.recovery import Recovery

__all__ = ["InboxAccess", "returned"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxAccess:
    """The inbox, as the workers of a process use it.

    Attributes:
        inbox: the inbox to claim events from.
        handlers: the registered handlers.
        notices: receives the lifecycle notices.
        presence: what the inbox knows of this process.
        known_handlers: what this process knows of the handlers of others.
        recovery: ends the leases of processes that are gone.
        late_leases: the leases that the database's failure has kept from being renewed.
        lease: seconds for which a claim is held; a live worker renews it well before it expires.
        contexts: enter_all around each handler and each call of the inbox.
        thread_exit_hooks: called in each thread of a worker before it ends.
        retention: how long finished events are kept; `None` to keep them forever.
        clock: epoch seconds; the same clock as the inbox's.
        pauses: the cached pauses.
        claim_order: the order in which groups of events are claimed.
    """

    inbox: WorkerInbox
    handlers: Handlers
    notices: Notices
    presence: Presence
    known_handlers: KnownHandlers
    recovery: Recovery
    late_leases: LateLeases
    lease: float
    contexts: list[HandlerContext] = field(default_factory=list)
    thread_exit_hooks: list[Callable[[], object]] = field(default_factory=list)
    retention: Retention | None = None
    clock: Callable[[], float] = time.time
    pauses: Pauses = field(default_factory=Pauses)
    claim_order: RoundRobin = field(default_factory=RoundRobin)

    def in_context(self, function: Callable[[], Result]) -> Result:
        """Call `function` in the contexts that the framework needs."""
        with enter_all(self.contexts):
            return function()

    def run_thread_exit_hooks(self) -> None:
        """Release what frameworks keep for the calling thread, which is one of a worker's and about to end."""
        for hook in self.thread_exit_hooks:
            hook()

    def claim(self, free: int, in_flight: Sequence[Claim] = ()) -> list[Claim]:
        """Claim due events that may run now, given the pauses, their order and the limits of their handlers.

        Args:
            free: the largest number of events to claim.
            in_flight: the claims that the caller holds; they count against the limits.
        """
        return self._claim(free, in_flight, waiting=False)

    def claim_waiting(self, free: int, in_flight: Sequence[Claim] = ()) -> list[Claim]:
        """Claim events that wait for a handler of this process, like `claim`. It looks for them about once a second."""
        handlers = self.presence.handlers
        if not self.known_handlers.is_time_to_look(handlers):
            return []
        # Read before writing: an idle worker must not take SQLite's write lock.
        found = self.in_context(partial(self.inbox.has_waiting, handlers))
        claims = self._claim(free, in_flight, waiting=True) if found else []
        if not claims:
            self.known_handlers.found_none(handlers)
        return claims

    def _claim(self, free: int, in_flight: Sequence[Claim], *, waiting: bool) -> list[Claim]:
        if not self.notices.wants(Claimed):
            return self._claim_planned(free, in_flight, waiting=waiting)
        began = time.perf_counter()
        claims = self._claim_planned(free, in_flight, waiting=waiting)
        # An idle worker claims nothing about once a second.
        if claims:
            self.notices.emit(Claimed(self.inbox.name, len(claims), time.perf_counter() - began))
        return claims

    def _claim_planned(self, free: int, in_flight: Sequence[Claim], *, waiting: bool) -> list[Claim]:
        plan = plan_claims(tuple(self.handlers), self.paused_patterns(), in_flight, free, self.claim_order)
        # Listed before it holds leases, so that others can find out whether it is gone.
        self.ensure_listed()
        self._spare_late_leases()
        process = self.presence.process
        claims: list[Claim] = []
        try:
            request = next(plan)
            while True:
                selected = replace(request.filter, handlers=process.handlers, waiting=waiting, process_id=process.id)
                began = self.clock()
                claimed = self.in_context(partial(self.inbox.claim, request.limit, self.lease, selected))
                if claimed and self.clock() - began > self.lease / RENEWALS:
                    # The database has hung, and the leases began when it was asked.
                    self.renew(claimed)
                claims += claimed
                request = plan.send(claimed)
        except StopIteration:
            return claims
        except Exception:
            # The events claimed so far must run. If the error persists, the next call raises it.
            if not claims:
                raise
            return claims

    def _spare_late_leases(self) -> None:
        """Leave events to the live processes whose leases could not be renewed, this one among them."""
        self.late_leases.renew()
        if self.late_leases.may_have_expired:
            self.in_context(partial(self.inbox.extend_leases, self.lease / RENEWALS))
            self.late_leases.note_answer()

    def paused_patterns(self) -> tuple[str, ...]:
        """The patterns of the paused events. A pause set by another process is seen after a second."""
        subjects = self.pauses.known(lambda: self.in_context(self.inbox.paused))
        return paused_patterns(subjects, self.handlers)

    def beat(self) -> None:
        """List this process in the inbox as seen now."""
        process = self.presence.process
        self.in_context(partial(self.inbox.beat, process))
        self.presence.was_listed(process)

    def list_as_stopped(self) -> None:
        """List this process as one whose worker has stopped, unless it is not listed at all."""
        if (process := self.presence.stopped()) is not None:
            self.in_context(partial(self.inbox.beat, process))

    def ensure_listed(self) -> None:
        """List this process in the inbox, unless that was done recently."""
        if not self.presence.is_listed:
            self.beat()

    def recover(self) -> int:
        """End the leases of processes of this machine that are gone; returns how many leases."""
        ended, gone = self.in_context(self.recovery.run)
        if ended:
            pids = ", ".join(str(process.pid) for process in gone)
            self.notices.emit(LeasesEnded(self.inbox.name, ended, pids))
        return ended

    def seconds_until_due(self, later_than: float | None = None) -> float | None:
        """Seconds until the next event is due; `None` if none will be. See `WorkerInbox.seconds_until_due`."""
        if later_than is None:
            return self.in_context(self.inbox.seconds_until_due)
        return self.in_context(lambda: self.inbox.seconds_until_due(later_than=later_than))

    def seconds_until_runnable(self, later_than: float | None = None) -> float | None:
        """As `seconds_until_due`, but 0 if an event waits for a handler of this process; for a read of all events."""
        if later_than is None and self.in_context(lambda: self.inbox.has_waiting(self.presence.handlers)):
            # The workers of the task queue have the same handlers as this process, or soon will have.
            return 0.0
        return self.seconds_until_due(later_than)

    def renew(self, claims: list[Claim]) -> None:
        """Renew the leases of `claims`."""
        self.in_context(lambda: self.inbox.renew(claims, self.lease))

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false if the lease was lost."""
        return self.in_context(lambda: self.inbox.settle(claim, settlement))

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """End several attempts in one transaction; false for each whose lease was lost."""
        return self.in_context(lambda: self.inbox.settle_all(settlements))

    def return_to_inbox(self, claim: Claim, progress: Mapping[str, HandlerStatus], *, retry_in: float = 0.0) -> None:
        """Give up a claim whose attempt was not started or not finished; this counts as neither attempt nor crash.

        Args:
            claim: the claim.
            progress: the handlers that will not run again, including those of the interrupted attempt.
            retry_in: seconds until the event is due again.
        """
        self.settle(claim, returned(claim, progress, retry_in=retry_in))

    def preview_maintenance(self) -> RetentionReport:
        """Count what `run_maintenance` would delete."""
        retention = self.retention
        if retention is None:
            return RetentionReport()
        return self.in_context(lambda: preview_retention(retention, self.inbox))

    def run_maintenance(self) -> RetentionReport:
        """Delete what has been kept for long enough: see `Retention`.

        In any case, processes that are gone are deleted, and roll-ups are folded.
        """
        self.in_context(self.inbox.prune_processes)
        for step in FOLDS:
            self.in_context(partial(self.inbox.fold_rollups, step))
        retention = self.retention
        if retention is None:
            return RetentionReport()
        report = self.in_context(lambda: apply_retention(retention, self.inbox))
        if report != RetentionReport():
            deleted = (report.scrubbed, report.pruned, report.marks, report.rejected)
            self.notices.emit(RetentionApplied(self.inbox.name, *deleted))
        return report


def returned(claim: Claim, progress: Mapping[str, HandlerStatus], *, retry_in: float = 0.0) -> Settlement:
    """Return the settlement of a claim that is given up; see `InboxAccess.return_to_inbox`."""
    return Settlement(
        status=Status.FAILED if claim.attempts else Status.RECEIVED,
        attempts=claim.attempts,
        progress=progress,
        retry_in=retry_in,
        error=claim.last_error,
        owed=claim.owed,
        waits_since=claim.waits_since,
    )
