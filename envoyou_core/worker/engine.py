"""One attempt at one event: run the handlers that have not succeeded, then settle.

The flow is written once; `run` and `arun` of `envoyou_core.steps` do its steps in a thread or on an event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from envoyou_core.analytics.rollups import FOLDS
from envoyou_core.errors import ConfigurationError, LeaseLostError, RetryLater
from envoyou_core.handler import Handler
from envoyou_core.handlers import Handlers
from envoyou_core.hooks import Hooks
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.owed import OwedElsewhere, owed_to_others
from envoyou_core.inbox.processes import Presence
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement, Status
from envoyou_core.inbox.transitions import interruptions
from envoyou_core.observability.attempt_notices import (
    DatabaseFailed,
    HandlerAwaited,
    HandlerDropped,
    HandlerFailed,
    HandlerPostponed,
    HandlerSkipped,
    HandlerSucceeded,
    HookFailed,
    LeaseLost,
    Settled,
)
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.storage_notices import RetentionApplied
from envoyou_core.observability.worker_notices import Claimed, LeasesEnded
from envoyou_core.providers import check_providers
from envoyou_core.retention import Retention, RetentionReport, apply_retention, preview_retention
from envoyou_core.retry import RetryPolicy
from envoyou_core.steps import Call, Flow
from envoyou_core.worker.attempt import RunningAttempt
from envoyou_core.worker.backoff import OutageBackoff, delay_after_interruption
from envoyou_core.worker.claim_plan import RoundRobin, paused_patterns, plan_claims
from envoyou_core.worker.failures import private_texts, traceback_of
from envoyou_core.worker.invocation import HandlerContext, Invocation, Stage, enter_all, hook_step
from envoyou_core.worker.known_handlers import KnownHandlers
from envoyou_core.worker.pauses import Pauses
from envoyou_core.worker.recovery import Recovery

__all__ = ["Engine"]

Result = TypeVar("Result")

SUSPECT_AFTER = 2
"""Crashes after which an event may be the cause. A single crash hits every event that is in flight at a deploy."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs claimed events through their handlers.

    Attributes:
        inbox: the inbox to claim events from.
        handlers: the registered handlers.
        retry: when to retry a failed event.
        notices: receives the lifecycle notices.
        presence: what the inbox knows of this process.
        known_handlers: what this process knows of the handlers of others.
        recovery: ends the leases of processes that are gone.
        lease: seconds for which a claim is held; a live worker renews it well before it expires.
        contexts: enter_all around each handler and each call of the inbox.
        hooks: called around handlers, and when an event is dead.
        thread_exit_hooks: called in each thread of a worker before it ends.
        handler_wait: seconds for which an event may wait for a process that knows a handler.
        retention: how long finished events are kept; `None` to keep them forever.
        clock: epoch seconds; the same clock as the inbox's.
        pauses: the cached pauses.
        claim_order: the order in which groups of events are claimed.
        outages: the delays of events while the database fails.
    """

    inbox: WorkerInbox
    handlers: Handlers
    retry: RetryPolicy
    notices: Notices
    presence: Presence
    known_handlers: KnownHandlers
    recovery: Recovery
    lease: float
    contexts: list[HandlerContext] = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    thread_exit_hooks: list[Callable[[], object]] = field(default_factory=list)
    handler_wait: float = 86_400.0
    retention: Retention | None = None
    clock: Callable[[], float] = time.time
    pauses: Pauses = field(default_factory=Pauses)
    claim_order: RoundRobin = field(default_factory=RoundRobin)
    outages: OutageBackoff = field(default_factory=OutageBackoff)

    @property
    def has_handlers(self) -> bool:
        """Whether a handler is registered. Without one nothing is claimed, and so nothing is set aside as ignored."""
        return len(self.handlers) > 0

    def check_handlers(self) -> None:
        """Check that a handler is registered.

        Raises:
            ConfigurationError: none is.
        """
        if not self.has_handlers:
            raise ConfigurationError(
                f"no handler is registered for {self.inbox.name!r}, so no event can be handled: the module that "
                "registers the handlers may not be imported"
            )

    def check_providers(self) -> None:
        """Check that the parameters of all handlers are provided.

        Raises:
            ConfigurationError: one is not.
        """
        check_providers(self.handlers, self.hooks.provider)

    def is_sync(self, claim: Claim) -> bool:
        """Whether all handlers of the event are sync."""
        return not any(handler.is_async for handler in self.handlers.matching(claim.event.type))

    def is_poison_suspect(self, claim: Claim) -> bool:
        """Whether the event was in flight at so many crashes that it must not run beside other suspects.

        Events that are in flight together at a crash are claimed together again. If one of them kills its process, the
        others would die of its crashes as well.
        """
        return 0 < min(SUSPECT_AFTER, self.retry.max_crashes - 1) <= claim.crashes < self.retry.max_crashes

    # The inbox, in the framework's contexts

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
        process = self.presence.process
        claims: list[Claim] = []
        try:
            request = next(plan)
            while True:
                selected = replace(request.filter, handlers=process.handlers, waiting=waiting, process_id=process.id)
                claimed = self.in_context(partial(self.inbox.claim, request.limit, self.lease, selected))
                claims += claimed
                request = plan.send(claimed)
        except StopIteration:
            return claims
        except Exception:
            # The events claimed so far must run. If the error persists, the next call raises it.
            if not claims:
                raise
            return claims

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
        settlement = Settlement(
            status=Status.FAILED if claim.attempts else Status.RECEIVED,
            attempts=claim.attempts,
            progress=progress,
            retry_in=retry_in,
            error=claim.last_error,
            owed=claim.owed,
            waits_since=claim.waits_since,
        )
        self.settle(claim, settlement)

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

    # One attempt

    def new_attempt(self, claim: Claim) -> RunningAttempt:
        """Return the attempt that `run_handlers` will make at a claimed event."""
        scrub = self.retention is not None and self.retention.scrub_processed
        handlers = self.handlers.matching(claim.event.type)
        return RunningAttempt(claim, handlers, self.retry, scrub, handler_wait=self.handler_wait)

    def run_handlers(self, attempt: RunningAttempt) -> Flow[None]:
        """Run the handlers that have not succeeded yet. Sets `attempt.settlement` unless the lease was lost."""
        claim = attempt.claim
        if claim.crashes >= self.retry.max_crashes:
            attempt.settle_crashed()
        elif claim.unreadable is not None:
            attempt.settle_unreadable(claim.unreadable)
        else:
            yield from self._find_others(attempt)
            if not attempt.handlers:
                attempt.settle_without_handlers()
                return
            try:
                yield from self._run_unfinished(attempt)
            except LeaseLostError:
                attempt.settlement = None

    def _find_others(self, attempt: RunningAttempt) -> Flow[None]:
        """Find out which owed handlers this process does not know. Normally this reads nothing."""
        claim, accepted = attempt.claim, None
        if claim.accepted_set not in {None, self.presence.handlers.id}:
            accepted = yield self._inbox_call(partial(self.known_handlers.set_of, claim.accepted_set))
        if attempt.handlers and accepted is None and not claim.owed:
            return
        if accepted is not None:
            attempt.mention(accepted.matching(claim.event.type))
        known = {name for handler in attempt.handlers for name in handler.all_names}
        others = owed_to_others(claim.owed, claim.event.type, claim.progress, accepted, known)
        would_be_ignored = not (attempt.handlers or others or claim.progress)
        held: dict[str, float] = {}
        if would_be_ignored or not all(others.values()) or len(others) > 1:
            held = yield self._inbox_call(partial(self.known_handlers.held, claim.event.type))
        if would_be_ignored:
            others = dict.fromkeys(held, False)
        if others:
            attempt.elsewhere = OwedElsewhere(others, held, datetime.fromtimestamp(self.clock(), UTC))
            self._report_dropped(claim, attempt.elsewhere)

    def _report_dropped(self, claim: Claim, elsewhere: OwedElsewhere) -> None:
        for name in sorted(elsewhere.owed.keys() - elsewhere.binding.keys()):
            if self.known_handlers.is_new("dropped", name):
                self.notices.emit(HandlerDropped(name, claim.event.id, claim.event.type))

    def report(self, attempt: RunningAttempt, held: bool) -> Flow[None]:
        """Emit the notice of a settled attempt, and call the hooks if the event is dead.

        Args:
            attempt: the attempt.
            held: whether the lease was still held when the attempt was settled.
        """
        event, settlement = attempt.claim.event, attempt.settlement
        if settlement is None or not held:
            self.notices.emit(LeaseLost(event.id, event.type, **_origin(attempt.claim)))
            return
        if attempt.is_interrupted:
            return
        if settlement.waits_for is not None:
            if self.known_handlers.is_new("awaited", settlement.waits_for):
                self.notices.emit(HandlerAwaited(settlement.waits_for, event.id, event.type))
            return
        self.notices.emit(
            Settled(
                event_id=event.id,
                event_type=event.type,
                status=settlement.status,
                attempt=settlement.attempts,
                retry_in=settlement.retry_in,
                error=settlement.error,
                seconds=time.monotonic() - attempt.began,
                exception=attempt.errors[-1] if attempt.errors else None,
                traceback=settlement.failures[-1].traceback if settlement.failures else "",
                is_postponed=settlement.status is Status.FAILED and attempt.is_only_postponed,
                is_reported=bool(attempt.errors) and not attempt.is_fatal,
                created=event.created,
                received_at=attempt.claim.received_at.timestamp(),
                settled_at=self.clock(),
                body_size=len(event.body),
                handler=settlement.failures[-1].handler if settlement.failures else None,
                **_origin(attempt.claim),
            )
        )
        if settlement.status is Status.DEAD:
            yield from self._call_dead_hooks(attempt.claim, settlement)

    def _call_dead_hooks(self, claim: Claim, settlement: Settlement) -> Flow[None]:
        for hook in self.hooks.dead:
            try:
                yield hook_step(hook, self.contexts, claim.event, settlement.error)
            except Exception as error:
                name = getattr(hook, "__qualname__", type(hook).__qualname__)
                traceback = traceback_of(error, private=private_texts(claim.event), from_caller=True)
                self.notices.emit(HookFailed(name, claim.event.id, error, traceback))

    def _run_unfinished(self, attempt: RunningAttempt) -> Flow[None]:
        unfinished = attempt.unfinished()
        for handler in unfinished:
            if handler.stale == "skip" and (yield from self._is_stale(attempt)):
                attempt.skip(handler)
                claim = attempt.claim
                skipped = HandlerSkipped(claim.event.id, claim.event.type, handler.name, **_origin(claim))
                self.notices.emit(skipped)
                continue
            is_last = handler is unfinished[-1]
            yield from self._run_handler(attempt, handler, is_last=is_last)
            if attempt.is_settled or attempt.is_interrupted:
                return
            # The settlement records the last handler.
            if not is_last and not attempt.is_recorded:
                yield from self._record(attempt)
        attempt.settle()

    def _is_stale(self, attempt: RunningAttempt) -> Flow[bool]:
        if attempt.is_stale is None:
            newest: int | None = yield self._inbox_call(partial(self.inbox.newest_applied, attempt.claim))
            attempt.is_stale = newest is not None and attempt.claim.event.created < newest
        return attempt.is_stale

    def _run_handler(self, attempt: RunningAttempt, handler: Handler, *, is_last: bool) -> Flow[None]:
        claim, done = attempt.claim, attempt.with_done(handler)
        attempt.begun.add(handler.name)
        settle = None
        if is_last and handler.shares_transaction and not attempt.has_failures:
            settle = partial(attempt.settle, done)
        invocation = Invocation(handler, claim, self.inbox, self.contexts, done, self.hooks, settle)
        error: Exception | None = None
        began = time.perf_counter()
        try:
            yield invocation.step()
        except LeaseLostError:
            raise
        except Exception as raised:
            error = raised
        if error is None or (invocation.stage is Stage.ENDING and (yield from self._has_committed(claim, handler))):
            attempt.succeed(handler)
            self.outages.reset()
            if self.notices.wants(HandlerSucceeded):
                seconds = time.perf_counter() - began
                details = (claim.event.id, claim.event.type, handler.name, attempt.number, seconds)
                self.notices.emit(HandlerSucceeded(*details, **_origin(claim)))
            return
        seconds = time.perf_counter() - began
        if (yield from self._is_interrupted(attempt, invocation, error, seconds)):
            return
        failure = attempt.fail(handler, error)
        if isinstance(error, RetryLater) and attempt.will_retry(handler):
            postponed = HandlerPostponed(
                event_id=claim.event.id,
                event_type=claim.event.type,
                handler=handler.name,
                attempt=attempt.number,
                retry_in=error.seconds,
                reason=failure.error,
                seconds=seconds,
                **_origin(claim),
            )
            self.notices.emit(postponed)
            return
        attempt.is_fatal = is_last and attempt.settle().status is Status.DEAD
        self.notices.emit(
            HandlerFailed(
                event_id=claim.event.id,
                event_type=claim.event.type,
                handler=handler.name,
                attempt=attempt.number,
                error=error,
                traceback=failure.traceback,
                is_fatal=attempt.is_fatal,
                message=failure.error,
                seconds=seconds,
                **_origin(claim),
            )
        )

    def _is_interrupted(
        self, attempt: RunningAttempt, invocation: Invocation, error: Exception, seconds: float
    ) -> Flow[bool]:
        """Whether the database has failed and not the handler, so that the attempt ends without being counted."""
        is_failure = invocation.is_database_failure(error)
        if not is_failure and invocation.stage is not Stage.OPENING:
            return False
        claim, handler = attempt.claim, invocation.handler
        is_counted = False
        # If the database refuses the transaction, the handler was not called and cannot be the reason.
        if invocation.stage is not Stage.OPENING or not is_failure:
            is_counted = yield self._inbox_call(self.inbox.responds)
        number = interruptions(claim.history) + 1
        if is_counted and number > self.retry.max_interruptions:
            return False
        if invocation.stage is Stage.OPENING:
            attempt.begun.discard(handler.name)
        delay = delay_after_interruption(number - 1) if is_counted else self.outages.next()
        settlement = attempt.interrupt(handler, error, delay, is_counted=is_counted)
        self.notices.emit(
            DatabaseFailed(
                event_id=claim.event.id,
                event_type=claim.event.type,
                handler=handler.name,
                database=location_of(self.inbox),
                detail=settlement.failures[-1].error,
                retry_in=settlement.retry_in or 0.0,
                interruption=number if is_counted else None,
                seconds=seconds,
                **_origin(claim),
            )
        )
        return True

    def _has_committed(self, claim: Claim, handler: Handler) -> Flow[bool]:
        """Whether the handler has succeeded after all: the connection may have been lost after the commit."""
        try:
            committed: bool = yield self._inbox_call(partial(self._is_recorded, claim, handler))
        except asyncio.CancelledError:
            # If the event were returned to the inbox now, the handler would count as not done.
            raise RuntimeError(f"cut off before it was known whether handler {handler.name} has committed") from None
        return committed

    def _is_recorded(self, claim: Claim, handler: Handler) -> bool:
        record = self.inbox.get(claim.event.id, tenant=claim.tenant)
        return record is not None and handler.status_in(record.progress) is HandlerStatus.DONE

    def _record(self, attempt: RunningAttempt) -> Flow[None]:
        held = yield self._inbox_call(partial(self.inbox.record, attempt.claim, dict(attempt.progress)))
        if not held:
            raise LeaseLostError
        attempt.is_recorded = True

    def _inbox_call(self, function: Callable[[], object]) -> Call:
        return Call(partial(self.in_context, function))


def _origin(claim: Claim) -> dict[str, Any]:
    """Where the event came from: what every `AttemptNotice` has."""
    return {"webhook_id": claim.webhook_id, "tenant": claim.tenant}
