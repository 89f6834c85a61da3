"""Handlers that want SQLite's only write lock: one at a time, and with room for others between."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core.inbox.turns import LONGEST_PAUSE, HandlerTurns

PATIENCE = 20.0


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
        ending.join(PATIENCE)
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
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(waiting[1], work("third"))
    assert sorted(order) == ["second begins", "second ends", "third begins", "third ends"]
    assert order[0][:-6] == order[1][:-4]
    assert not turns._lock.locked()


def test_a_turn_with_nothing_to_wait_for_does_not_sleep(turns, monkeypatch):
    """A sleep of zero seconds gives the interpreter's lock away, which costs more than most handlers do."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with turns.turn() as turn:
        turn.holds()
    with turns.turn():
        pass
    assert slept == []
