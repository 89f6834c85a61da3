"""A flow has the same result in a thread and on an event loop."""

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest

from envoyou_core.steps import Await, Call, CallHandler, Wait, arun, run


def run_on_a_loop(flow):
    return asyncio.run(arun(flow))


@pytest.fixture(params=[run, run_on_a_loop], ids=["run", "arun"])
def do(request):
    return request.param


def soon():
    return time.monotonic() + 20


def finished(result):
    future = Future()
    future.set_result(result)
    return future


def test_the_flow_receives_the_result_of_each_step(do):
    async def double(number):
        return 2 * number

    def flow():
        first = yield Call(lambda: 1)
        second = yield CallHandler(lambda: first + 1)
        third = yield Await(lambda: double(second))
        fourth = yield Wait(finished(third + 1), soon())
        return [first, second, third, fourth]

    assert do(flow()) == [1, 2, 4, 5]


def test_a_flow_without_steps(do):
    def flow():
        return "at once"
        yield

    assert do(flow()) == "at once"


def test_an_exception_of_a_step_is_thrown_into_the_flow(do):
    async def fail_later():
        raise KeyError("awaited")

    def fail():
        raise ValueError("called")

    broken = Future()
    broken.set_exception(IndexError("waited for"))
    seen = []

    def flow():
        for step in (Call(fail), CallHandler(fail), Await(fail_later), Wait(broken, soon())):
            try:
                yield step
            except LookupError as error:
                seen.append(type(error))
            except ValueError as error:
                seen.append(type(error))
        return "continued"

    assert do(flow()) == "continued"
    assert seen == [ValueError, ValueError, KeyError, IndexError]


def test_an_exception_that_the_flow_does_not_catch_is_raised(do):
    def fail():
        raise ValueError("called")

    def flow():
        yield Call(fail)

    with pytest.raises(ValueError, match="called"):
        do(flow())


def test_steps_in_a_finally_block_are_executed(do):
    cleaned = []

    def flow():
        try:
            yield Call(lambda: 1 / 0)
        finally:
            yield Call(lambda: cleaned.append(True))

    with pytest.raises(ZeroDivisionError):
        do(flow())
    assert cleaned == [True]


def test_wait_waits_for_the_result_of_another_thread(do):
    future = Future()
    threading.Timer(0.02, future.set_result, ["late"]).start()

    def flow():
        return (yield Wait(future, soon()))

    assert do(flow()) == "late"


@pytest.mark.parametrize("ago", [0.0, 5.0])
def test_wait_times_out_and_cancels_the_future_past_the_deadline(do, ago):
    future = Future()

    def flow():
        with pytest.raises(TimeoutError):
            yield Wait(future, time.monotonic() - ago)
        return "continued"

    assert do(flow()) == "continued"
    assert future.cancelled()


def test_wait_times_out_and_cancels_the_future_at_the_deadline(do):
    future = Future()

    def flow():
        yield Wait(future, time.monotonic() + 0.02)

    with pytest.raises(TimeoutError):
        do(flow())
    assert future.cancelled()


def test_wait_returns_an_available_result_even_past_the_deadline(do):
    def flow():
        return (yield Wait(finished("in time"), time.monotonic() - 5))

    assert do(flow()) == "in time"


def test_run_calls_in_this_thread_and_arun_in_another(do):
    caller = threading.get_ident()

    def flow():
        return (yield Call(threading.get_ident))

    assert (do(flow()) == caller) is (do is run)


def test_arun_passes_blocking_calls_to_offload():
    offloaded = []

    async def offload(step):
        offloaded.append(type(step))
        return step.function()

    def flow():
        first = yield Call(lambda: 1)
        return first + (yield CallHandler(lambda: 2))

    assert asyncio.run(arun(flow(), offload=offload)) == 3
    assert offloaded == [Call, CallHandler]


def test_arun_does_not_block_the_event_loop():
    async def main():
        entered = threading.Event()
        release = threading.Event()

        def block():
            entered.set()
            return release.wait(20)

        def flow():
            return (yield Call(block))

        task = asyncio.create_task(arun(flow()))
        assert await asyncio.to_thread(entered.wait, 20)
        release.set()
        return await task

    assert asyncio.run(main()) is True


def test_a_cancelled_task_raises_cancelled_error_in_the_flow():
    ended = []

    def flow():
        try:
            yield Await(asyncio.Event().wait)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main():
        task = asyncio.create_task(arun(flow()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == ["cancelled"]
