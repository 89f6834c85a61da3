"""Handlers that want SQLite's only write lock: one at a time, and with room for others between."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core.inbox.turns import LONGEST_PAUSE, PATIENCE, HandlerTurns

DEADLINE = 20.0


@pytest.fixture
def turns():
    return HandlerTurns()


def test_one_at_a_time(turns):
    at_once, most = [], []

    def work(_):
        with turns.turn():
            at_once.append(1)
            most.append(len(at_once))
            time.sleep(0.001)
            at_once.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert set(most) == {1}


@pytest.mark.parametrize(("seconds", "pause"), [(0.1, 0.1), (LONGEST_PAUSE + 0.1, LONGEST_PAUSE)])
def test_after_a_long_turn_the_lock_is_left_free(turns, seconds, pause):
    with turns.turn() as turn:
        turn.holds()
        time.sleep(seconds)
    ended = time.monotonic()
    with turns.turn():
        left_free = time.monotonic() - ended
    assert left_free >= pause - 0.01


def test_to_have_waited_for_the_lock_is_not_to_have_held_it(turns):
    with turns.turn():
        time.sleep(0.1)
    assert turns._free_until <= time.monotonic()


def test_a_turn_that_was_ended_by_another_thread_ends_once(turns):
    with turns.turn() as first:
        ending = threading.Thread(target=first.end)
        ending.start()
        ending.join(DEADLINE)
        with turns.turn() as second:
            first.end()
            assert turns._lock.locked()
            second.end()
            assert not turns._lock.locked()
    assert not turns._lock.locked()


def test_a_forked_child_takes_its_own(turns):
    with turns.turn():
        turns._renew()
        with turns.turn():
            assert turns._lock.locked()


async def test_on_a_loop_one_waits_without_blocking_it(turns):
    order = []

    async def work(name):
        async with turns.async_turn():
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    with turns.turn():
        waiting = [asyncio.create_task(work(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert order == []
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(waiting[1], work("third"))
    assert sorted(order) == ["second begins", "second ends", "third begins", "third ends"]
    assert order[0][:-6] == order[1][:-4]
    assert not turns._lock.locked()


def test_a_turn_with_nothing_to_wait_for_does_not_sleep():
    """A sleep of zero seconds gives the interpreter's lock away, which costs more than most handlers do."""
    slept = []
    turns = HandlerTurns(sleep=slept.append)
    with turns.turn() as turn:
        turn.holds()
    with turns.turn():
        pass
    assert slept == []


class Line:
    """Whoever sleeps in it has come to wait, and looks again when told to."""

    def __init__(self):
        self.seconds = 0.0
        self.turns = HandlerTurns(clock=lambda: self.seconds, sleep=self._sleep)
        self.order = []
        self._came = threading.Semaphore(0)
        self._looks = threading.Semaphore(0)

    def _sleep(self, _):
        self._came.release()
        assert self._looks.acquire(timeout=DEADLINE)

    def take_a_turn(self, name):
        with self.turns.turn():
            self.order.append(name)

    def wait_for_a_turn(self, name, pool):
        """Come while somebody else has the turn, which ends then."""
        with self.turns.turn():
            waiting = pool.submit(self.take_a_turn, name)
            assert self._came.acquire(timeout=DEADLINE)
        return waiting

    def let_look(self):
        self._looks.release()


def test_who_goes_on_passes_those_who_wait():
    """To hand the turn from thread to thread for each event costs more than most handlers do."""
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        waiting = line.wait_for_a_turn("who waited", pool)
        line.seconds += PATIENCE / 2
        for _ in range(3):
            line.take_a_turn("who goes on")
        line.let_look()
        waiting.result(DEADLINE)
    assert line.order == [*["who goes on"] * 3, "who waited"]


def test_who_has_waited_for_long_is_passed_no_more():
    line = Line()
    with ThreadPoolExecutor(2) as pool:
        first = line.wait_for_a_turn("first", pool)
        line.seconds += PATIENCE
        # Nobody holds it, and nobody has told the first one yet.
        second = pool.submit(line.take_a_turn, "second")
        with pytest.raises(TimeoutError):
            second.result(0.05)
        line.let_look()
        first.result(DEADLINE)
        second.result(DEADLINE)
    assert line.order == ["first", "second"]


async def test_on_a_loop_one_does_not_pass_who_has_waited_for_long():
    line = Line()

    async def take_a_turn():
        async with line.turns.async_turn():
            line.order.append("on a loop")

    with ThreadPoolExecutor(1) as pool:
        first = line.wait_for_a_turn("first", pool)
        line.seconds += PATIENCE
        second = asyncio.create_task(take_a_turn())
        await asyncio.sleep(0.05)
        assert not second.done()
        line.let_look()
        await asyncio.wrap_future(first)
        async with asyncio.timeout(DEADLINE):
            await second
    assert line.order == ["first", "on a loop"]


def test_who_is_cut_off_in_line_leaves_it():
    def cut_off(_):
        raise KeyboardInterrupt

    turns = HandlerTurns(sleep=cut_off)
    with turns.turn() as turn:
        with pytest.raises(KeyboardInterrupt), turns.turn():
            pytest.fail("the turn was somebody else's")
        assert turns._first_waits_since is None
        turn.end()
        with turns.turn():
            assert not turns._line.locked()
