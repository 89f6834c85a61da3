"""Answers of a secret callable are cached for a few seconds, and concurrent requests share one look-up."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core.errors import UnavailableError
from envoyou_core.reception import secret_cache
from envoyou_core.reception.secret_cache import AnswerCache
from envoyou_core.steps import Await, Call, arun, run


def answering(value, asked=None):
    def ask():
        if asked is not None:
            asked.append(value)
        yield from ()
        return value

    return ask


@pytest.fixture
def now():
    return [1_000.0]


@pytest.fixture
def cache(now):
    return AnswerCache(lambda: now[0])


def is_remembered(cache, webhook_id):
    asked = []
    run(cache.find(webhook_id, answering("again", asked)))
    return not asked


@pytest.mark.parametrize("value", ["keys", None])
@pytest.mark.parametrize(("later", "remembered"), [(0, True), (4.9, True), (5, False), (-0.1, False), (-3_600, False)])
def test_an_answer_is_cached_for_five_seconds(cache, now, value, later, remembered):
    run(cache.find("wh_1", answering(value)))
    now[0] += later
    assert is_remembered(cache, "wh_1") is remembered


def test_the_age_of_an_answer_counts_from_the_start_of_the_look_up(cache, now):
    def ask():
        now[0] += 5
        yield from ()
        return "keys"

    run(cache.find("wh_1", ask))
    assert not is_remembered(cache, "wh_1")


def test_a_new_answer_replaces_the_old_one(cache, now):
    for value in ("keys", None, "newer keys"):
        now[0] += 5
        assert run(cache.find("wh_1", answering(value))) == value
        assert run(cache.find("wh_1", answering("unused"))) == value


def test_the_cache_is_bounded_and_invented_ids_do_not_evict_real_ones(cache, monkeypatch):
    monkeypatch.setattr(secret_cache, "MAX_ANSWERS", 3)
    run(cache.find("wh_real", answering("keys")))
    for number in range(10):
        run(cache.find(f"wh_invented_{number}", answering(None)))
    assert is_remembered(cache, "wh_real")
    assert [number for number in range(10) if is_remembered(cache, f"wh_invented_{number}")] == [7, 8, 9]
    for number in range(3):
        run(cache.find(f"wh_{number}", answering("keys")))
    assert not is_remembered(cache, "wh_real")


def test_concurrent_threads_share_one_look_up(cache, until):
    release, asked = threading.Event(), []

    def ask():
        asked.append(True)
        yield Call(lambda: release.wait(20))
        return "keys"

    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(lambda: run(cache.find("wh_1", ask))) for _ in range(4)]
        until(lambda: asked)
        assert run(cache.find("wh_2", answering("others"))) == "others"
        release.set()
        assert [answer.result(20) for answer in answers] == ["keys"] * 4
    assert len(asked) == 1


@pytest.fixture
def release_and_asked():
    return asyncio.Event(), []


def asking_on_the_loop(release, asked, *results):
    """A look-up that waits and then returns or raises the next of `results`."""
    results = list(results)

    def ask():
        asked.append(True)
        yield Await(release.wait)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return ask


async def let_all_begin():
    for _ in range(5):
        await asyncio.sleep(0)


def test_concurrent_tasks_share_one_look_up(cache, release_and_asked):
    release, asked = release_and_asked
    ask = asking_on_the_loop(release, asked, "keys")

    async def serve():
        tasks = [asyncio.create_task(arun(cache.find("wh_1", ask))) for _ in range(4)]
        await let_all_begin()
        # A waiting request that is cancelled does not affect the others.
        tasks[1].cancel()
        await let_all_begin()
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, cancelled, *others = asyncio.run(serve())
    assert (first, others) == ("keys", ["keys", "keys"])
    assert isinstance(cancelled, asyncio.CancelledError)
    assert len(asked) == 1


def test_if_the_request_that_looks_up_is_cancelled_another_one_does(cache, release_and_asked):
    release, asked = release_and_asked
    ask = asking_on_the_loop(release, asked, "keys")

    async def serve():
        tasks = [asyncio.create_task(arun(cache.find("wh_1", ask))) for _ in range(3)]
        await let_all_begin()
        tasks[0].cancel()
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *others = asyncio.run(serve())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert others == ["keys", "keys"]
    assert len(asked) == 2


def test_waiting_requests_share_a_failure_and_the_next_request_looks_up_again(cache, release_and_asked):
    release, asked = release_and_asked
    ask = asking_on_the_loop(release, asked, UnavailableError("away"), "keys")

    async def serve():
        tasks = [asyncio.create_task(arun(cache.find("wh_1", ask))) for _ in range(3)]
        await let_all_begin()
        release.set()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        return failures, await arun(cache.find("wh_1", ask))

    failures, answer = asyncio.run(serve())
    assert [str(failure) for failure in failures] == ["away"] * 3
    assert answer == "keys"
    assert len(asked) == 2


def test_waiting_too_long_is_unavailable_and_the_look_up_continues(cache, monkeypatch, release_and_asked):
    monkeypatch.setattr(secret_cache, "MAX_WAIT", 0.0)
    release, asked = release_and_asked
    ask = asking_on_the_loop(release, asked, "keys")

    async def serve():
        first = asyncio.create_task(arun(cache.find("wh_1", ask)))
        await let_all_begin()
        with pytest.raises(UnavailableError, match="did not answer within"):
            await arun(cache.find("wh_1", ask))
        release.set()
        return await first

    assert asyncio.run(serve()) == "keys"
    assert len(asked) == 1


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_look_up_of_its_parent(cache):
    def ask():
        child = os.fork()
        if child == 0:
            found = None
            try:
                found = run(cache.find("wh_1", answering("of the child")))
            finally:
                os._exit(0 if found == "of the child" else 1)
        yield from ()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert run(cache.find("wh_1", ask)) == 0
