"""Calls user functions: handlers and hooks, sync or async, in the framework's contexts and in a shared transaction."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, cast

from envoyou_core.context_factories import name_of
from envoyou_core.event import Event
from envoyou_core.handler import DeliveryInfo, Handler
from envoyou_core.hooks import Hooks
from envoyou_core.inbox.database_errors import is_database_failure
from envoyou_core.inbox.protocol import AsyncTransactionalInbox, Inbox, TransactionalInbox
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement
from envoyou_core.observability.current import CURRENT, HandlerCall
from envoyou_core.providers import check_providers, find_provider
from envoyou_core.steps import Await, Call, CallHandler, Step
from envoyou_core.worker.around import Opening, ThreadBoundFunction, call_in_thread, call_on_loop, within
from envoyou_core.worker.time_limits import time_limited

__all__ = ["HandlerContext", "Invocation", "Stage", "enter_all", "hook_step"]

HandlerContext = Callable[[], AbstractContextManager[object]]
"""Returns a context that a framework needs outside requests, such as Flask's application context."""

_PASSED_ON = (Exception, KeyboardInterrupt, GeneratorExit)
"""The exceptions of a handler that are not converted: ordinary failures, and those that end more than the handler."""


@contextmanager
def enter_all(contexts: Iterable[HandlerContext]) -> Iterator[None]:
    """Enter all `contexts`."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        yield


def hook_step(hook: Callable[..., Any], contexts: Iterable[HandlerContext], *arguments: object) -> Step:
    """The step that calls `hook` in the same contexts as a handler: a hook that sends an alert may need them too."""
    call = partial(hook, *arguments)
    if inspect.iscoroutinefunction(hook):
        return Await(partial(_await_in_contexts, contexts, call))
    return CallHandler(partial(_call_in_contexts, contexts, call))


class Stage(Enum):
    """How far a call has got. `OPENING` and `ENDING` are the inbox's part of a shared transaction."""

    OPENING = "opening"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(slots=True, eq=False)
