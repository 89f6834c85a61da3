"""What is counted of deliveries, attempts and events, and when it is stored."""

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timedelta

import pytest

from envoyou_core import ConfigurationError, RetryLater, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.analytics.counter import MAX_ROWS, OTHER, Counter
from envoyou_core.analytics.recorder import Recorder
from envoyou_core.analytics.rollups import Measure, RollUp
from envoyou_core.analytics.ticker import TICKER, Ticker
from envoyou_core.inbox import Added, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import (
    Accepted,
    CountsNotStored,
    HandlerSkipped,
    Notices,
    Rejected,
    Settled,
    Spooled,
    WorkerStarted,
)
from envoyou_core.testing import sample_event, sign_delivery
from tests.core.conftest import pause_until

SECRET = "whsec_test"
HOUR = timedelta(hours=1)
STARTED = WorkerStarted("default", "thread", "memory:")


def request(type="user.created", body=None, **values):
    delivery = sign_delivery(sample_event(type, **values) if body is None else body, secret=SECRET)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


@pytest.fixture
def webhooks():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=2))
    yield webhooks
    webhooks.stop()


def test_deliveries_are_counted_by_how_they_were_answered(webhooks):
    first = request()
    assert [webhooks.receive(first).status for _ in range(3)] == [200] * 3
    assert webhooks.receive(request(body=b"[]")).status == 400
    assert webhooks.receive(WebhookRequest.from_http("POST", {"Content-Type": "application/json"}, b"{}")).status == 401
    assert webhooks.receive(WebhookRequest.from_http("POST", {}, b"{}")).status == 415
    webhooks.inbox.add = lambda entry: 1 / 0
    assert webhooks.receive(request()).status == 503
    deliveries = webhooks.analytics.summary(HOUR).deliveries
    assert (deliveries.accepted, deliveries.duplicates, deliveries.invalid) == (1, 2, 1)
    assert (deliveries.unauthorized, deliveries.refused, deliveries.unavailable) == (1, 1, 1)
    assert deliveries.rate == 3 / 5
    assert webhooks.analytics.summary(HOUR).response.number == 5


def test_attempts_and_events_are_counted_by_how_they_ended(webhooks):
    @webhooks.on("user.*", name="works")
    def works(event):
        pass

    @webhooks.on("user.updated", name="fails")
    def fails(event):
        raise ValueError

    @webhooks.on("user.deleted", name="waits")
    def waits(event):
        raise RetryLater(0)

    for type in ("user.created", "user.updated", "user.deleted", "auth.login"):
        webhooks.receive(request(type))
    webhooks.drain()
    webhooks.inbox._clock = lambda now=webhooks.inbox._clock: now() + 60
    webhooks.drain()
    summary = webhooks.analytics.summary(HOUR)
    assert (summary.attempts.succeeded, summary.attempts.failed, summary.attempts.postponed) == (3, 3, 1)
    assert (summary.events.processed, summary.events.ignored, summary.events.retried) == (1, 1, 2)
    assert summary.events.dead == 2
    assert summary.handlers["fails"].attempts.error_rate == 1.0
    assert summary.handlers["works"].durations.number == 3
    assert summary.processing.number == 1


def test_a_rearmed_event_is_accepted_and_a_spooled_one_counted_apart(clock):
    counter = Counter(clock)
    counter.count(Accepted("evt_1", "user.created", Added.REARMED))
    counter.count(Accepted("evt_1", "user.created", Added.BODY_DIFFERS))
    counter.count(Spooled("evt_2", "user.created"))
    counter.count(Rejected(400, "invalid_payload", "unreadable"))
    counter.count(Settled("evt_1", "user.created", Status.PROCESSING, 1, None, None, 0.1))
    counted = sorted(rollup.tally.measure for rollup in counter.take())
    assert counted == [Measure.ACCEPTED, Measure.DUPLICATE, Measure.REFUSED, Measure.SPOOLED]


def test_nothing_is_counted_if_analytics_is_off():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", analytics=False)
    webhooks.receive(request())
    assert webhooks.analytics.summary(HOUR).deliveries.genuine == 0
    with pytest.raises(ConfigurationError, match="analytics must be true or false, got int"):
        Webhooks(secret=SECRET, inbox="memory:", analytics=1)


