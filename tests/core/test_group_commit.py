"""Group commit: who asks while one commit is in flight shares the next one."""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from envoyou_core.inbox.group_commit import GroupCommit

PATIENCE = 20


class Store:
    """What is committed to; each commit waits at a gate, and some items are refused."""

    def __init__(self):
        self.batches = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.refused = {}

    def commit(self, items):
        self.entered.release()
        assert self.gate.acquire(timeout=PATIENCE)
        self.batches.append(list(items))
        for item in items:
            if item in self.refused:
                raise self.refused[item]
        return [item * 10 for item in items]

    def let(self, commits):
        for _ in range(commits):
            self.gate.release()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def writer(store):
    writer = GroupCommit(store.commit, is_outage=lambda error: isinstance(error, ConnectionError), max_batch=4)
    yield writer
    writer.close()
    store.let(100)


def submit_while_one_is_in_flight(writer, store, items):
    first = writer.submit(0)
    assert store.entered.acquire(timeout=PATIENCE)
    return [first, *(writer.submit(item) for item in items)]


def test_an_idle_writer_commits_at_once_alone(writer, store):
    store.let(1)
    assert writer.submit(1).result(PATIENCE) == 10
    assert store.batches == [[1]]


def test_a_result_comes_after_the_commit_not_before(writer, store):
    future = writer.submit(1)
    assert store.entered.acquire(timeout=PATIENCE)
    assert not future.done()
    store.let(1)
    assert future.result(PATIENCE) == 10


def test_what_waits_meanwhile_shares_the_next_commit(writer, store):
    futures = submit_while_one_is_in_flight(writer, store, [1, 2, 3])
    store.let(2)
    assert [future.result(PATIENCE) for future in futures] == [0, 10, 20, 30]
    assert store.batches == [[0], [1, 2, 3]]


def test_a_batch_is_bounded(writer, store):
    futures = submit_while_one_is_in_flight(writer, store, range(1, 10))
    store.let(4)
    assert [future.result(PATIENCE) for future in futures] == [10 * item for item in range(10)]
    assert store.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_an_item_that_is_refused_fails_alone(writer, store):
    store.refused = {2: ValueError("refused")}
    futures = submit_while_one_is_in_flight(writer, store, [1, 2, 3])
    store.let(5)
    assert [futures[number].result(PATIENCE) for number in (0, 1, 3)] == [0, 10, 30]
    with pytest.raises(ValueError, match="refused"):
        futures[2].result(PATIENCE)
    assert store.batches == [[0], [1, 2, 3], [1], [2], [3]]


def test_an_outage_fails_the_batch_without_a_try_for_each(writer, store):
    store.refused = {1: ConnectionError("away")}
    futures = submit_while_one_is_in_flight(writer, store, [1, 2, 3])
    store.let(2)
    for future in futures[1:]:
        with pytest.raises(ConnectionError):
            future.result(PATIENCE)
    assert store.batches == [[0], [1, 2, 3]]
    store.refused = {}
    store.let(1)
    assert writer.submit(5).result(PATIENCE) == 50


def test_by_default_no_error_is_an_outage(store):
    store.refused = {1: ConnectionError("away")}
    writer = GroupCommit(store.commit, max_batch=128)
    futures = submit_while_one_is_in_flight(writer, store, [1, 2])
    store.let(4)
    assert futures[2].result(PATIENCE) == 20
    assert isinstance(futures[1].exception(PATIENCE), ConnectionError)
    writer.close()


def test_who_gave_up_waiting_is_not_stored(writer, store):
    futures = submit_while_one_is_in_flight(writer, store, [1, 2, 3])
    assert futures[2].cancel()
    store.let(2)
    assert futures[3].result(PATIENCE) == 30
    assert store.batches == [[0], [1, 3]]
    with pytest.raises(CancelledError):
        futures[2].result(PATIENCE)


def test_a_batch_of_which_everyone_gave_up_is_not_committed(writer, store):
    futures = submit_while_one_is_in_flight(writer, store, [1, 2])
    assert futures[1].cancel()
    assert futures[2].cancel()
    store.let(1)
    assert futures[0].result(PATIENCE) == 0
    store.let(1)
    assert writer.submit(3).result(PATIENCE) == 30
    assert store.batches == [[0], [3]]


