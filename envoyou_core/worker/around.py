"""Calls a handler inside the context managers of the application, with what its providers return.

The flow is written once. A sync handler and its contexts run in one thread: async contexts then run on an event loop of
the call's own. An async handler and its contexts run on the handler's event loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from envoyou_core.steps import Await, Call, Flow, Step, arun, run

__all__ = ["Opening", "ThreadBoundFunction", "call_in_thread", "call_on_loop", "within"]

RunAsync = Callable[[Callable[[], Awaitable[Any]]], Any]
"""Runs an async function in the calling thread and returns its result."""


@dataclass(frozen=True, slots=True)
class ThreadBoundFunction:
    """An async function that a framework runs in the thread of its caller. Called as a sync one.

    Attributes:
        function: the async function.
        run: runs an async function without arguments in the calling thread and returns its result.
    """

    function: Callable[..., Awaitable[Any]]
    run: RunAsync

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the async function and return its result."""
        return self.run(partial(self.function, *arguments, **named))


@dataclass(frozen=True, slots=True)
class Opening:
    """Something that is opened before a handler is called.

    Attributes:
        function: returns a context manager; that of a provider may also return a value, or an awaitable of either.
        description: what it is, for errors.
        keep: called with the value of a provider; `None` for a context without a value.
    """

    function: Callable[[], object]
    description: str
    keep: Callable[[Any], None] | None = None


def within(openings: Sequence[Opening], call: Step, *, is_async: bool, on_one_loop: bool = False) -> Flow[Any]:
    """Open each of `openings`, do `call`, and close them in reverse order, as nested `with` statements do.

    Args:
        openings: what to open.
        call: the step inside all of them.
        is_async: whether a context manager that is both sync and async is used as an async one.
        on_one_loop: whether the first async opening and everything inside it are one async step, because each async
            step has an event loop of its own.
    """
    if not openings:
        return (yield call)
    opening, *inner = openings
    opened = yield from _noting(opening, Call(opening.function))
    if on_one_loop and (_protocol(opened, is_async=is_async) == "a" or inspect.isawaitable(opened)):
        return (yield Await(lambda: call_on_loop(_inside(opening, opened, inner, call, is_async=is_async))))
    return (yield from _inside(opening, opened, inner, call, is_async=is_async, on_one_loop=on_one_loop))


def _inside(
    opening: Opening,
    opened: Any,
    inner: Sequence[Opening],
    call: Step,
    *,
    is_async: bool,
    on_one_loop: bool = False,
) -> Flow[Any]:
    if _protocol(opened, is_async=is_async) is None and inspect.isawaitable(opened) and opening.keep is not None:
        opened = yield from _noting(opening, Await(partial(_result_of, opened)))
    protocol = _protocol(opened, is_async=is_async)
    if protocol is None:
        if opening.keep is None:
            raise TypeError(f"expected a context manager from the {opening.description}, got {type(opened).__name__}")
        opening.keep(opened)
        return (yield from within(inner, call, is_async=is_async, on_one_loop=on_one_loop))
    value = yield from _noting(opening, _method(opened, protocol, "enter"))
    if opening.keep is not None:
        opening.keep(value)
    try:
        result = yield from within(inner, call, is_async=is_async, on_one_loop=on_one_loop)
    except BaseException as error:
        leave = _method(opened, protocol, "exit", type(error), error, error.__traceback__)
        if not (yield from _noting(opening, leave, other_than=error)):
            raise
        return None
    yield from _noting(opening, _method(opened, protocol, "exit", None, None, None))
    return result


def _noting(opening: Opening, step: Step, *, other_than: BaseException | None = None) -> Flow[Any]:
    """Do a step of an opening. If it fails, the traceback says that it is not the handler which has failed.

    Args:
        opening: the opening.
        step: the step.
        other_than: the exception of the handler, which the opening may raise again.
    """
    try:
        return (yield step)
    except Exception as error:
        if error is not other_than:
            error.add_note(f"raised by the {opening.description}")
        raise


def call_in_thread(flow: Flow[Any], *, run_async: RunAsync | None = None) -> Any:
    """Run `flow` in the calling thread. All its steps see the same context variables.

    Args:
        flow: the flow.
        run_async: runs each async step; by default all of them share an event loop.
    """
    variables = copy_context()
    # The runner makes its loop when it is used first.
    runner = asyncio.Runner()

    def run_step(function: Callable[[], Awaitable[Any]]) -> Any:
        if run_async is not None:
            return variables.run(run_async, function)
        return runner.run(_coroutine(function), context=variables)

    try:
        return run(flow, call=lambda step: variables.run(step.function), run_async=run_step)
    finally:
        runner.close()


async def call_on_loop(flow: Flow[Any]) -> Any:
    """Run `flow` in the calling task, its sync steps too."""
    return await arun(flow, offload=_call)


async def _call(step: Call) -> Any:
    return step.function()


async def _coroutine(function: Callable[[], Any]) -> Any:
    return await function()


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _protocol(context: object, *, is_async: bool) -> str | None:
    """Return the prefix of a context manager's methods: `a` if async, nothing if sync; `None` if it has none."""
    # `with` looks its methods up on the type as well.
    found = [prefix for prefix in ("", "a") if hasattr(type(context), f"__{prefix}enter__")]
    return (found[-1] if is_async else found[0]) if found else None


def _method(context: object, protocol: str, name: str, *arguments: object) -> Step:
    call = partial(getattr(type(context), f"__{protocol}{name}__"), context, *arguments)
    return Await(call) if protocol else Call(call)
