"""One flow for sync and async: what is to be done is written once, only the waiting differs.

A flow is a generator that yields the steps it needs done and receives their results. `run` does each step in the
calling thread; `arun` does it without blocking the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Await",
    "Call",
    "CallHandler",
    "Flow",
    "Offload",
    "Step",
    "Wait",
    "arun",
    "result_of",
    "run",
    "run_in_own_loop",
]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function that blocks."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class CallHandler(Call):
    """Call a user's function, which may block for as long as it likes.

    Attributes:
        event_id: of the event that it handles.
        event_type: the type of that event.
        handler: the handler's name.
        time_limit: seconds after which it is to be reported, for it cannot be stopped; `None` for never.
    """

    event_id: str = ""
    event_type: str = ""
    handler: str = ""
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for another thread's result; no longer than until `deadline`, in seconds of `time.monotonic`."""

    future: Future[Any]
    deadline: float


@dataclass(frozen=True, slots=True)
class Await:
    """Await what an async function returns."""

    function: Callable[[], Awaitable[Any]]


Step = Call | Wait | Await
Flow = Generator[Step, Any, Result]
Offload = Callable[[Call], Awaitable[Any]]


def run(
    flow: Flow[Result],
    *,
    call: Callable[[Call], Any] | None = None,
    run_async: Callable[[Callable[[], Awaitable[Any]]], Any] | None = None,
) -> Result:
    """Do a flow's steps here, one after the other.

    Args:
        flow: what to do.
        call: how functions that block are called; by default they just are.
        run_async: how async functions are run; by default each in an event loop of its own.
    """

    def do(step: Step) -> Any:
        if isinstance(step, Call):
            return step.function() if call is None else call(step)
        if isinstance(step, Wait):
            try:
                return step.future.result(timeout=max(0.0, step.deadline - time.monotonic()))
            except TimeoutError:
                step.future.cancel()
                raise
        return (run_async or run_in_own_loop)(step.function)

    try:
        step = next(flow)
        while True:
            try:
                result = do(step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        finished: Result = end.value
        return finished


async def arun(flow: Flow[Result], *, offload: Offload | None = None) -> Result:
    """Do a flow's steps one after the other, without blocking the running event loop.

    Args:
        flow: what to do.
        offload: where functions that block are called; in the loop's own threads by default.
    """

    async def do(step: Step) -> Any:
        if isinstance(step, Call):
            return await (offload or _offload_to_default_threads)(step)
        if isinstance(step, Wait):
            return await _wait(step)
        return await step.function()

    try:
        step = next(flow)
        while True:
            try:
                result = await do(step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        finished: Result = end.value
        return finished


async def result_of(thread: asyncio.Future[Any]) -> Any:
    """Await what a thread does. Where it has done it when the task is cancelled, that takes effect at the next await.

    Its work may be committed: whoever drops its result would have it done again.

    Raises:
        CancelledError: the thread has not come to its end, and goes on.
    """
    import asyncio

    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or not thread.done() or thread.cancelled():
            raise
        task.cancel()
        return thread.result()


async def _wait(step: Wait) -> Any:
    if step.future.done():
        return step.future.result()
    import asyncio

    async with asyncio.timeout(max(0.0, step.deadline - time.monotonic())):
        return await asyncio.wrap_future(step.future)


async def _offload_to_default_threads(step: Call) -> Any:
    import asyncio

    return await asyncio.to_thread(step.function)


def run_in_own_loop(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run an async function in an event loop that is made for it, and return its result."""
    import asyncio

    async def main() -> Any:
        return await function()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    # A thread runs one loop at a time, and the caller, which is on one, blocks it by its own choice.
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, asyncio.run, main()).result()