class Invocation:
    """One call of one handler. Not frozen, because that would make each call slower.

    Attributes:
        handler: the handler.
        claim: the event that it handles.
        inbox: the inbox whose transaction the handler may share.
        contexts: the contexts to enter.
        progress: what the shared transaction records at its end.
        hooks: the contexts around handlers, and the providers.
        settle: makes the settlement that the shared transaction stores instead; `None` if other handlers follow.
        stage: how far the call has got; if it fails, where.
    """

    handler: Handler
    claim: Claim
    inbox: Inbox
    contexts: Iterable[HandlerContext]
    progress: Mapping[str, HandlerStatus]
    hooks: Hooks
    settle: Callable[[], Settlement] | None = None
    stage: Stage = Stage.RUNNING

    def is_database_failure(self, error: Exception) -> bool:
        """Whether the database has failed in this call, and not the handler."""
        # A connection that is refused may be an ordinary error of the operating system.
        is_refused = self.stage is Stage.OPENING and isinstance(error, OSError)
        return is_refused or is_database_failure(error, in_inbox=self.stage is not Stage.RUNNING)

    def step(self) -> Step:
        """The step that calls the handler."""
        handler, claim = self.handler, self.claim
        event = claim.event
        current = HandlerCall(
            event,
            handler.name,
            claim.attempts + 1,
            claim.received_at,
            claim.webhook_id,
            claim.tenant,
            claim.traceparent,
        )
        if handler.is_async:
            call = self._await_in_transaction if handler.shares_transaction else self._function()
            return Await(partial(_await_in_contexts, self.contexts, call, current))
        call = self._call_in_transaction if handler.shares_transaction else self._function()
        return CallHandler(
            partial(_call_in_contexts, self.contexts, call, current),
            event.id,
            event.type,
            handler.name,
            handler.time_limit,
        )

    def _function(self) -> Callable[..., Any]:
        """The handler's function with all its arguments except the transaction."""
        handler = self.handler
        function = time_limited(handler.function, handler.time_limit) if handler.is_async else handler.function
        if self.hooks.around_handler or self.handler.provided:
            return self._within_contexts(function)
        return self._bound(function)

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        handler, claim = self.handler, self.claim
        if not handler.wants and handler.object_type is None:
            return partial(function, claim.event)
        offered: dict[str, Any] = {
            "attempt": claim.attempts + 1,
            "delivery": DeliveryInfo(claim.received_at, claim.webhook_id, claim.tenant, claim.headers),
        }
        named = {name: offered[name] for name in handler.wants & offered.keys()}
        if handler.object_type is not None:
            return partial(_call_with_type, function, handler.object_type, claim.event, **named)
        return partial(function, claim.event, **named)

    def _within_contexts(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call inside the contexts of the application and with what it provides."""
        handler = self.handler
        values: dict[str, Any] = {}
        openings = [*self._contexts(), *self._provided(values)]
        if not openings:
            return self._bound(function)
        if isinstance(function, ThreadBoundFunction):
            bound = self._bound(function.function)
            flow = within(openings, Await(lambda: bound(**values)), is_async=True, on_one_loop=True)
            return partial(call_in_thread, flow, run_async=function.run)
        call = self._bound(function)

        async def on_loop(**given: Any) -> Any:
            return await call_on_loop(within(openings, Await(lambda: call(**values, **given)), is_async=True))

        def in_thread(**given: Any) -> Any:
            step = Call(lambda: _refuse_awaitable(call(**values, **given)))
            return call_in_thread(within(openings, step, is_async=False))

        return on_loop if handler.is_async else in_thread

    def _contexts(self) -> Iterator[Opening]:
        details = (self.claim.event, self.handler.name, self.claim.attempts + 1)
        for function in self.hooks.around_handler:
            yield Opening(partial(function, *details), f"context {name_of(function)}")

    def _provided(self, values: dict[str, Any]) -> Iterator[Opening]:
        """Return the openings of what the handler is provided with, which add it to `values`."""
        for parameter in self.handler.provided:
            provider = find_provider(self.hooks.provider, parameter)
            if provider is not None:
                keep = partial(values.__setitem__, parameter.name)
                yield Opening(provider, f"provider of {provider.description}", keep)
            elif parameter.is_required:
                # The handler was registered after the worker had started.
                check_providers([self.handler], self.hooks.provider)

    def _call_in_transaction(self) -> None:
        inbox, call = cast(TransactionalInbox, self.inbox), self._function()
        self.stage = Stage.OPENING
        with inbox.transaction(self.claim, self.progress, self.settle) as connection:
            self.stage = Stage.RUNNING
            # Within the transaction, so that it is rolled back.
            _refuse_awaitable(call(connection=connection) if self.handler.wants_connection else call())
            self.stage = Stage.ENDING

    async def _await_in_transaction(self) -> None:
        inbox, call = cast(AsyncTransactionalInbox, self.inbox), self._function()
        self.stage = Stage.OPENING
        async with inbox.async_transaction(self.claim, self.progress, self.settle, wants=self.handler.wants) as given:
            self.stage = Stage.RUNNING
            await call(**given)
            self.stage = Stage.ENDING


def _call_with_type(function: Callable[..., Any], type_: Any, event: Event, /, **named: Any) -> Any:
    return function(event.typed_as(type_), **named)


def _call_in_contexts(
    contexts: Iterable[HandlerContext], call: Callable[[], Any], current: HandlerCall | None = None
) -> None:
    token = CURRENT.set(current)
    try:
        with enter_all(contexts):
            try:
                _refuse_awaitable(call())
            except _PASSED_ON:
                raise
            except BaseException as error:
                raise _as_handler_error(error) from error
    finally:
        CURRENT.reset(token)


async def _await_in_contexts(
    contexts: Iterable[HandlerContext], call: Callable[[], Awaitable[Any]], current: HandlerCall | None = None
) -> None:
    CURRENT.set(current)
    try:
        with enter_all(contexts):
            try:
                await call()
            except _PASSED_ON:
                raise
            except BaseException as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                raise _as_handler_error(error) from error
    finally:
        # Not `reset`: a coroutine that is thrown away ends in another context.
        CURRENT.set(None)


def _refuse_awaitable(result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("the handler is a plain function that returned an awaitable: make it `async def`")


def _as_handler_error(error: BaseException) -> RuntimeError:
    """An exception that would end the whole process or task becomes an ordinary failure of the handler."""
    return RuntimeError(f"the handler raised {type(error).__name__}")
