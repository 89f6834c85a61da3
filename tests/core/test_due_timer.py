"""Events that become due without being accepted are announced: retries, and what another process has left behind."""

import queue
import threading
from itertools import pairwise

import pytest

from envoyou_core import RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.observability import WakeFailed
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import announcer
from envoyou_core.worker.due_timer import MARGIN, DueTimer, Intervals, ReadPlan

SECRET = "whsec_test"
PATIENCE = 20
LEASE = 30.0
OFTEN = Intervals(read=0.02, full=0.02, overdue=0.02, longest=0.02)


class Due:
    """Events, by the monotonic times at which they are due, and what a plan announces of them."""

    def __init__(self, *due, unseen=()):
        self.due, self.unseen = [*due], unseen
        """Those that are `unseen` are added only at the time at which they are due."""
        self.plan = ReadPlan(Intervals())
        self.announced = []

    def run(self, until, now=0.0):
        while now < until:
            later_than = self.plan.next_read(now)
            stored = [*self.due, *(at for at in self.unseen if at <= now)]
            waits = [at - now for at in stored if later_than is None or at - now > later_than]
            if self.plan.evaluate(now, min(waits, default=None)):
                self.announced.append(now)
            now += Intervals().read
        return self.announced


def test_what_was_left_behind_is_announced_at_the_first_read():
    assert Due(-3600.0).run(until=1.0) == [0.0]


def test_a_retry_is_announced_within_a_second_of_being_due():
    [announced] = Due(2.3).run(until=8.0)
    assert 2.3 <= announced <= 3.3


def test_a_retry_in_the_distance_is_announced_within_a_second_too():
    [announced] = Due(LEASE + 14.5).run(until=LEASE + 16.0)
    assert LEASE + 14.5 <= announced <= LEASE + 15.5


def test_what_a_process_left_behind_that_died_before_it_announced_is_announced_within_a_second():
    announced = Due(unseen=(4.3, 37.5)).run(until=60.0)
    assert any(4.3 <= at <= 5.3 for at in announced)
    assert any(37.5 <= at <= 38.5 for at in announced)


def test_an_event_that_stays_due_hides_no_other():
    """For example, because its type is paused."""
    announced = Due(-3600.0, 2.3, 34.7).run(until=36.0)
    assert any(2.3 <= at <= 3.3 for at in announced)
    assert any(34.7 <= at <= 35.7 for at in announced)


def test_an_event_that_stays_overdue_is_announced_again_and_ever_less_often():
    announced = Due(-0.5).run(until=250.0)
    assert [later - earlier for earlier, later in pairwise(announced)] == [10, 20, 40, 60, 60]


def test_a_read_of_new_events_overlaps_the_one_before():
    plan = ReadPlan(Intervals())
    assert plan.next_read(100.0) is None
    plan.evaluate(100.0, 0.5)
    assert plan.next_read(101.0) == pytest.approx(-1.0 - MARGIN)


# The thread


@pytest.fixture
def make():
    timers = []

    def make(announce=lambda: None, *, seconds_until_due=lambda later_than: None, report_error=None, **others):
        others.setdefault("intervals", OFTEN)
        timers.append(
            DueTimer(
                announce,
                seconds_until_due=seconds_until_due,
                lease=LEASE,
                report_error=report_error or [].append,
                **others,
            )
        )
        return timers[-1]

    yield make
    for timer in timers:
        timer.stop()


def test_an_unavailable_inbox_is_reported_and_read_again(make):
    announced, failures, answers = queue.Queue(), queue.Queue(), iter([ConnectionError("unavailable")])

    def seconds_until_due(later_than):
        for error in answers:
            raise error
        return 0.0

    make(lambda: announced.put("due"), seconds_until_due=seconds_until_due, report_error=failures.put).watch()
    assert str(failures.get(timeout=PATIENCE)) == "unavailable"
    assert announced.get(timeout=PATIENCE) == "due"


def test_a_failure_is_not_reported_with_each_accepted_event(make):
    failures = queue.Queue()
    timer = make(
        seconds_until_due=lambda later_than: 1 // 0,
        report_error=failures.put,
        intervals=Intervals(read=0.01, full=PATIENCE + 1),
    )
    timer.watch()
    assert failures.get(timeout=PATIENCE)
    timer.watch()
    with pytest.raises(queue.Empty):
        failures.get(timeout=0.1)


@pytest.mark.parametrize(
    ("until_due", "may_be_leased"), [(LEASE, True), (0.0, True), (LEASE + 1, False), (None, False)]
)
def test_processes_that_are_gone_are_looked_for_while_events_may_be_leased(make, until_due, may_be_leased):
    looks, reads = [], queue.Queue()
    timer = make(
        seconds_until_due=lambda later_than: reads.put(None) or until_due, recover=lambda: looks.append(True) or 0
    )
    timer.watch()
    for _ in range(3):
        reads.get(timeout=PATIENCE)
    assert bool(looks) is may_be_leased


