"""Flows: logic that is written once and runs both in a thread and on an event loop.

A flow is a generator. It yields steps and receives their results. `run` executes each step in the calling thread,
`arun` without blocking the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

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


# Structs of msgspec, because steps are made for each request and each attempt, and data classes cost more.


class Call(msgspec.Struct, frozen=True):
    """Call a function that blocks."""

    function: Callable[[], Any]


class CallHandler(Call, frozen=True):
    """Call a user's function, which may block for any time.

    Attributes:
        event_id: of the event that is handled.
        event_type: of that event.
        handler: the handler's name.
        time_limit: seconds after which the call is reported, because it cannot be stopped; `None` for no limit.
    """

    event_id: str = ""
    event_type: str = ""
    handler: str = ""
    time_limit: float | None = None


class Wait(msgspec.Struct, frozen=True):
    """Wait for another thread's result until `deadline`, in seconds of `time.monotonic`."""

    future: Future[Any]
    deadline: float


class Await(msgspec.Struct, frozen=True):
    """Call an async function and await its result."""

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
    """Run a flow in the calling thread and return its result.

    Args:
        flow: the flow.
        call: calls the function of a `Call`; by default it is called directly.
        run_async: runs an async function; by default each one in a new event loop.
    """
    try:
        step = next(flow)
        while True:
            try:
                if isinstance(step, Wait):
                    result = _wait(step)
                elif isinstance(step, Call):
                    result = step.function() if call is None else call(step)
                else:
                    result = (run_async or run_in_own_loop)(step.function)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        finished: Result = end.value
        return finished


def _wait(step: Wait) -> Any:
    try:
        return step.future.result(timeout=max(0.0, step.deadline - time.monotonic()))
    except TimeoutError:
        step.future.cancel()
        raise


async def arun(flow: Flow[Result], *, offload: Offload | None = None) -> Result:
    """Run a flow without blocking the running event loop, and return its result.

    Args:
        flow: the flow.
        offload: calls the function of a `Call` in another thread; by default in the default executor of the loop.
    """
    # With asyncio, which a process without an event loop does not need.
    from envoyou_core.loop_waits import wait_on_loop

    try:
        step = next(flow)
        while True:
            try:
                # Not in a coroutine of its own, through which each wake-up would have to pass.
                if isinstance(step, Wait):
                    result = await wait_on_loop(step.future, step.deadline)
                elif isinstance(step, Call):
                    result = await (offload or _offload_to_default_threads)(step)
                else:
                    result = await step.function()
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        finished: Result = end.value
        return finished


async def result_of(thread: asyncio.Future[Any]) -> Any:
    """Await the result of a thread. If the task is cancelled when the thread has finished, return the result first.

    The cancellation then takes effect at the next `await`. The thread may have committed its work: if its result were
    dropped, the work would be repeated.

    Raises:
        CancelledError: the thread has not finished. It continues.
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


async def _offload_to_default_threads(step: Call) -> Any:
    import asyncio

    return await asyncio.to_thread(step.function)


def _runs_loop() -> bool:
    """Whether the calling thread runs an event loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_in_own_loop(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run an async function in a new event loop and return its result."""
    import asyncio

    async def main() -> Any:
        return await function()

    if not _runs_loop():
        return asyncio.run(main())
    # A thread runs one loop at a time, and this one runs the loop of the caller, which has chosen to block it.
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, asyncio.run, main()).result()
