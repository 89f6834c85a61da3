"""One attempt at one event: run the handlers that have not succeeded, then settle.

The flow is written once; `run` and `arun` of `envoyou_core.steps` do its steps in a thread or on an event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from envoyou_core.errors import ConfigurationError, LeaseLostError, PermanentError, RetryLater
from envoyou_core.handlers import DeliveryInfo, Handler, Handlers
from envoyou_core.hooks import Hooks
from envoyou_core.inbox.history import Failure
from envoyou_core.inbox.protocol import AsyncTransactionalInbox, Inbox, TransactionalInbox
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement, Status
from envoyou_core.observability.notices import (
    HandlerFailed,
    HandlerSkipped,
    HookFailed,
    LeaseLost,
    Notices,
    RetentionApplied,
    Settled,
)
from envoyou_core.retention import Retention, RetentionReport, apply_retention
from envoyou_core.retry import RetryPolicy
from envoyou_core.steps import Await, Call, CallHandler, Flow, Step
from envoyou_core.worker.claim_plan import RoundRobin, paused_patterns, plan_claims
from envoyou_core.worker.failures import failure_of, private_texts, traceback_of
from envoyou_core.worker.pauses import Pauses
from envoyou_core.worker.time_limits import time_limited

__all__ = ["AttemptResult", "Engine", "HandlerContext"]

Result = TypeVar("Result")

SUSPECT_AFTER = 2
"""Crashes. One befalls whatever is in hand at a deploy; all of that may be taken up again at once."""

_NOT_THE_HANDLERS = (Exception, KeyboardInterrupt, GeneratorExit)
"""What a handler may be left by as it is: a failure, or what comes from outside and ends more than it."""

HandlerContext = Callable[[], AbstractContextManager[object]]
"""Makes what a framework needs around work outside a request, such as Flask's application context."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What came of an attempt's handlers.

    Attributes:
        began: when the attempt began, in seconds of `time.monotonic`.
        settlement: how it is to be settled; `None` when the lease was lost.
        is_settled: whether the last handler's own transaction has settled it.
        error: what the last handler that failed raised.
    """

    began: float
    settlement: Settlement | None
    is_settled: bool = False
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs events through their handlers.

    Attributes:
        inbox: where events come from.
        handlers: who handles them.
        retry: when a failed one is tried again.
        notices: who is told.
        lease: seconds that a claim is held; a live worker renews it long before it ends.
        contexts: entered around every handler and every call of the inbox.
        hooks: called when an event is dead.
        thread_exit_hooks: called in each of a worker's threads as it ends.
        retention: how long finished events are kept; `None` for ever.
        clock: epoch seconds, the inbox's own.
        pauses: what is known to be paused.
        claim_order: the order in which groups of events are claimed.
    """

    inbox: Inbox
    handlers: Handlers
    retry: RetryPolicy
    notices: Notices
    lease: float
    contexts: list[HandlerContext] = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    thread_exit_hooks: list[Callable[[], object]] = field(default_factory=list)
    retention: Retention | None = None
    clock: Callable[[], float] = time.time
    pauses: Pauses = field(default_factory=Pauses)
    claim_order: RoundRobin = field(default_factory=RoundRobin)

    def is_sync(self, claim: Claim) -> bool:
        """Whether no handler of it has to be awaited."""
        return not any(handler.is_async for handler in self.handlers.matching(claim.event.type))

    def check_handlers(self) -> None:
        """Refuse to begin without anything to do.

        Raises:
            ConfigurationError: there is no handler: a worker would set every event aside as ignored.
        """
        if not len(self.handlers):
            raise ConfigurationError(
                f"the worker of {self.inbox.name!r} has no handlers, and would set every event aside as ignored: "
                "register them before it starts, or use handoff='manual' where another process does the work"
            )

    def claim(self, limit: int) -> list[Claim]:
        """Take up to `limit` due events, for one who holds nothing yet."""
        return self.claim_next(limit, ())

    def claim_next(self, free: int, in_flight: Sequence[Claim]) -> list[Claim]:
        """Take due events that may be worked on now: not paused, in their order, within their handlers' limits.

        Args:
            free: how many at most.
            in_flight: what the caller holds already; it counts against the limits.
        """
        to_claim = plan_claims(tuple(self.handlers), self.paused_patterns(), in_flight, free, self.claim_order)
        claims: list[Claim] = []
        try:
            request = next(to_claim)
            while True:
                found = self.in_context(partial(self.inbox.claim, request.limit, self.lease, request.filter))
                claims += found
                request = to_claim.send(found)
        except StopIteration:
            return claims
        except Exception:
            # What was taken before has to be worked on; what is wrong will show at the next request.
            if not claims:
                raise
            return claims

    def paused_patterns(self) -> tuple[str, ...]:
        """The patterns of the events that must wait, as far as is known: others may have paused them a second ago."""
        subjects = self.pauses.known(lambda: self.in_context(self.inbox.paused))
        return paused_patterns(subjects, self.handlers)

    def settle(self, claim: Claim, settlement: Settlement) -> bool:
        """End an attempt; false when the lease was lost."""
        return self.in_context(lambda: self.inbox.settle(claim, settlement))

    def settle_all(self, settlements: Sequence[tuple[Claim, Settlement]]) -> list[bool]:
        """End several attempts in one transaction; false for each whose lease was lost."""
        return self.in_context(lambda: self.inbox.settle_all(settlements))

    def run_maintenance(self) -> RetentionReport:
        """Delete what was kept for long enough: see `Retention`."""
        retention = self.retention
        if retention is None:
            return RetentionReport()
        report = self.in_context(lambda: apply_retention(retention, self.inbox))
        if report != RetentionReport():
            self.notices.emit(RetentionApplied(self.inbox.name, report.scrubbed, report.pruned, report.marks))
        return report

    def seconds_until_due(self) -> float | None:
        """How long until the next event is due; `None` when none will be."""
        return self.in_context(self.inbox.seconds_until_due)

    def renew(self, claims: list[Claim]) -> None:
        """Hold `claims` for another lease."""
        self.in_context(lambda: self.inbox.renew(claims, self.lease))

    def return_to_inbox(self, claim: Claim, progress: Mapping[str, HandlerStatus], *, retry_in: float = 0.0) -> None:
        """End a claim that was not worked on, or not to the end; it costs neither an attempt nor a crash.

        Args:
            claim: what was held.
            progress: the handlers that will not run again, those of the broken off attempt among them.
            retry_in: seconds until it is due again.
        """
        settlement = Settlement(
            status=Status.FAILED if claim.attempts else Status.RECEIVED,
            attempts=claim.attempts,
            progress=progress,
            retry_in=retry_in,
            error=claim.last_error,
        )
        self.settle(claim, settlement)

    def is_poison_suspect(self, claim: Claim) -> bool:
        """Whether it was in hand so often when a process died that it must be kept apart from others like it.

        What is in hand together is taken up again together: the one that kills its process would take the same others
        with it each time, until they were dead of its crashes.
        """
        return 0 < min(SUSPECT_AFTER, self.retry.max_crashes - 1) <= claim.crashes < self.retry.max_crashes

    def attempt(self, claim: Claim) -> Flow[Settlement | None]:
        """Run what is left to run of `claim` and settle it; `None` when the lease was lost meanwhile."""
        worked = yield from self.work(claim, dict(claim.progress))
        held = worked.is_settled
        if worked.settlement is not None and not held:
            held = yield Call(partial(self.settle, claim, worked.settlement))
        return (yield from self.conclude(claim, worked, held))

    def work(self, claim: Claim, progress: dict[str, HandlerStatus]) -> Flow[AttemptResult]:
        """Run what is left to run of `claim`: the part of an attempt that comes before its settling.

        Args:
            claim: what is held.
            progress: what is known of the claim's handlers; it grows while the attempt goes on, for whoever may break
                it off.
        """
        began = time.monotonic()
        if claim.crashes >= self.retry.max_crashes:
            return AttemptResult(began, _dead_of_crashes(claim))
        if claim.unreadable is not None:
            return AttemptResult(began, self._unreadable(claim, claim.unreadable, began))
        try:
            return (yield from self._run_handlers(claim, progress, began))
        except LeaseLostError:
            return AttemptResult(began, None)

    def conclude(self, claim: Claim, worked: AttemptResult, held: bool) -> Flow[Settlement | None]:
        """Tell how an attempt ended, once it is settled.

        Args:
            claim: what was held.
            worked: what came of it.
            held: whether the lease was still held when it was settled.
        """
        settlement = worked.settlement
        if settlement is None or not held:
            self.notices.emit(LeaseLost(claim.event.id, claim.event.type))
            return None
        self.notices.emit(
            Settled(
                event_id=claim.event.id,
                event_type=claim.event.type,
                status=settlement.status,
                attempt=settlement.attempts,
                retry_in=settlement.retry_in,
                error=settlement.error,
                seconds=time.monotonic() - worked.began,
                exception=worked.error,
                traceback=settlement.failures[-1].traceback if settlement.failures else "",
            )
        )
        if settlement.status is Status.DEAD:
            yield from self._call_dead_hooks(claim, settlement)
        return settlement

    def _call_dead_hooks(self, claim: Claim, settlement: Settlement) -> Flow[None]:
        for hook in self.hooks.dead:
            try:
                yield self._hook_call(
                    partial(hook, claim.event, settlement.error), is_async=inspect.iscoroutinefunction(hook)
                )
            except Exception as error:
                name = getattr(hook, "__qualname__", type(hook).__qualname__)
                told = traceback_of(error, private=private_texts(claim.event))
                self.notices.emit(HookFailed(name, claim.event.id, error, told))

    def _hook_call(self, call: Callable[[], Any], *, is_async: bool) -> Step:
        # In the same contexts as handlers: what a hook does to alert somebody wants them, too.
        return Await(partial(self._await_handler, call)) if is_async else CallHandler(partial(self._call_handler, call))

    def _run_handlers(self, claim: Claim, progress: dict[str, HandlerStatus], began: float) -> Flow[AttemptResult]:
        """How the attempt ended; it may be settled already, in the transaction of its last handler."""
        handlers = self.handlers.matching(claim.event.type)
        if not handlers:
            return AttemptResult(began, Settlement(Status.IGNORED, claim.attempts, claim.progress))
        failed: dict[str, Exception] = {}
        failures: list[Failure] = []
        stale: bool | None = None
        unfinished = [handler for handler in handlers if handler.name not in progress]
        for handler in unfinished:
            if handler.stale == "skip":
                if stale is None:
                    newest: int | None = yield self._call(partial(self.inbox.newest_applied, claim))
                    stale = newest is not None and claim.event.created < newest
                if stale:
                    progress[handler.name] = HandlerStatus.SKIPPED
                    self.notices.emit(HandlerSkipped(claim.event.id, claim.event.type, handler.name))
                    continue
            is_last = handler is unfinished[-1]
            done = {**progress, handler.name: HandlerStatus.DONE}
            ending = None
            if (
                is_last
                and handler.shares_transaction
                and not failed
                and HandlerStatus.GIVEN_UP not in progress.values()
            ):
                ending = DeferredSettlement(partial(self._settlement, claim, handlers, done, failed, failures, began))
            error: Exception | None = None
            try:
                yield self._invocation(handler, claim, done, ending)
            except LeaseLostError:
                raise
            except Exception as raised:
                error = raised
            if error is not None and handler.shares_transaction and (yield from self._was_recorded(claim, handler)):
                error = None
            if error is not None:
                failures.append(failure_of(handler.name, error, claim.event))
                event, attempt, told = claim.event, claim.attempts + 1, failures[-1].traceback
                self.notices.emit(HandlerFailed(event.id, event.type, handler.name, attempt, error, told))
                failed[handler.name] = error
                to_record = isinstance(error, PermanentError)
                if to_record:
                    progress[handler.name] = HandlerStatus.GIVEN_UP
            else:
                progress[handler.name] = HandlerStatus.DONE
                if ending is not None and ending.made is not None:
                    return AttemptResult(began, ending.made, is_settled=True)
                to_record = not handler.shares_transaction
            # The last one is recorded by the settling itself.
            if to_record and not is_last:
                held = yield self._call(partial(self.inbox.record, claim, dict(progress)))
                if not held:
                    raise LeaseLostError
        settlement = self._settlement(claim, handlers, progress, failed, failures, began)
        return AttemptResult(began, settlement, error=next(reversed(failed.values()), None))

    def _was_recorded(self, claim: Claim, handler: Handler) -> Flow[bool]:
        """Whether it has succeeded after all: the connection may have been lost between commit and answer."""
        try:
            recorded: bool = yield self._call(partial(self._is_recorded, claim, handler))
        except asyncio.CancelledError:
            # Whoever gives the event back now would say that it has not.
            raise RuntimeError(f"cut off before it was known whether handler {handler.name} has committed") from None
        return recorded

    def _is_recorded(self, claim: Claim, handler: Handler) -> bool:
        record = self.inbox.get(claim.event.id, tenant=claim.tenant)
        return record is not None and record.progress.get(handler.name) is HandlerStatus.DONE

    def _settlement(
        self,
        claim: Claim,
        handlers: list[Handler],
        progress: dict[str, HandlerStatus],
        failed: Mapping[str, Exception],
        failures: Sequence[Failure],
        began: float,
    ) -> Settlement:
        attempt = claim.attempts + 1
        error = "; ".join(failure.error for failure in failures) or None
        ended = partial(
            Settlement,
            attempts=attempt,
            progress=progress,
            error=error,
            seconds=time.monotonic() - began,
            failures=tuple(failures),
        )
        if all(handler.name in progress for handler in handlers):
            if any(progress[handler.name] is HandlerStatus.GIVEN_UP for handler in handlers):
                return ended(Status.DEAD)
            return ended(Status.PROCESSED, scrub=self.retention is not None and self.retention.scrub_processed)
        if attempt >= self.retry.max_attempts:
            return ended(Status.DEAD)
        return ended(Status.FAILED, retry_in=self._delay(attempt, failed.values()))

    def _unreadable(self, claim: Claim, reason: str, began: float) -> Settlement:
        """No handler can run. The retries leave time for a newer release, or for a person, to deal with the event."""
        ended = partial(
            Settlement,
            attempts=claim.attempts + 1,
            progress=claim.progress,
            error=f"the stored event is unreadable: {reason}",
            seconds=time.monotonic() - began,
        )
        if claim.attempts + 1 >= self.retry.max_attempts:
            return ended(Status.DEAD)
        return ended(Status.FAILED, retry_in=self.retry.delay_after(claim.attempts + 1))

    def _delay(self, attempt: int, failures: Iterable[Exception]) -> float:
        """The longest of the failures' delays: a handler that asked for time must not be called before it is over."""
        return max(
            failure.seconds if isinstance(failure, RetryLater) else self.retry.delay_after(attempt)
            for failure in failures
            if not isinstance(failure, PermanentError)
        )

    def _invocation(
        self, handler: Handler, claim: Claim, done: Mapping[str, HandlerStatus], ending: DeferredSettlement | None
    ) -> Step:
        offered: dict[str, Any] = {
            "attempt": claim.attempts + 1,
            "delivery": DeliveryInfo(claim.received_at, claim.webhook_id, claim.tenant),
        }
        named = {name: offered[name] for name in handler.wants & offered.keys()}
        call: Callable[..., Any]
        if handler.is_async:
            call = partial(time_limited(handler.function, handler.time_limit), claim.event, **named)
            if handler.shares_transaction:
                call = partial(self._await_in_transaction, handler, call, claim, done, ending)
            return Await(partial(self._await_handler, call))
        call = partial(handler.function, claim.event, **named)
        if handler.shares_transaction:
            call = partial(self._call_in_transaction, handler, call, claim, done, ending)
        return CallHandler(
            partial(self._call_handler, call), claim.event.id, claim.event.type, handler.name, handler.time_limit
        )

    def _call(self, function: Callable[[], Any]) -> Call:
        return Call(lambda: self.in_context(function))

    def run_thread_exit_hooks(self) -> None:
        """Let go of what belongs to the calling thread, which is one of a worker's and ends now."""
        for end in self.thread_exit_hooks:
            end()

    def in_context(self, function: Callable[[], Result]) -> Result:
        """Call `function` with all that the framework needs around it."""
        with self._contexts():
            return function()

    def _call_handler(self, call: Callable[[], Any]) -> None:
        with self._contexts():
            try:
                _refuse_awaitable(call())
            except _NOT_THE_HANDLERS:
                raise
            except BaseException as error:
                raise _as_handler_error(error) from error

    def _call_in_transaction(
        self,
        handler: Handler,
        call: Callable[..., Any],
        claim: Claim,
        done: Mapping[str, HandlerStatus],
        ending: DeferredSettlement | None,
    ) -> None:
        inbox = cast(TransactionalInbox, self.inbox)
        with inbox.transaction(claim, done, ending) as connection:
            # Inside, so that what is refused is also rolled back.
            _refuse_awaitable(call(connection=connection) if handler.wants_connection else call())

    async def _await_in_transaction(
        self,
        handler: Handler,
        call: Callable[..., Any],
        claim: Claim,
        done: Mapping[str, HandlerStatus],
        ending: DeferredSettlement | None,
    ) -> None:
        inbox = cast(AsyncTransactionalInbox, self.inbox)
        async with inbox.async_transaction(claim, done, ending, wants=handler.wants) as given:
            await call(**given)

    async def _await_handler(self, call: Callable[[], Any]) -> None:
        with self._contexts():
            try:
                await call()
            except _NOT_THE_HANDLERS:
                raise
            except BaseException as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                raise _as_handler_error(error) from error

    @contextmanager
    def _contexts(self) -> Iterator[None]:
        with ExitStack() as stack:
            for contexts in self.contexts:
                stack.enter_context(contexts())
            yield


@dataclass(slots=True)
class DeferredSettlement:
    """The settlement that the last handler's transaction writes: made at its end, when it is known how long it took."""

    make: Callable[[], Settlement]
    made: Settlement | None = None

    def __call__(self) -> Settlement:
        self.made = self.make()
        return self.made


def _refuse_awaitable(result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("the handler is a plain function that returned an awaitable: make it `async def`")


def _as_handler_error(error: BaseException) -> RuntimeError:
    """A handler that leaves by an exception meant for the whole process or task has failed, and no more than that."""
    return RuntimeError(f"the handler raised {type(error).__name__}")


def _dead_of_crashes(claim: Claim) -> Settlement:
    return Settlement(
        Status.DEAD,
        claim.attempts,
        claim.progress,
        error=f"the process died {claim.crashes} times while this event was being handled",
    )