def test_a_summary_is_of_all_processes_and_of_its_window(clock):
    inbox = MemoryInbox(clock=clock)
    one, other = (Webhooks(secret=SECRET, inbox=inbox, handoff="manual", clock=clock) for _ in range(2))
    for minutes_later in (0, 90):
        clock.advance(60 * minutes_later)
        for webhooks in (one, other):
            delivery = sign_delivery(sample_event(), secret=SECRET, timestamp=int(clock.now))
            webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
            webhooks.store_counts()
    assert one.analytics.summary(HOUR).deliveries.accepted == 2
    assert one.analytics.summary().deliveries.accepted == 4
    before = clock.moment() - HOUR
    assert one.analytics.summary(HOUR, until=before).deliveries.accepted == 2
    one.stop(), other.stop()


@pytest.mark.parametrize(
    ("window", "until", "message"),
    [(timedelta(0), None, "window must be longer than 0"), (HOUR, datetime(2026, 1, 1), "until must have a time zone")],  # noqa: DTZ001
)
def test_a_window_must_be_one(webhooks, window, until, message):
    with pytest.raises(ValueError, match=message):
        webhooks.analytics.summary(window, until=until)


def test_the_figures_outlive_the_events(webhooks):
    webhooks.on("user.created")(lambda event: None)
    webhooks.receive(request())
    webhooks.drain()
    webhooks.inbox.prune(timedelta(seconds=-1))
    assert webhooks.inbox.stats().total == 0
    assert webhooks.analytics.summary(HOUR).events.processed == 1


def test_maintenance_folds_old_counts(clock):
    webhooks = Webhooks(secret=SECRET, inbox=MemoryInbox(clock=clock), handoff="manual", clock=clock, retention=None)
    delivery = sign_delivery(sample_event(), secret=SECRET, timestamp=int(clock.now))
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.store_counts()
    clock.advance(49 * 3600)
    webhooks.apply_retention()
    assert {rollup.period for rollup in webhooks.inbox._rollups} == {3600}
    webhooks.stop()


# When it is stored


class Store:
    def __init__(self):
        self.stored: list[RollUp] = []
        self.fails = False

    def __call__(self, rollups):
        if self.fails:
            raise OSError("no database")
        self.stored += rollups

    @property
    def number(self):
        return sum(rollup.tally.number for rollup in self.stored)


@pytest.fixture
def ticker():
    return Ticker(interval=0.01)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def make_recorder(store, clock, ticker):
    recorders = []

    def make(**options):
        recorders.append(Recorder(store, name="default", notices=Notices(), clock=clock, ticker=ticker, **options))
        return recorders[-1]

    yield make
    for recorder in recorders:
        recorder.stop()


def threads(before=()):
    """Those of tickers that were not there before."""
    return [it for it in threading.enumerate() if it.name == "envoyou-ticker" and it not in before]


def test_a_thread_stores_the_counts_from_the_first_one_on(make_recorder, store):
    before = threads()
    recorder = make_recorder()
    assert threads(before) == []
    for _ in range(3):
        recorder(Accepted("evt_1", "user.created", Added.NEW))
    assert len(threads(before)) == 1
    pause_until(lambda: store.number == 3)
    recorder.stop()
    pause_until(lambda: threads(before) == [])
    recorder(Accepted("evt_1", "user.created", Added.NEW))
    pause_until(lambda: store.number == 4)


def test_one_thread_serves_all_and_ends_with_the_last(ticker, store, clock):
    before = threads()
    recorders = [Recorder(store, name="default", notices=Notices(), clock=clock, ticker=ticker) for _ in range(3)]
    for recorder in recorders:
        recorder(STARTED)
    assert len(threads(before)) == 1
    del recorder, recorders
    gc.collect()
    pause_until(lambda: threads(before) == [])


def test_a_worker_that_handles_nothing_ticks_as_well(make_recorder):
    ticked, ended = threading.Event(), threading.Event()
    recorder = make_recorder(on_tick=ticked.set, on_tick_end=ended.set)
    recorder(STARTED)
    assert ticked.wait(20)
    assert ended.wait(20)


def test_without_permission_no_thread_stores_anything(make_recorder, store, ticker):
    recorder = make_recorder(may_tick=lambda: False)
    before = threads()
    recorder(Accepted("evt_1", "user.created", Added.NEW))
    assert threads(before) == []
    ticker.interval = 3600.0
    recorder.flush_if_due()
    assert store.number == 0
    ticker.interval = 0.0
    recorder.flush_if_due()
    assert store.number == 1


