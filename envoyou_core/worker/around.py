"""Calls a handler inside the context managers of the application.

The flow is written once. A sync handler and its contexts run in one thread: async contexts then run on an event loop of
the call's own. An async handler and its contexts run on the handler's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from envoyou_core.context_factories import name_of
from envoyou_core.steps import Await, Call, Flow, Step, arun, run

__all__ = ["ThreadBoundFunction", "call_in_thread", "call_on_loop", "within"]

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


def within(functions: Sequence[Callable[[], object]], call: Step, *, on_one_loop: bool = False) -> Flow[Any]:
    """Enter the context of each function, do `call`, and exit them in reverse order, as nested `with` statements do.

    Args:
        functions: return the contexts.
        call: the step inside all contexts.
        on_one_loop: whether the first async context and everything inside it are one async step, because each async
            step has an event loop of its own.
    """
    if not functions:
        return (yield call)
    context = functions[0]()
    _check_context(context, functions[0])
    if on_one_loop and not _is_sync(context):
        return (yield Await(lambda: call_on_loop(_inside(context, functions[1:], call))))
    return (yield from _inside(context, functions[1:], call, on_one_loop=on_one_loop))


def _inside(
    context: object, functions: Sequence[Callable[[], object]], call: Step, *, on_one_loop: bool = False
) -> Flow[Any]:
    yield _method(context, "enter")
    try:
        result = yield from within(functions, call, on_one_loop=on_one_loop)
    except BaseException as error:
        if not (yield _method(context, "exit", type(error), error, error.__traceback__)):
            raise
        return None
    yield _method(context, "exit", None, None, None)
    return result


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


def _check_context(context: object, function: Callable[[], object]) -> None:
    """Check that a function of the application has returned a context manager.

    Raises:
        TypeError: it has not.
    """
    if not _is_sync(context) and not hasattr(type(context), "__aenter__"):
        name = name_of(function.func if isinstance(function, partial) else function)
        raise TypeError(f"expected a context manager from {name}, got {type(context).__name__}")


def _is_sync(context: object) -> bool:
    # A context that is sync and async is used as a sync one. `with` looks methods up on the type as well.
    return hasattr(type(context), "__enter__")


def _method(context: object, name: str, *arguments: object) -> Step:
    if _is_sync(context):
        return Call(partial(getattr(type(context), f"__{name}__"), context, *arguments))
    return Await(partial(getattr(type(context), f"__a{name}__"), context, *arguments))
