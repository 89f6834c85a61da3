"""Hints to a task queue: sent by a thread, and once more while something waits for too long."""

from __future__ import annotations

import queue
import threading

import pytest

from envoyou_django import hints
from envoyou_django.hints import Hints

PATIENCE = 20


@pytest.fixture
def hasty(monkeypatch):
    for name in ("SWEEP_INTERVAL", "LONGEST_SWEEP_INTERVAL", "OVERDUE", "SILENCE"):
        monkeypatch.setattr(hints, name, 0.02)


@pytest.fixture
def make():
    made = []

    def make(hint, failed=lambda error: None, overdue=lambda: 0.0):
        made.append(Hints(hint, failed, overdue))
        return made[-1]

    yield make
    for each in made:
        each.stop_sweeping()


def test_one_for_each_time_it_is_asked_for(make):
    told = queue.Queue()
    sender = make(lambda: told.put(threading.current_thread().name))
    sender.send()
    sender.send()
    assert {told.get(timeout=PATIENCE) for _ in range(2)} == {"envoyou-nudges"}


def test_again_and_again_while_something_waits(hasty, make):
    told, waits = queue.Queue(), threading.Event()
    sender = make(lambda: told.put("hint"), overdue=lambda: 1.0 if waits.is_set() else 0.01)
    sender.start_sweeping()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.2)
    waits.set()
    assert [told.get(timeout=PATIENCE) for _ in range(3)] == ["hint"] * 3


def test_less_and_less_often_while_they_are_in_vain(monkeypatch, make):
    waited = []

    class Stopped:
        def wait(self, interval):
            waited.append(interval)
            return len(waited) > 6

    sender = make(lambda: None, overdue=lambda: 0.0 if len(waited) == 5 else 100.0)
    sender._sweep(Stopped())
    assert waited == [10, 20, 40, 60, 60, 10, 20]


def test_an_inbox_that_is_away_is_reported_and_looked_into_again(hasty, make):
    told, failures, looks = queue.Queue(), queue.Queue(), iter([ConnectionError("away"), 5.0])

    def overdue():
        found = next(looks, 0.0)
        if isinstance(found, Exception):
            raise found
        return found

    sender = make(lambda: told.put("hint"), failed=failures.put, overdue=overdue)
    sender.start_sweeping()
    assert str(failures.get(timeout=PATIENCE)) == "away"
    assert told.get(timeout=PATIENCE) == "hint"


def test_a_queue_that_does_not_answer_is_reported(hasty, make):
    release, failures = threading.Event(), queue.Queue()
    sender = make(lambda: release.wait(PATIENCE), failed=failures.put)
    sender.start_sweeping()
    sender.send()
    assert str(failures.get(timeout=PATIENCE)).startswith("the task queue has not answered for")
    release.set()


def test_it_ends_when_it_is_told_to(hasty, make):
    before = threading.active_count()
    sender = make(lambda: None)
    sender.start_sweeping()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "envoyou-sweep"]
    sender.stop_sweeping()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    # Another test's may have ended, too.
    assert threading.active_count() <= before