def test_counts_that_cannot_be_stored_when_the_process_ends_are_no_warning(store, clock, ticker):
    notices, emitted = Notices(), []
    notices.subscribe(emitted.append)
    recorder = Recorder(store, name="default", notices=notices, clock=clock, may_tick=lambda: False, ticker=ticker)
    ticker.add(recorder.tick)
    store.fails = True
    recorder(Accepted("evt_1", "user.created", Added.NEW, seconds=0.2))
    ticker._end()
    ticker.remove(recorder.tick)
    assert (emitted, bool(recorder._counter)) == ([], True)


def test_counts_that_cannot_be_stored_are_kept_and_reported_once(store, clock, ticker):
    notices, emitted = Notices(), []
    notices.subscribe(emitted.append)
    recorder = Recorder(store, name="default", notices=notices, clock=clock, may_tick=lambda: False, ticker=ticker)
    store.fails = True
    for _ in range(2):
        recorder(Accepted("evt_1", "user.created", Added.NEW, seconds=0.2))
        assert not recorder.flush()
    assert emitted == [CountsNotStored("default", "OSError: no database")]
    store.fails = False
    assert recorder.flush()
    (rollup,) = store.stored
    assert (rollup.tally.number, rollup.tally.total, sum(rollup.tally.buckets)) == (2, 400_000, 2)
    store.fails = True
    recorder(Accepted("evt_1", "user.created", Added.NEW))
    recorder.flush()
    assert len(emitted) == 2


def test_memory_is_bounded_while_nothing_can_be_stored(clock):
    counter = Counter(clock)
    for number in range(MAX_ROWS + 50):
        counter.count(Accepted("evt_1", f"type.{number}", Added.NEW))
    rollups = counter.take()
    assert len(rollups) == MAX_ROWS + 1
    assert [rollup.tally.number for rollup in rollups if rollup.tally.event_type == OTHER] == [50]
    assert not counter


def test_a_long_handler_name_is_cut(clock):
    counter = Counter(clock)
    counter.count(HandlerSkipped("evt_1", "user.created", "h" * 300))
    assert counter.take()[0].tally.handler == "h" * 255


def test_the_ticker_starts_no_thread_in_a_process_that_ends(ticker, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not ticker.add(ticker.tick)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_a_process_counted_is_stored_at_its_end_and_once_if_it_forks(tmp_path):
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.testing import sample_event, sign_delivery

        def receive():
            delivery = sign_delivery(sample_event(), secret="whsec_test")
            assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200

        webhooks = Webhooks(secret="whsec_test", inbox=sys.argv[1], handoff="manual")
        webhooks.inbox.open()
        receive()
        webhooks.inbox.close()
        child = os.fork()
        if child == 0:
            receive()
            webhooks.stop()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    webhooks = Webhooks(secret=SECRET, inbox=url, handoff="manual")
    assert webhooks.analytics.summary(HOUR).deliveries.accepted == 2
    webhooks.inbox.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_loses_only_what_it_counted_since_the_last_interval(tmp_path):
    script = """
        import os, signal, sys, time
        from datetime import UTC, datetime
        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.analytics.ticker import TICKER
        from envoyou_core.testing import sample_event, sign_delivery

        def receive():
            delivery = sign_delivery(sample_event(), secret="whsec_test")
            assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200

        def stored():
            tallies = webhooks.inbox.sum_rollups(datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))
            return sum(tally.number for tally in tallies)

        TICKER.interval = 0.05
        webhooks = Webhooks(secret="whsec_test", inbox=sys.argv[1], handoff="manual", alerts=None)
        webhooks.inbox.open()
        for _ in range(3):
            receive()
        while stored() < 3:
            time.sleep(0.01)
        receive()
        receive()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    url = f"sqlite:///{tmp_path / 'inbox.db'}"
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    killed = subprocess.run(command, timeout=60, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    webhooks = Webhooks(secret=SECRET, inbox=url, handoff="manual")
    assert webhooks.inbox.stats().total == 5
    assert 3 <= webhooks.analytics.summary(HOUR).deliveries.accepted <= 5
    webhooks.inbox.close()
    # The interval outside of tests, as the documentation says.
    assert TICKER.interval == 10.0


async def test_the_end_of_a_lifespan_stores_the_counts(webhooks):
    async with webhooks.lifespan():
        await webhooks.areceive(request())
        await webhooks.adrain()
    assert webhooks.inbox.sum_rollups(datetime.now().astimezone() - HOUR, datetime.now().astimezone() + HOUR)


def test_the_figures_are_values_of_json(webhooks):
    webhooks.receive(request())
    document = json.loads(json.dumps(webhooks.analytics.summary(HOUR).to_json()))
    assert document["deliveries"]["accepted"] == 1
    assert document["types"]["user.created"]["accepted"] == 1
