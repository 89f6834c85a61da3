"""A thread that is started when there is work, with a bounded queue."""

import os
import queue
import threading

import pytest

from envoyou_core.reception.bounded_thread import BoundedThread


class Gate:
    """A call that blocks until `opened` is set."""

    def __init__(self):
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.opened.wait(20)
        return threading.current_thread()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def test_calls_run_one_after_the_other_in_one_thread_that_ends_when_the_queue_is_empty(gate):
    thread = BoundedThread("one", max_calls=3, max_size=10)
    done = [thread.submit(gate, size=1), *(thread.submit(threading.current_thread, size=1) for _ in range(2))]
    gate.opened.set()
    [worker] = {future.result(20) for future in done}
    worker.join(20)
    assert (worker.name, worker.daemon, worker.is_alive()) == ("one", True, False)
    assert thread.submit(threading.current_thread, size=1).result(20) is not worker


def test_the_queue_is_bounded_by_count_and_size(gate):
    thread = BoundedThread("one", max_calls=3, max_size=10)
    running = thread.submit(gate, size=6)
    with pytest.raises(queue.Full):
        thread.submit(list, size=5)
    waiting = [thread.submit(list, size=2) for _ in range(2)]
    with pytest.raises(queue.Full):
        thread.submit(list, size=0)
    gate.opened.set()
    running.result(20).join(20)
    assert [future.result(0) for future in waiting] == [[], []]
    assert thread.submit(list, size=10).result(20) == []


def test_a_single_call_may_exceed_the_size_limit():
    assert BoundedThread("one", max_calls=1, max_size=10).submit(list, size=11).result(20) == []


def test_an_exception_of_a_call_does_not_affect_others(gate):
    thread = BoundedThread("one", max_calls=3, max_size=10)
    thread.submit(gate, size=1)
    failed, fine = thread.submit(lambda: 1 // 0, size=1), thread.submit(list, size=1)
    gate.opened.set()
    with pytest.raises(ZeroDivisionError):
        failed.result(20)
    assert fine.result(20) == []


def test_a_cancelled_call_is_skipped(gate):
    thread = BoundedThread("one", max_calls=3, max_size=10)
    running, called = thread.submit(gate, size=1), []
    given_up = thread.submit(lambda: called.append(1), size=1)
    assert given_up.cancel()
    gate.opened.set()
    running.result(20).join(20)
    assert called == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_its_own_thread_and_queue(gate):
    thread = BoundedThread("one", max_calls=1, max_size=10)
    thread.submit(gate, size=1)
    assert gate.begun.wait(20)
    with thread._lock:
        child = os.fork()
        if not child:
            os._exit(0 if thread.submit(lambda: 7, size=1).result(20) == 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(queue.Full):
        thread.submit(list, size=1)
