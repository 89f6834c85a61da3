"""The queue for SQLite's write lock: one handler at a time, with gaps for other writers."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core.inbox.handler_queue import MAX_PAUSE, PATIENCE, HandlerTransactionQueue

DEADLINE = 20.0


class Clock:
    """A clock that moves only when the test sets it or code sleeps on it."""

    def __init__(self):
        self.now = 1_000.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue():
    return HandlerTransactionQueue()


def test_one_at_a_time(queue):
    at_once, most = [], []

    def work(_):
        with queue.slot():
            at_once.append(1)
            most.append(len(at_once))
            time.sleep(0.001)
            at_once.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert set(most) == {1}


@pytest.mark.parametrize(("seconds", "pause"), [(0.1, 0.1), (MAX_PAUSE + 0.1, MAX_PAUSE)])
def test_after_a_long_transaction_the_lock_is_left_free(clock, seconds, pause):
    queue = HandlerTransactionQueue(clock=clock, sleep=clock.sleep)
    with queue.slot() as slot:
        slot.lock_taken()
        clock.now += seconds
    with queue.slot():
        assert clock.slept == [pytest.approx(pause)]


def test_time_spent_waiting_for_the_lock_does_not_count(clock):
    queue = HandlerTransactionQueue(clock=clock, sleep=clock.sleep)
    with queue.slot():
        clock.now += 0.1
    with queue.slot():
        assert clock.slept == []


def test_a_slot_released_by_another_thread_is_released_once(queue):
    with queue.slot() as first:
        ending = threading.Thread(target=first.release)
        ending.start()
        ending.join(DEADLINE)
        with queue.slot() as second:
            first.release()
            assert queue._lock.locked()
            second.release()
            assert not queue._lock.locked()
    assert not queue._lock.locked()


def test_a_forked_child_has_a_queue_of_its_own(queue):
    with queue.slot():
        queue._renew()
        with queue.slot():
            assert queue._lock.locked()


async def test_waiting_does_not_block_the_loop(queue):
    order = []

    async def work(name):
        async with queue.async_slot():
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    with queue.slot():
        waiting = [asyncio.create_task(work(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert order == []
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(waiting[1], work("third"))
    assert sorted(order) == ["second begins", "second ends", "third begins", "third ends"]
    assert order[0][:-6] == order[1][:-4]
    assert not queue._lock.locked()


def test_a_free_slot_is_taken_without_sleeping():
    """A sleep of zero seconds gives the interpreter's lock away, which costs more than most handlers do."""
    slept = []
    queue = HandlerTransactionQueue(sleep=slept.append)
    with queue.slot() as slot:
        slot.lock_taken()
    with queue.slot():
        pass
    assert slept == []


class SteppedQueue:
    """A queue whose waiting threads poll only when the test lets them."""

    def __init__(self):
        self.seconds = 0.0
        self.queue = HandlerTransactionQueue(clock=lambda: self.seconds, sleep=self._sleep)
        self.order = []
        self._came = threading.Semaphore(0)
        self._polls = threading.Semaphore(0)

    def _sleep(self, _):
        self._came.release()
        assert self._polls.acquire(timeout=DEADLINE)

    def take_slot(self, name):
        with self.queue.slot():
            self.order.append(name)

    def wait_for_slot(self, name, pool):
        """Ask for the slot while another thread holds it, then release it."""
        with self.queue.slot():
            waiting = pool.submit(self.take_slot, name)
            assert self._came.acquire(timeout=DEADLINE)
        return waiting

    def let_poll(self):
        self._polls.release()


def test_a_running_handler_barges_past_the_queue():
    """Handing the slot from thread to thread for each event costs more than most handlers do."""
    stepped = SteppedQueue()
    with ThreadPoolExecutor(1) as pool:
        waiting = stepped.wait_for_slot("waiting", pool)
        stepped.seconds += PATIENCE / 2
        for _ in range(3):
            stepped.take_slot("running")
        stepped.let_poll()
        waiting.result(DEADLINE)
    assert stepped.order == [*["running"] * 3, "waiting"]


def test_nobody_barges_past_a_handler_that_has_waited_for_long():
    stepped = SteppedQueue()
    with ThreadPoolExecutor(2) as pool:
        first = stepped.wait_for_slot("first", pool)
        stepped.seconds += PATIENCE
        # The slot is free, and the first one has not polled yet.
        second = pool.submit(stepped.take_slot, "second")
        with pytest.raises(TimeoutError):
            second.result(0.05)
        stepped.let_poll()
        first.result(DEADLINE)
        second.result(DEADLINE)
    assert stepped.order == ["first", "second"]


async def test_a_loop_does_not_barge_past_a_handler_that_has_waited_for_long():
    stepped = SteppedQueue()

    async def take_slot():
        async with stepped.queue.async_slot():
            stepped.order.append("on a loop")

    with ThreadPoolExecutor(1) as pool:
        first = stepped.wait_for_slot("first", pool)
        stepped.seconds += PATIENCE
        second = asyncio.create_task(take_slot())
        await asyncio.sleep(0.05)
        assert not second.done()
        stepped.let_poll()
        await asyncio.wrap_future(first)
        async with asyncio.timeout(DEADLINE):
            await second
    assert stepped.order == ["first", "on a loop"]


def test_a_handler_that_is_interrupted_leaves_the_queue():
    def cut_off(_):
        raise KeyboardInterrupt

    queue = HandlerTransactionQueue(sleep=cut_off)
    with queue.slot() as slot:
        with pytest.raises(KeyboardInterrupt), queue.slot():
            pytest.fail("the slot was taken")
        assert queue._first_waits_since is None
        slot.release()
        with queue.slot():
            assert not queue._queue.locked()
