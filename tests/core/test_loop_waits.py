"""Waiting on an event loop for results of threads."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest

from envoyou_core.loop_waits import wait_on_loop

PATIENCE = 20.0


def later():
    return time.monotonic() + PATIENCE


async def begun(*coroutines):
    """Start tasks, and let each of them wait."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_a_result_that_is_there_is_returned_at_once():
    future = Future()
    future.set_result("stored")
    assert await wait_on_loop(future, 0.0) == "stored"


async def test_a_thread_that_resolves_many_futures_wakes_the_loop_once(monkeypatch):
    loop = asyncio.get_running_loop()
    futures = [Future() for _ in range(50)]
    tasks = await begun(*(wait_on_loop(future, later()) for future in futures))
    wake_ups = []
    call_soon_threadsafe = loop.call_soon_threadsafe
    monkeypatch.setattr(
        loop, "call_soon_threadsafe", lambda *call: wake_ups.append(call) or call_soon_threadsafe(*call)
    )

    def resolve():
        for number, future in enumerate(futures):
            future.set_result(number)

    thread = threading.Thread(target=resolve)
    thread.start()
    thread.join()  # The loop does not run meanwhile, as if it were busy.
    assert await asyncio.gather(*tasks) == [*range(50)]
    assert len(wake_ups) == 1


async def test_results_that_come_one_by_one_wake_the_loop_each_time():
    for number in range(3):
        future = Future()
        [task] = await begun(wait_on_loop(future, later()))
        threading.Timer(0, future.set_result, [number]).start()
        assert await asyncio.wait_for(task, PATIENCE) == number


async def test_an_error_is_raised():
    future = Future()
    [task] = await begun(wait_on_loop(future, later()))
    future.set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await task


async def test_at_the_deadline_the_future_is_cancelled():
    future = Future()
    with pytest.raises(TimeoutError):
        await wait_on_loop(future, time.monotonic() + 0.01)
    assert future.cancelled()


async def test_a_deadline_that_has_passed_for_one_does_not_end_the_others():
    late, on_time = Future(), Future()
    [waiting] = await begun(wait_on_loop(on_time, later()))
    with pytest.raises(TimeoutError):
        await wait_on_loop(late, time.monotonic())
    assert not waiting.done()
    on_time.set_result("stored")
    assert await waiting == "stored"


async def test_a_task_that_is_cancelled_cancels_the_future():
    future = Future()
    [task] = await begun(wait_on_loop(future, later()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()
    with pytest.raises((CancelledError, FutureTimeoutError)):
        future.result(0)


async def test_the_timer_ends_with_the_last_wait(monkeypatch):
    loop = asyncio.get_running_loop()
    checks = []
    monkeypatch.setattr(loop, "call_later", lambda _, check: checks.append(check))
    future = Future()
    [task] = await begun(wait_on_loop(future, later()))
    [check] = checks
    check()
    assert len(checks) == 2
    future.set_result(None)
    await task
    check()
    assert len(checks) == 2


def test_a_loop_that_has_ended_is_not_woken():
    future = Future()

    async def give_up():
        await begun(wait_on_loop(future, later()))

    asyncio.run(give_up())
    assert future.cancelled()
    running = Future()
    running.set_running_or_notify_cancel()
    loop = asyncio.new_event_loop()
    task = loop.create_task(wait_on_loop(running, later()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    running.set_result("too late")


def test_each_loop_of_a_thread_has_its_own_waits():
    async def main(number):
        future = Future()
        threading.Timer(0, future.set_result, [number]).start()
        return await wait_on_loop(future, later())

    assert [asyncio.run(main(number)) for number in range(3)] == [0, 1, 2]