def test_what_is_being_committed_cannot_be_given_up(writer, store):
    [future] = submit_while_one_is_in_flight(writer, store, [])
    assert not future.cancel()
    store.let(1)
    assert future.result(PATIENCE) == 0


def test_closing_stores_what_was_given_before(writer, store):
    futures = submit_while_one_is_in_flight(writer, store, [1, 2])
    thread = the_writer_thread()
    writer.close()
    store.let(2)
    assert [future.result(PATIENCE) for future in futures] == [0, 10, 20]
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_closing_twice_or_unused_is_nothing(store):
    writer = GroupCommit(store.commit, max_batch=128)
    writer.close()
    writer.close()
    store.let(1)
    assert writer.submit(1).result(PATIENCE) == 10
    writer.close()
    writer.close()


def test_it_works_again_after_it_was_closed(writer, store):
    store.let(2)
    assert writer.submit(1).result(PATIENCE) == 10
    writer.close()
    assert writer.submit(2).result(PATIENCE) == 20


def test_many_threads_are_served_by_one_writer(store):
    store.let(10_000)
    writer = GroupCommit(store.commit, max_batch=128)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda item: writer.submit(item).result(PATIENCE), range(400)))
    assert results == [10 * item for item in range(400)]
    assert sorted(item for batch in store.batches for item in batch) == list(range(400))
    writer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_writer_of_its_own():
    script = """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core.inbox.group_commit import GroupCommit
        gate = threading.Event()
        def commit(items):
            if os.getpid() == parent:
                gate.wait(20)
            return [(item, os.getpid()) for item in items]
        parent = os.getpid()
        writer = GroupCommit(commit, max_batch=128)
        theirs = [writer.submit("parent's"), writer.submit("parent's too")]
        child = os.fork()
        if child == 0:
            mine = writer.submit("child's").result(20)
            os._exit(0 if mine == ("child's", os.getpid()) and not theirs[1].done() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gate.set()
        assert [future.result(20)[1] for future in theirs] == [parent, parent]
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_was_forked_while_its_parent_was_asking_is_served_all_the_same():
    script = """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core.inbox.group_commit import GroupCommit
        writer = GroupCommit(list)
        with writer._lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if writer.submit("child's").result(20) == "child's" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_what_is_asked_for_while_the_writer_is_being_closed_is_served(store):
    store.let(10_000)
    writer = GroupCommit(store.commit)
    ended = threading.Event()

    def close_again_and_again():
        while not ended.is_set():
            writer.close()

    closer = threading.Thread(target=close_again_and_again)
    closer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = list(pool.map(writer.submit, range(2000)))
        assert [future.result(PATIENCE) for future in futures] == [10 * item for item in range(2000)]
    finally:
        ended.set()
        closer.join(PATIENCE)


def test_the_writer_says_when_it_ends(store):
    ended = threading.Event()
    writer = GroupCommit(store.commit, on_thread_exit=ended.set)
    store.let(1)
    assert writer.submit(1).result(PATIENCE) == 10
    assert not ended.is_set()
    writer.close()
    assert ended.wait(PATIENCE)


def test_the_writer_says_when_there_is_nothing_left_to_store(store):
    rested = threading.Semaphore(0)
    writer = GroupCommit(store.commit, max_batch=2, on_idle=rested.release)
    futures = submit_while_one_is_in_flight(writer, store, range(1, 5))
    store.let(2)
    assert futures[2].result(PATIENCE) == 20
    assert store.entered.acquire(timeout=PATIENCE)
    assert not rested.acquire(blocking=False)
    store.let(1)
    assert futures[4].result(PATIENCE) == 40
    assert rested.acquire(timeout=PATIENCE)
    writer.close()


def the_writer_thread():
    return [thread for thread in threading.enumerate() if thread.name == "envoyou-inbox-writer"][-1]


def test_more_than_a_store_that_hangs_may_keep_waiting_fails_at_once(store):
    writer = GroupCommit(store.commit, max_waiting=2)
    first = writer.submit(1)
    assert store.entered.acquire(timeout=PATIENCE)
    kept = [writer.submit(number) for number in (2, 3)]
    with pytest.raises(TimeoutError, match="2 events are already waiting"):
        writer.submit(4).result(0)
    store.let(2)
    assert [future.result(PATIENCE) for future in (first, *kept)] == [10, 20, 30]
    assert [sorted(batch) for batch in store.batches] == [[1], [2, 3]]
    writer.close()
