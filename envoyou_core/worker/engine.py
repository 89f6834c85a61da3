"""One attempt at one event: run the handlers that have not succeeded, then settle.

The flow is written once; `run` and `arun` of `envoyou_core.steps` do its steps in a thread or on an event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from envoyou_core.errors import ConfigurationError, LeaseLostError, RetryLater
from envoyou_core.handler import Handler
from envoyou_core.hooks import Hooks
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.owed import OwedElsewhere, owed_to_others
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
from envoyou_core.providers import check_providers
from envoyou_core.retry import RetryPolicy
from envoyou_core.steps import Call, Flow
from envoyou_core.worker.attempt import RunningAttempt
from envoyou_core.worker.backoff import OutageBackoff, delay_after_interruption
from envoyou_core.worker.failures import private_texts, traceback_of
from envoyou_core.worker.inbox_access import InboxAccess, returned
from envoyou_core.worker.invocation import Invocation, Stage, hook_step

__all__ = ["Engine"]

Result = TypeVar("Result")

SUSPECT_AFTER = 2
"""Crashes after which an event may be the cause. A single crash hits every event that is in flight at a deploy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(InboxAccess):
    """Runs claimed events through their handlers.

    Attributes:
        retry: when to retry a failed event.
        hooks: called around handlers, and when an event is dead.
        handler_wait: seconds for which an event may wait for a process that knows a handler.
        outages: the delays of events while the database fails.
    """

    retry: RetryPolicy
    hooks: Hooks = field(default_factory=Hooks)
    handler_wait: float = 86_400.0
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

    def keep_unsettled(self, attempt: RunningAttempt, *, has_ended: bool) -> None:
        """Keep an attempt whose result could not be stored because the database has failed.

        Args:
            attempt: the attempt.
            has_ended: whether its handlers have run. If they have not, the event is to be returned to the inbox.
        """
        if attempt.is_uncertain:
            # To return the event would undo the record of a handler that has committed.
            return
        if not has_ended:
            attempt.is_interrupted = True
            attempt.settlement = returned(replace(attempt.claim, owed=attempt.owed()), attempt.progress)
        if attempt.settlement is not None:
            self.late_leases.keep(attempt, attempt.settlement)

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
            self.notices.emit(
                LeaseLost(
                    event.id,
                    event.type,
                    webhook_id=attempt.claim.webhook_id,
                    tenant=attempt.claim.tenant,
                    traceparent=attempt.claim.traceparent,
                )
            )
            # If that fails, the crash stays counted. The event is another worker's now.
            with suppress(Exception):
                yield self._inbox_call(partial(self.inbox.uncount_crash, attempt.claim))
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
                webhook_id=attempt.claim.webhook_id,
                tenant=attempt.claim.tenant,
                traceparent=attempt.claim.traceparent,
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
                skipped = HandlerSkipped(
                    claim.event.id,
                    claim.event.type,
                    handler.name,
                    webhook_id=claim.webhook_id,
                    tenant=claim.tenant,
                    traceparent=claim.traceparent,
                )
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
        if error is None or (invocation.stage is Stage.ENDING and (yield from self._has_committed(attempt, handler))):
            attempt.succeed(handler)
            self.outages.reset()
            if self.notices.wants(HandlerSucceeded):
                self.notices.emit(
                    HandlerSucceeded(
                        claim.event.id,
                        claim.event.type,
                        handler.name,
                        attempt.number,
                        time.perf_counter() - began,
                        webhook_id=claim.webhook_id,
                        tenant=claim.tenant,
                        traceparent=claim.traceparent,
                    )
                )
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
                webhook_id=claim.webhook_id,
                tenant=claim.tenant,
                traceparent=claim.traceparent,
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
                webhook_id=claim.webhook_id,
                tenant=claim.tenant,
                traceparent=claim.traceparent,
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
                webhook_id=claim.webhook_id,
                tenant=claim.tenant,
                traceparent=claim.traceparent,
            )
        )
        return True

    def _has_committed(self, attempt: RunningAttempt, handler: Handler) -> Flow[bool]:
        """Whether the handler has succeeded after all: the connection may have been lost after the commit."""
        attempt.is_uncertain = True
        try:
            committed: bool = yield self._inbox_call(partial(self._is_recorded, attempt.claim, handler))
        except asyncio.CancelledError:
            # If the event were returned to the inbox now, the handler would count as not done.
            raise RuntimeError(f"cut off before it was known whether handler {handler.name} has committed") from None
        attempt.is_uncertain = False
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
