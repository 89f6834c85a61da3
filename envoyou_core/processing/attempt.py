"""One attempt at one event: run the handlers that have not succeeded, then settle.

The flow is written once; `run` and `arun` of `envoyou_core.steps` do its steps in a thread or on an event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from envoyou_core.errors import (
    HandlerTimeoutError,
    LeaseLostError,
    PermanentError,
    RetryLater,
)
from envoyou_core.handlers import DeliveryInfo, Handler
from envoyou_core.inbox.history import Failure
from envoyou_core.inbox.protocol import TransactionalInbox
from envoyou_core.inbox.records import Claim, Progress, Settlement, Status
from envoyou_core.observability.notices import HandlerFailed, HandlerSkipped, HookFailed, LeaseLost, Settled
from envoyou_core.processing.failures import describe_failure
from envoyou_core.processing.hooks import call_hook
from envoyou_core.steps import Await, Call, CallHandler, Flow, Step

if TYPE_CHECKING:
    from envoyou_core.processing.engine import Engine

__all__ = ["Attempt", "Settle"]

Settle = Callable[[Claim, Settlement], Step]
"""Makes the step that ends an attempt, whose result is false when the lease was lost."""


@dataclass(slots=True)
class Attempt:
    """An attempt, from its first handler to its settling.

    Attributes:
        engine: what it is made with.
        claim: what is held.
        progress: what is known of the claim's handlers; it grows while the attempt goes on.
        settle: makes the step that ends it.
    """

    engine: Engine
    claim: Claim
    progress: dict[str, Progress]
    settle: Settle
    _began: float = field(default_factory=time.monotonic)
    _errors: list[Exception] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)
    _settled: Settlement | None = None
    """Where the last handler's transaction has settled the event already."""

    def run(self) -> Flow[Settlement | None]:
        """The attempt; `None` when the lease was lost meanwhile."""
        claim, notices = self.claim, self.engine.notices
        try:
            settlement = yield from self._run_handlers()
            if self._settled is None and not (yield self.settle(claim, settlement)):
                raise LeaseLostError
        except LeaseLostError:
            notices.emit(LeaseLost(claim.event.id, claim.event.type))
            return None
        notices.emit(
            Settled(
                event_id=claim.event.id,
                event_type=claim.event.type,
                status=settlement.status,
                attempt=settlement.attempts,
                retry_in=settlement.retry_in,
                error=settlement.error,
                seconds=time.monotonic() - self._began,
            )
        )
        if settlement.status is Status.DEAD:
            yield from self._tell_of_death(settlement)
        return settlement

    def _tell_of_death(self, settlement: Settlement) -> Flow[None]:
        event = self.claim.event
        for hook in self.engine.hooks.dead:
            try:
                yield call_hook(hook, event, settlement.error)
            except Exception as error:
                self.engine.notices.emit(HookFailed(getattr(hook, "__qualname__", repr(hook)), event.id, error))

    # Handlers

    def _run_handlers(self) -> Flow[Settlement]:
        claim, progress = self.claim, self.progress
        if claim.crashes >= self.engine.retry.max_crashes:
            return _dead_of_crashes(claim)
        handlers = self.engine.handlers.matching(claim.event.type)
        if not handlers:
            return Settlement(Status.IGNORED, claim.attempts, claim.progress)
        unfinished = [handler for handler in handlers if handler.name not in progress]
        is_stale: bool | None = None
        for handler in unfinished:
            if handler.skips_stale:
                if is_stale is None:
                    is_stale = yield from self._is_stale()
                if is_stale:
                    progress[handler.name] = Progress.SKIPPED
                    self.engine.notices.emit(HandlerSkipped(claim.event.id, claim.event.type, handler.name))
                    continue
            is_last = handler is unfinished[-1]
            done = {**progress, handler.name: Progress.DONE}
            try:
                yield self._invocation(handler, done, settles=is_last and self._is_well(handlers))
            except LeaseLostError:
                raise
            except Exception as error:
                to_record = self._note_failure(handler, error)
            else:
                progress[handler.name] = Progress.DONE
                to_record = not handler.wants_connection
            # The last one is recorded by the settling itself.
            if to_record and not is_last:
                held = yield self._call(partial(self.engine.inbox.record, claim, dict(progress)))
                if not held:
                    raise LeaseLostError
        return self._settled or self._settlement(handlers)

    def _is_stale(self) -> Flow[bool]:
        newest: int | None = yield self._call(partial(self.engine.inbox.newest_applied, self.claim))
        return newest is not None and self.claim.event.created < newest

    def _note_failure(self, handler: Handler, error: Exception) -> bool:
        """Note how a handler failed; true where it will not run again."""
        claim = self.claim
        self.engine.notices.emit(
            HandlerFailed(claim.event.id, claim.event.type, handler.name, claim.attempts + 1, error)
        )
        self._errors.append(error)
        self._failures.append(describe_failure(handler.name, error, claim.event))
        if isinstance(error, PermanentError):
            self.progress[handler.name] = Progress.GIVEN_UP
            return True
        return False

    # Settling

    def _is_well(self, handlers: list[Handler]) -> bool:
        """Whether nothing has gone wrong by now, so that the last handler's success is that of the event."""
        return not self._errors and not self._is_given_up(handlers)

    def _is_given_up(self, handlers: list[Handler]) -> bool:
        return any(self.progress.get(handler.name) is Progress.GIVEN_UP for handler in handlers)

    def _processed(self, progress: Mapping[str, Progress]) -> Settlement:
        retention = self.engine.retention
        return Settlement(
            Status.PROCESSED,
            self.claim.attempts + 1,
            progress,
            seconds=time.monotonic() - self._began,
            scrub=retention is not None and retention.scrub_processed,
        )

    def _settlement(self, handlers: list[Handler]) -> Settlement:
        progress, attempt, retry = self.progress, self.claim.attempts + 1, self.engine.retry
        finished = all(handler.name in progress for handler in handlers)
        if finished and not self._is_given_up(handlers):
            return self._processed(progress)
        goes_on = not finished and attempt < retry.max_attempts
        return Settlement(
            Status.FAILED if goes_on else Status.DEAD,
            attempt,
            progress,
            retry_in=self._delay(attempt) if goes_on else None,
            error="; ".join(failure.error for failure in self._failures) or None,
            seconds=time.monotonic() - self._began,
            failures=tuple(self._failures),
        )

    def _delay(self, attempt: int) -> float:
        """The longest of the failures' delays: a handler that asked for time must not be called before it is over."""
        return max(
            error.seconds if isinstance(error, RetryLater) else self.engine.retry.delay_after(attempt)
            for error in self._errors
            if not isinstance(error, PermanentError)
        )

    # Calling

    def _call(self, function: Callable[[], Any]) -> Call:
        return Call(lambda: self.engine.within_surroundings(function))

    def _invocation(self, handler: Handler, done: Mapping[str, Progress], *, settles: bool) -> Step:
        claim = self.claim
        offered: dict[str, Any] = {
            "attempt": claim.attempts + 1,
            "delivery": DeliveryInfo(claim.received_at, claim.webhook_id, claim.tenant),
        }
        call = partial(
            handler.function, claim.event, **{name: offered[name] for name in handler.wants & offered.keys()}
        )
        if handler.is_async:
            return Await(partial(self._await_handler, call, handler))
        if handler.wants_connection:
            call = partial(self._call_in_transaction, call, done, settles=settles)
        return CallHandler(
            partial(self._call_handler, call), claim.event.id, claim.event.type, handler.name, handler.time_limit
        )

    def _call_handler(self, call: Callable[[], Any]) -> None:
        with self.engine.entered_surroundings():
            try:
                _refuse_awaitable(call())
            except (SystemExit, asyncio.CancelledError) as error:
                raise _left(error) from error

    def _call_in_transaction(self, call: Callable[..., Any], done: Mapping[str, Progress], *, settles: bool) -> None:
        inbox = cast(TransactionalInbox, self.engine.inbox)
        settlement: Settlement | None = None

        def settle() -> Settlement:
            nonlocal settlement
            settlement = self._processed(done)
            return settlement

        with inbox.transaction(self.claim, done, settle if settles else None) as connection:
            # Inside, so that what is refused is also rolled back.
            _refuse_awaitable(call(connection=connection))
        self._settled = settlement

    async def _await_handler(self, call: Callable[[], Any], handler: Handler) -> None:
        limit = asyncio.timeout(handler.time_limit)
        with self.engine.entered_surroundings():
            try:
                async with limit:
                    await call()
            except SystemExit as error:
                raise _left(error) from error
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise HandlerTimeoutError(handler.name, handler.time_limit or 0.0) from error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise _left(error) from error


def _refuse_awaitable(result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("the handler is a plain function that returned an awaitable: make it `async def`")


def _left(error: BaseException) -> RuntimeError:
    """A handler that leaves by an exception meant for the whole process or task has failed, and no more than that."""
    return RuntimeError(f"the handler raised {type(error).__name__}")


def _dead_of_crashes(claim: Claim) -> Settlement:
    return Settlement(
        Status.DEAD,
        claim.attempts,
        claim.progress,
        error=f"the process died {claim.crashes} times while this event was being handled",
    )