def test_what_they_held_is_announced(make):
    announced = queue.Queue()
    ended = iter([2])
    timer = make(
        lambda: announced.put("due"), seconds_until_due=lambda later_than: LEASE, recover=lambda: next(ended, 0)
    )
    timer.watch()
    assert announced.get(timeout=PATIENCE) == "due"
    with pytest.raises(queue.Empty):
        announced.get(timeout=0.1)


def test_stop_ends_the_thread_and_watch_starts_another(make):
    ended, threads = queue.Queue(), queue.Queue()
    timer = make(
        seconds_until_due=lambda later_than: threads.put(threading.current_thread()),
        on_thread_exit=lambda: ended.put(threading.current_thread()),
    )
    timer.watch()
    first = threads.get(timeout=PATIENCE)
    timer.stop()
    assert ended.get(timeout=PATIENCE) is first
    first.join(PATIENCE)
    assert not first.is_alive()
    timer.watch()
    while threads.get(timeout=PATIENCE) is first:
        pass


def test_a_forked_child_starts_a_thread_of_its_own(make):
    threads = queue.Queue()
    timer = make(seconds_until_due=lambda later_than: threads.put(threading.current_thread()))
    timer.watch()
    first = threads.get(timeout=PATIENCE)
    inherited = timer._stopped
    timer._pid -= 1  # as a child finds it
    timer.watch()
    while threads.get(timeout=PATIENCE) is first:
        pass
    inherited.set()


def test_a_thread_that_cannot_be_started_is_reported(make, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    failures, reads = [], queue.Queue()
    timer = make(seconds_until_due=reads.put, report_error=failures.append)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        timer.watch()
    assert [str(error) for error in failures] == ["can't start new thread"]
    timer.watch()
    reads.get(timeout=PATIENCE)


# A function as handoff


@pytest.fixture
def make_webhooks():
    made = []

    def make_webhooks(handoff, **settings):
        webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff=handoff, **settings)
        made.append(webhooks)
        return webhooks

    yield make_webhooks
    for webhooks in made:
        webhooks.stop()


def timers():
    return {thread for thread in threading.enumerate() if thread.name == "envoyou-due-timer"}


def accept(webhooks):
    delivery = sign_delivery(event := sample_event(), secret=SECRET)
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    return event


def test_a_due_retry_is_announced_without_an_event(make_webhooks):
    announced = queue.Queue()

    def work(event_id):
        announced.put(event_id)
        webhooks.drain()

    webhooks = make_webhooks(work, retry=RetryPolicy(initial_delay=0.3, jitter=False))
    done = threading.Event()

    @webhooks.on("*")
    def fails_first(event, attempt):
        if attempt == 1:
            raise ConnectionError("not yet")
        done.set()

    event = accept(webhooks)
    assert announced.get(timeout=PATIENCE) == event.id
    assert done.wait(PATIENCE)
    assert announced.get(timeout=PATIENCE) == ""


@pytest.mark.parametrize("begin", ["start", "ensure_worker", "wake", "lifespan"])
async def test_a_process_that_accepts_events_announces_what_was_left_behind(make_webhooks, begin):
    announced = queue.Queue()
    webhooks = make_webhooks(announced.put)
    webhooks.on("*")(lambda event: None)
    webhooks.inbox.add(NewEvent(sample_event())).result()
    if begin == "lifespan":
        async with webhooks.lifespan():
            assert announced.get(timeout=PATIENCE) == ""
            begun = timers()
        for thread in begun:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    else:
        getattr(webhooks, begin)()
        assert announced.get(timeout=PATIENCE) == ""


def test_a_function_that_does_not_return_is_reported(make_webhooks, monkeypatch):
    monkeypatch.setattr(announcer, "MAX_CALL", 0.0)
    release, reported = threading.Event(), queue.Queue()
    webhooks = make_webhooks(lambda event_id: release.wait(PATIENCE))
    webhooks.subscribe(lambda notice: reported.put(notice) if isinstance(notice, WakeFailed) else None)
    accept(webhooks)
    assert "the handoff has not returned for" in reported.get(timeout=PATIENCE).detail
    release.set()


def test_a_process_that_only_drains_announces_nothing(make_webhooks):
    webhooks = make_webhooks([].append)
    webhooks.on("*")(lambda event: None)
    webhooks.inbox.add(NewEvent(sample_event())).result()
    # A thread of an earlier test may be about to end.
    before = timers()
    assert webhooks.drain() == 1
    assert timers() <= before


def test_the_next_due_event_is_found_if_another_is_due_already(make_webhooks):
    webhooks = make_webhooks("manual")
    inbox = webhooks._inbox
    assert webhooks.seconds_until_next_due() is None
    inbox.add(NewEvent(sample_event())).result()
    [claim] = inbox.claim(1, LEASE)
    inbox.settle(claim, Settlement(Status.FAILED, 1, retry_in=30.0))
    inbox.add(NewEvent(sample_event())).result()
    assert 0 < webhooks.seconds_until_next_due() <= 30
