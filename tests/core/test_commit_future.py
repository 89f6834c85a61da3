"""The future of a commit behaves as any other one."""

import asyncio
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed, wait
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest

from envoyou_core.inbox.commit_future import CommitFuture

PATIENCE = 20.0


@pytest.fixture(params=[Future, CommitFuture])
def future(request):
    return request.param()


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def settled_by_writer(future, error=None):
    """Do what a writer does with an item; returns false if nobody waits for it any longer."""
    if not future.set_running_or_notify_cancel():
        return False
    if error is None:
        future.set_result("stored")
    else:
        future.set_exception(error)
    return True


def test_a_result(future):
    assert not future.done()
    assert settled_by_writer(future)
    assert future.done()
    assert future.result() == future.result(0) == "stored"
    assert future.exception() is None
    assert not future.cancelled()
    assert not future.cancel()


def test_an_error(future):
    error = ValueError("refused")
    assert settled_by_writer(future, error)
    assert future.done()
    assert future.exception(0) is error
    with pytest.raises(ValueError, match="refused"):
        future.result()


def test_an_error_of_what_was_not_queued(future):
    future.set_exception(TimeoutError("full"))
    assert not future.cancel()
    with pytest.raises(TimeoutError, match="full"):
        future.result()


def test_who_cancels_is_not_served(future):
    called = []
    future.add_done_callback(called.append)
    assert future.cancel()
    assert future.cancel()
    assert called == [future]
    assert future.done()
    assert future.cancelled()
    assert not settled_by_writer(future)
    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(CancelledError):
        future.exception()


def test_what_is_being_committed_is_not_cancelled(future):
    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.cancel()
    assert not future.done()
    future.set_result("stored")
    assert future.result() == "stored"


def test_a_wait_ends_with_its_time_limit(future):
    with pytest.raises((FutureTimeoutError, TimeoutError)):
        future.result(0.0)
    with pytest.raises((FutureTimeoutError, TimeoutError)):
        future.exception(0.0)
    assert settled_by_writer(future)
    assert future.result(0.0) == "stored"


def test_threads_that_wait_are_woken(future):
    results = []
    threads = [in_thread(lambda: results.append(future.result(PATIENCE))) for _ in range(3)]
    assert settled_by_writer(future)
    for thread in threads:
        thread.join()
    assert results == ["stored"] * 3


def test_callbacks_are_called_in_their_order_and_once(future, caplog):
    called = []

    def fail(_):
        raise ValueError("failed")

    future.add_done_callback(lambda _: called.append("first"))
    future.add_done_callback(fail)
    future.add_done_callback(lambda _: called.append("second"))
    assert settled_by_writer(future)
    future.add_done_callback(lambda _: called.append("late"))
    assert called == ["first", "second", "late"]
    assert "exception calling callback" in caplog.text


def test_waiting_for_several(future):
    other = type(future)()
    assert wait([future, other], timeout=0).not_done == {future, other}
    thread = in_thread(settled_by_writer, other)
    assert wait([future, other], timeout=PATIENCE, return_when=FIRST_COMPLETED).done == {other}
    thread.join()
    assert future.cancel()
    thread = in_thread(settled_by_writer, future)
    assert set(as_completed([future, other], timeout=PATIENCE)) == {future, other}
    thread.join()


async def test_a_loop_that_waits(future):
    waiting = asyncio.wrap_future(future)
    thread = in_thread(settled_by_writer, future)
    assert await waiting == "stored"
    thread.join()


@pytest.mark.parametrize("waits_by", ["result", "callback", "cancel"])
def test_waiting_and_the_result_at_the_same_time(waits_by):
    """In any order: a thread that waits gets the result, a callback is called once, and one side decides."""
    for _ in range(300):
        future = CommitFuture()
        both = threading.Barrier(2)
        found = []

        def settle(future=future, both=both, found=found):
            both.wait()
            found.append(settled_by_writer(future))

        thread = in_thread(settle)
        both.wait()
        if waits_by == "result":
            assert future.result(PATIENCE) == "stored"
        elif waits_by == "callback":
            called = threading.Event()
            times = []
            future.add_done_callback(lambda _, times=times, called=called: (times.append(1), called.set()))
            assert called.wait(PATIENCE)
            thread.join()
            assert times == [1]
        else:
            is_cancelled = future.cancel()
            thread.join()
            assert found == [not is_cancelled]
        thread.join()
