"""The spool: accepting events while the inbox is down, and moving them to the inbox afterwards."""

import asyncio
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from envoyou_core import ConfigurationError, Tenant, WebhookRequest, Webhooks, sign
from envoyou_core.inbox import Added, ClaimFilter, NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import (
    Accepted,
    InboxDown,
    InboxUp,
    LeasesEnded,
    MoveRefused,
    NoSpool,
    Rejected,
    RejectedNotKept,
    Spooled,
    SpoolFailed,
    WorkerFailed,
)
from envoyou_core.reception import receiver
from envoyou_core.spool import relay
from envoyou_core.steps import Wait
from envoyou_core.testing import sample_event, sign_delivery
from tests.inbox.acts import HandClock

SECRET = "whsec_test"
RECEIVED = (200, {"received": True})
DUPLICATE = (200, {"received": True, "duplicate": True})
UNAVAILABLE = 503
ANSWER_BUDGET = receiver.ANSWER_BUDGET
PATIENCE = 20


class OutageError(Exception):
    """Raised by an inbox that is down."""


class FailingInbox(MemoryInbox):
    """An inbox that can be down, hang, or refuse some events."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.down = False
        self.hangs = False
        self.refuses = set()
        self.attempted = []
        self.pending = []

    def add(self, entry):
        self.attempted.append(entry.event.id)
        if self.hangs:
            self.pending.append((entry, future := Future()))
            return future
        if self.down:
            raise OutageError("connection refused")
        if entry.event.id in self.refuses:
            future = Future()
            future.set_exception(ValueError("not this one"))
            return future
        return super().add(entry)

    def keep_rejected(self, rejection):
        self.open()
        return super().keep_rejected(rejection)

    def open(self):
        if self.down:
            raise OutageError("connection refused")


@pytest.fixture
def inbox(clock):
    return FailingInbox(clock=clock)


@pytest.fixture
def make(tmp_path, inbox, clock, monkeypatch):
    """Make `Webhooks` that share `inbox` and a spool. Events are moved automatically only with `moves=True`."""
    # A busy machine may need longer than a sender waits. Tests of the budget set their own.
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", PATIENCE)
    made = []

    def make(*, moves=False, **given):
        values = {"secret": SECRET, "inbox": inbox, "handoff": "manual", "spool": url(tmp_path), "clock": clock}
        webhooks = Webhooks(**values | given)
        if not moves:
            webhooks._relay.start = lambda: None
        webhooks.notices = []
        webhooks.subscribe(webhooks.notices.append)
        made.append(webhooks)
        return webhooks

    yield make
    for webhooks in made:
        webhooks.stop()
        if webhooks.spool is not None:
            webhooks.spool.close()


@pytest.fixture
def webhooks(make):
    return make()


class Waits:
    """Records how long the receiver would wait for each store. Its clock is set by hand, and a hanging store times out.

    Attributes:
        now: the seconds that have passed.
        until: the deadlines of the waits, in their order.
    """

    def __init__(self, inbox):
        self._inbox = inbox
        self.now = 0.0
        self.until = []

    def monotonic(self):
        return self.now

    def wait(self, future, deadline):
        self.until.append(deadline)
        hangs = any(future is pending for _, pending in self._inbox.pending)
        return Wait(future, 0.0 if hangs else time.monotonic() + PATIENCE)


@pytest.fixture
def waits(make, inbox, monkeypatch):
    waits = Waits(inbox)
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", ANSWER_BUDGET)
    monkeypatch.setattr(receiver, "time", waits)
    monkeypatch.setattr(receiver, "Wait", waits.wait)
    return waits


@pytest.fixture(params=["receive", "areceive"])
def answer(request):
    def send(webhooks, event=None, **options):
        delivery = sign_delivery(
            sample_event() if event is None else event, secret=SECRET, **sent_at(webhooks, options)
        )
        wanted = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        here = request.param == "receive"
        response = webhooks.receive(wanted) if here else asyncio.run(webhooks.areceive(wanted))
        return response.status, json.loads(response.body)

    return send


def sent_at(webhooks, options):
    return {"timestamp": int(webhooks._reception.clock()), **options}


def deliver(webhooks, event=None, **options):
    event = sample_event() if event is None else event
    delivery = sign_delivery(event, secret=SECRET, **sent_at(webhooks, options))
    response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 200
    return event


def move(webhooks, times=1):
    for _ in range(times):
        webhooks._reception.clock.advance(0.001)
        webhooks._relay.move_due()


def url(folder):
    return f"sqlite:///{folder / 'spool.db'}"


def of_type(webhooks, *types):
    return [notice for notice in webhooks.notices if isinstance(notice, types)]


def ids(inbox):
    return {record.event.id for record in inbox.list(limit=1000)}


# Accepting


def test_an_event_is_accepted_while_the_inbox_is_down(webhooks, inbox, answer):
    inbox.down = True
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert webhooks.spool.get(event.id).event.body == event.body
    assert ids(inbox) == set()
    assert webhooks.notices == [
        InboxDown("default", "OutageError: connection refused"),
        Spooled(event.id, event.type),
        Accepted(event.id, event.type, Added.NEW),
    ]


def test_the_spool_is_not_used_while_the_inbox_is_up(webhooks, inbox, answer):
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert ids(inbox) == {event.id}
    assert webhooks.spool.stats().total == 0
    assert webhooks.notices == [Accepted(event.id, event.type, Added.NEW)]


def test_a_hanging_inbox_gets_half_of_the_answer_budget(webhooks, inbox, answer, waits):
    inbox.hangs = True
    assert answer(webhooks) == RECEIVED
    assert waits.until == [1.5, 3.0]
    [(_, future)] = inbox.pending
    assert future.cancelled(), "an insertion that has not begun must not happen late"
    assert "the inbox did not answer within" in webhooks.notices[0].detail


def test_no_request_waits_for_an_inbox_that_is_down(webhooks, inbox, answer, waits):
    inbox.hangs = True
    for _ in range(5):
        assert answer(webhooks) == RECEIVED
    assert len(inbox.attempted) == 1
    assert len(of_type(webhooks, InboxDown)) == 1
    assert webhooks.spool.stats().total == 5


def test_a_redelivery_to_the_spool_is_a_duplicate(webhooks, inbox, answer):
    inbox.down = True
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert answer(webhooks, event) == DUPLICATE
    assert webhooks.spool.stats().total == 1


def test_the_nonce_is_bound_once_the_event_is_in_the_spool(webhooks, inbox, answer, monkeypatch):
    inbox.down = True
    with monkeypatch.context() as full:
        full.setattr(webhooks.spool, "add", inbox.add)
        assert answer(webhooks, nonce="nonce-1")[0] == UNAVAILABLE
    assert answer(webhooks, nonce="nonce-1") == RECEIVED
    assert answer(webhooks, nonce="nonce-1")[0] == 401


def test_a_delivery_is_answered_503_if_both_the_inbox_and_the_spool_fail(webhooks, inbox, answer, monkeypatch):
    inbox.down = True

    def full(entry):
        raise OSError("no space left on device")

    monkeypatch.setattr(webhooks.spool, "add", full)
    for _ in range(2):
        assert answer(webhooks)[0] == UNAVAILABLE
    assert "connection refused" in webhooks.notices[-1].detail
    assert "no space left on device" in webhooks.notices[-1].detail


def test_a_hanging_spool_is_answered_503_in_time(webhooks, inbox, answer, monkeypatch):
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.2)
    monkeypatch.setattr(webhooks.spool, "add", lambda entry: Future())
    inbox.hangs = True
    assert answer(webhooks)[0] == UNAVAILABLE


def test_a_failing_spool_does_not_block_an_inbox_that_is_up_again(webhooks, inbox, answer, monkeypatch):
    inbox.down = True
    answer(webhooks)
    inbox.down = False
    monkeypatch.setattr(webhooks.spool, "add", lambda entry: Future())
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.2)
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert event.id in ids(inbox)
    attempts = len(inbox.attempted)
    monkeypatch.setattr(webhooks.spool, "add", None)
    assert answer(webhooks) == RECEIVED
    assert len(inbox.attempted) == attempts + 1, "the inbox is tried first again"


def test_the_spool_has_its_own_time_if_the_inbox_has_used_up_the_budget(webhooks, inbox, waits, monkeypatch):
    """An inbox that stores in the calling thread cannot be interrupted."""

    def slow(entry):
        waits.now += 10
        raise OutageError

    monkeypatch.setattr(inbox, "add", slow)
    deliver(webhooks)
    assert waits.until == [10 + 1.5]
    assert webhooks.spool.stats().total == 1


# Moving


def test_a_moved_event_keeps_all_its_data(make, inbox, clock):
    def secrets_of(webhook_id):
        return Tenant(webhook_id.removeprefix("wh_"), SECRET)

    webhooks = make(secret=secrets_of)
    inbox.down = True
    clock.advance(0.123456)
    accepted_at = clock.moment()
    body = b'{"id": "evt_1",  "type":"user.created", "created": 1, "data": {"object": {"name": "\\ud83d Zo\xc3\xab"}}}'
    deliver(webhooks, body, webhook_id="wh_acme", event_type="user.created")
    clock.advance(3600)
    inbox.down = False
    assert webhooks.spool.get("evt_1", tenant="acme").received_at == accepted_at
    webhooks._relay.move_due()
    record = inbox.get("evt_1", tenant="acme")
    assert record.event.body == body
    assert record.received_at == accepted_at
    assert record.webhook_id == "wh_acme"
    assert record.status is Status.RECEIVED
    assert record.next_attempt_at == clock.moment()


def test_moved_events_are_deleted_from_the_spool(webhooks, inbox):
    inbox.down = True
    for _ in range(250):
        deliver(webhooks)
    inbox.down = False
    webhooks._relay.move_due()
    assert inbox.stats().total == 250
    assert webhooks.spool.stats().total == 0
    assert of_type(webhooks, InboxUp) == [InboxUp("default", 250)]


@pytest.mark.parametrize("drained", ["in a thread", "on a loop"])
def test_a_failing_spool_does_not_stop_a_drain(webhooks, inbox, monkeypatch, drained):
    def fail():
        raise OSError("disk error")

    monkeypatch.setattr(webhooks._relay, "move_due", fail)
    webhooks.on("*")(lambda event: None)
    deliver(webhooks)
    assert (webhooks.drain() if drained == "in a thread" else asyncio.run(webhooks.adrain())) == 1
    assert of_type(webhooks, SpoolFailed) == [SpoolFailed("default", "OSError: disk error", None)]


def test_each_outage_is_reported_separately(webhooks, inbox):
    for events in (3, 2):
        inbox.down = True
        for _ in range(events):
            deliver(webhooks)
        inbox.down = False
        webhooks._relay.move_due()
    detail = "OutageError: connection refused"
    assert of_type(webhooks, InboxDown, InboxUp) == [
        InboxDown("default", detail),
        InboxUp("default", 3),
        InboxDown("default", detail),
        InboxUp("default", 2),
    ]


def test_a_probe_moves_one_event_only(webhooks, inbox):
    inbox.down = True
    events = [deliver(webhooks) for _ in range(5)]
    inbox.attempted.clear()
    move(webhooks, times=3)
    assert inbox.attempted == [event.id for event in events[:3]], "a different event each time"
    assert webhooks.spool.stats().by_status[Status.RECEIVED] == 5
    assert len(of_type(webhooks, InboxDown)) == 1
    assert not of_type(webhooks, InboxUp)


def test_the_inbox_is_tried_first_again_once_an_event_has_reached_it(webhooks, inbox):
    inbox.down = True
    deliver(webhooks)
    inbox.down = False
    deliver(webhooks)
    assert ids(inbox) == set()
    webhooks._relay.move_due()
    deliver(webhooks)
    assert inbox.stats().total == 3
    assert len(of_type(webhooks, Spooled)) == 2


def test_an_event_whose_commit_was_not_confirmed_is_a_duplicate_when_it_is_moved(webhooks, inbox, monkeypatch, clock):
    def commit_and_fail(entry):
        clock.advance(5)
        MemoryInbox.add(inbox, entry)
        raise OutageError("the connection broke after the commit")

    accepted_at = clock.moment()
    with monkeypatch.context() as breaking:
        breaking.setattr(inbox, "add", commit_and_fail)
        event = deliver(webhooks)
    assert webhooks.spool.get(event.id).received_at == inbox.get(event.id).received_at == accepted_at
    webhooks._relay.move_due()
    assert inbox.stats().total == 1
    assert webhooks.spool.stats().total == 0


def test_an_event_stays_in_the_spool_if_the_inbox_hangs_during_the_move(webhooks, inbox, monkeypatch):
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    inbox.down = True
    event = deliver(webhooks)
    inbox.down, inbox.hangs = False, True
    webhooks._relay.move_due()
    assert webhooks.spool.get(event.id).status is Status.RECEIVED
    assert webhooks._relay.inbox_is_down


def test_a_late_answer_does_not_count_as_a_refusal(webhooks, inbox, monkeypatch):
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    # All insertions begin in time, however busy the machine is.
    monkeypatch.setattr(relay, "time", SimpleNamespace(monotonic=lambda: 0.0))
    inbox.down = True
    slow, *others = [deliver(webhooks) for _ in range(5)]
    inbox.down = False
    add = inbox.add
    monkeypatch.setattr(inbox, "add", lambda entry: Future() if entry.event.id == slow.id else add(entry))
    move(webhooks, times=5)
    assert ids(inbox) == {event.id for event in others}
    assert webhooks.spool.get(slow.id).status is Status.RECEIVED
    assert not of_type(webhooks, MoveRefused)


def test_a_batch_ends_when_an_inbox_that_stores_in_the_calling_thread_has_used_up_its_time(
    webhooks, inbox, monkeypatch
):
    inbox.down = True
    for _ in range(5):
        deliver(webhooks)
    inbox.down = False
    webhooks._relay.inbox_answered()
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    add = inbox.add
    monkeypatch.setattr(inbox, "add", lambda entry: (time.sleep(0.1), add(entry))[1])
    inbox.attempted.clear()
    webhooks._relay._move_batch(webhooks._relay._state)
    assert len(inbox.attempted) == 1
    assert webhooks.spool.stats().by_status[Status.RECEIVED] == 4
    assert not webhooks._relay.inbox_is_down


def test_a_crash_between_the_two_commits_neither_loses_nor_doubles_an_event(webhooks, make, inbox, clock, monkeypatch):
    inbox.down = True
    event = deliver(webhooks)
    inbox.down = False

    def die(claims):
        raise SystemExit

    monkeypatch.setattr(webhooks.spool, "remove", die)
    with pytest.raises(SystemExit):
        webhooks._relay.move_due()
    assert ids(inbox) == ids(webhooks.spool) == {event.id}
    another = make()
    another._relay.move_due()
    assert another.spool.stats().total == 1, "the lease has not expired"
    clock.advance(relay.LEASE)
    another._relay.move_due()
    assert another.spool.stats().total == 0
    assert inbox.stats().total == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show what is needed")
def test_what_a_killed_process_had_leased_is_moved_at_once(webhooks, inbox):
    inbox.down = True
    event = deliver(webhooks)
    with subprocess.Popen([sys.executable, "-c", ""]) as killed:
        pass
    gone = replace(webhooks._relay._presence.process, id="f" * 32, pid=killed.pid)
    webhooks.spool.beat(gone)
    webhooks.spool.claim(1, relay.LEASE, ClaimFilter(process_id=gone.id))
    inbox.down = False
    # Without a second that passes.
    webhooks._relay.move_due()
    assert ids(inbox) == {event.id}
    assert webhooks.spool.stats().total == 0
    [notice] = of_type(webhooks, LeasesEnded)
    assert (notice.leases, notice.pids) == (1, str(killed.pid))
    # The process that has moved it is listed, so that its own leases can be ended.
    assert {process.id for process in webhooks.spool.processes()} == {gone.id, webhooks._relay._presence.process.id}


def test_a_slow_relay_does_not_delete_an_event_that_another_relay_has_leased(webhooks, make, inbox, clock):
    inbox.down = True
    deliver(webhooks)
    spool = webhooks.spool
    slow = spool.claim(1, relay.LEASE)
    clock.advance(relay.LEASE)
    [held] = spool.claim(1, relay.LEASE)
    spool.remove(slow)
    spool.release(slow)
    assert spool.get(held.event.id).status is Status.PROCESSING
    spool.remove([held])
    assert spool.stats().total == 0


def test_a_released_event_is_due_at_once_and_keeps_its_refusals(webhooks, clock):
    spool = webhooks.spool
    for event_id in ("evt_new", "evt_refused"):
        spool.add(NewEvent(sample_event(id=event_id))).result(PATIENCE)
    refused = next(claim for claim in spool.claim(2, 60) if claim.event.id == "evt_refused")
    spool.settle(refused, Settlement(Status.FAILED, 1, retry_in=0, error="ValueError"))
    clock.advance(60)
    spool.release(spool.claim(2, 60))
    records = {record.event.id: record for record in spool.list()}
    assert {event_id: record.status for event_id, record in records.items()} == {
        "evt_new": Status.RECEIVED,
        "evt_refused": Status.FAILED,
    }
    assert {record.next_attempt_at for record in records.values()} == {clock.moment()}


def test_a_dead_event_that_is_redelivered_to_the_spool_gets_new_attempts(webhooks, inbox):
    event = deliver(webhooks)
    [claim] = inbox.claim(1, 60)
    inbox.settle(claim, Settlement(Status.DEAD, 3))
    inbox.down = True
    assert deliver(webhooks, event)
    inbox.down = False
    webhooks._relay.move_due()
    assert inbox.get(event.id).status is Status.RECEIVED


def test_two_processes_move_each_event_once(make, inbox):
    one, two = make(), make()
    inbox.down = True
    for _ in range(300):
        deliver(one)
    two._relay.inbox_failed(OutageError())
    inbox.down = False
    inbox.attempted.clear()
    threads = [threading.Thread(target=webhooks._relay.move_due) for webhooks in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(Counter(inbox.attempted).values()) == {1}
    assert inbox.stats().total == 300
    assert one.spool.stats().total == 0


def test_a_process_tries_the_inbox_again_if_another_has_moved_its_events(make, inbox):
    one, two = make(), make()
    inbox.down = True
    deliver(one)
    assert one._relay.inbox_is_down
    inbox.down = False
    two._relay.move_due()
    one._relay.move_due()
    assert not one._relay.inbox_is_down
    assert not of_type(one, InboxUp), "this process has not reached the inbox itself"
    deliver(one)
    one._relay.move_due()
    assert of_type(one, InboxUp) == [InboxUp("default", 0)]


def test_an_empty_spool_says_nothing_about_the_inbox_if_this_process_has_spooled_nothing(webhooks, inbox, monkeypatch):
    inbox.down = True
    deliver(webhooks)
    inbox.down = False
    webhooks._relay.move_due()
    webhooks._relay.inbox_failed(OutageError())
    webhooks._relay.move_due()
    assert webhooks._relay.inbox_is_down


# Refused events


def test_a_refused_event_stays_in_the_spool_is_reported_and_delays_no_other(webhooks, inbox, clock):
    inbox.down = True
    refused = deliver(webhooks)
    inbox.refuses.add(refused.id)
    others = {deliver(webhooks).id for _ in range(150)}
    inbox.down = False
    move(webhooks, times=3)
    assert ids(inbox) == others
    assert not webhooks._relay.inbox_is_down
    [record] = webhooks.spool.list()
    assert (record.event.id, record.status, record.last_error) == (
        refused.id,
        Status.FAILED,
        "ValueError: not this one",
    )
    assert of_type(webhooks, MoveRefused) == [
        MoveRefused(refused.id, refused.type, "ValueError: not this one", relay.FIRST_PAUSE)
    ]
    assert timedelta() < record.next_attempt_at - clock.moment() <= timedelta(seconds=relay.FIRST_PAUSE)


def test_a_refused_event_is_retried_with_delays_of_up_to_an_hour_until_it_is_accepted(webhooks, inbox, clock):
    inbox.down = True
    refused = deliver(webhooks)
    inbox.refuses.add(refused.id)
    deliver(webhooks)
    inbox.down = False
    move(webhooks, times=3)
    for _ in range(12):
        clock.now = webhooks.spool.get(refused.id).next_attempt_at.timestamp()
        webhooks._relay.move_due()
    pauses = [notice.retry_in for notice in of_type(webhooks, MoveRefused)]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    clock.advance(3600)
    [claim] = webhooks.spool.claim(1, 60)
    webhooks.spool.settle(claim, Settlement(Status.FAILED, 5_000, retry_in=0))
    move(webhooks)
    assert of_type(webhooks, MoveRefused)[-1].retry_in == 3600
    assert not webhooks._relay.inbox_is_down, "a refusal says nothing about the inbox"
    inbox.refuses.clear()
    clock.advance(3600)
    webhooks._relay.move_due()
    assert refused.id in ids(inbox)
    assert webhooks.spool.stats().total == 0


def test_a_refused_event_looks_like_an_outage_until_another_event_gets_through(webhooks, inbox):
    refused = sample_event()
    inbox.refuses.add(refused.id)
    deliver(webhooks, refused)
    webhooks._relay.move_due()
    assert webhooks._relay.inbox_is_down
    assert not of_type(webhooks, MoveRefused)
    other = deliver(webhooks)
    move(webhooks, times=3)
    assert ids(inbox) == {other.id}
    assert not webhooks._relay.inbox_is_down
    assert [notice.event_id for notice in of_type(webhooks, MoveRefused)] == [refused.id]


# The thread


def test_events_are_moved_automatically_when_the_inbox_is_up_again(make, inbox, until, monkeypatch, answer):
    monkeypatch.setattr(relay, "PROBE_INTERVAL", 0.02)
    webhooks = make(moves=True)
    inbox.down = True
    events = [sample_event() for _ in range(20)]
    for event in events:
        assert answer(webhooks, event) == RECEIVED
    inbox.down = False
    until(lambda: of_type(webhooks, InboxUp))
    assert ids(inbox) == {event.id for event in events}
    assert webhooks.spool.stats().total == 0
    before = len(of_type(webhooks, Spooled))
    answer(webhooks)
    assert len(of_type(webhooks, Spooled)) == before


def test_new_events_in_the_spool_do_not_increase_the_rate_of_the_probes(webhooks, inbox):
    class Stop:
        """Ends the loop of the thread after three pauses, and records them."""

        def __init__(self):
            self.pauses = []

        def is_set(self):
            return len(self.pauses) == 3

        def wait(self, seconds):
            self.pauses.append(seconds)
            deliver(webhooks)

    inbox.down = True
    deliver(webhooks)
    webhooks._relay._run(webhooks._relay._state, stop := Stop())
    assert stop.pauses == [relay.PROBE_INTERVAL] * 3
    assert len(inbox.attempted) == 1 + 3


@pytest.mark.parametrize("begin", ["start", "wake", "lifespan", "receive", "receive, with a handoff function"])
def test_events_that_an_earlier_process_left_are_moved(begin, make, inbox, until):
    earlier = make()
    inbox.down = True
    event = deliver(earlier)
    inbox.down = False
    webhooks = make(moves=True, handoff=print if begin == "receive, with a handoff function" else "manual")
    if begin.startswith("receive"):
        deliver(webhooks)
    elif begin == "lifespan":

        async def live():
            async with webhooks.lifespan():
                await asyncio.to_thread(until, lambda: ids(inbox))

        asyncio.run(live())
    else:
        getattr(webhooks, begin)()
    until(lambda: event.id in ids(inbox))


@pytest.mark.parametrize("drain", ["drain", "adrain"])
def test_a_drain_handles_spooled_events(drain, webhooks, inbox):
    seen = []
    webhooks.on("*")(lambda event: seen.append(event.id))
    inbox.down = True
    event = deliver(webhooks)
    inbox.down = False
    settled = webhooks.drain() if drain == "drain" else asyncio.run(webhooks.adrain())
    assert settled == 1
    assert seen == [event.id]


@pytest.mark.parametrize("life", ["lifespan", "thread", "no life cycle"])
def test_a_moved_event_wakes_the_worker(life, make, inbox, until, monkeypatch):
    monkeypatch.setattr(relay, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr("envoyou_core.worker.worker.SWEEP_INTERVAL", 60)
    webhooks = make(moves=True, handoff="auto")
    loops, inbox.down = [], True

    @webhooks.on("*")
    async def handle(event):
        loops.append(asyncio.get_running_loop())

    async def deliver_and_wait():
        delivery = sign_delivery(sample_event(), secret=SECRET, **sent_at(webhooks, {}))
        await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        inbox.down = False
        await asyncio.to_thread(until, lambda: loops)
        assert loops == [asyncio.get_running_loop()]

    async def live():
        async with webhooks.lifespan():
            await deliver_and_wait()

    async def live_without():
        await deliver_and_wait()
        await webhooks._handoff.astop()

    if life == "thread":
        deliver(webhooks)
        inbox.down = False
        until(lambda: loops)
    else:
        asyncio.run(live() if life == "lifespan" else live_without())


def test_a_handoff_function_is_called_when_an_event_is_moved_and_not_when_it_is_spooled(make, inbox):
    sent = []
    webhooks = make(handoff=sent.append)
    webhooks._announcer.announce = sent.append
    inbox.down = True
    event = deliver(webhooks)
    assert sent == []
    inbox.down = False
    webhooks._relay.move_due()
    webhooks._relay.move_due()
    assert sent == [event.id]


def test_a_handoff_function_is_not_called_for_an_event_that_the_inbox_had_already(make, inbox):
    sent = []
    webhooks = make(handoff=lambda event_id: None)
    webhooks._announcer.announce = sent.append
    event = deliver(webhooks)
    inbox.down = True
    deliver(webhooks, event)
    inbox.down = False
    webhooks._relay.move_due()
    assert sent == [event.id]
    assert webhooks.spool.stats().total == 0


def test_events_are_moved_in_the_handler_context_and_the_exit_hooks_of_the_thread_run(make, inbox, until):
    webhooks = make(moves=True, analytics=False)
    entered, ended = [], []

    class HandlerContext:
        def __enter__(self):
            entered.append(threading.current_thread().name)

        def __exit__(self, *_):
            return None

    webhooks.add_context(HandlerContext)
    webhooks.on_thread_exit(lambda: ended.append(threading.current_thread().name))
    inbox.down = True
    deliver(webhooks)
    until(lambda: entered)
    webhooks.stop()
    assert set(entered) == set(ended) == {"envoyou-spool-default"}
    webhooks._relay.start()
    inbox.down = False
    until(lambda: inbox.stats().total == 1)


def test_an_event_is_accepted_even_if_no_thread_can_be_started(make, inbox, monkeypatch):
    webhooks = make(moves=True)
    inbox.down = True

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    webhooks.spool.add(NewEvent(sample_event())).result(PATIENCE)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", no_more)
        deliver(webhooks)
    assert of_type(webhooks, SpoolFailed)[0].detail == "RuntimeError: can't start new thread"
    assert webhooks._relay._state.thread is None
    deliver(webhooks)
    assert webhooks._relay._state.thread.is_alive()


def test_stop_ends_an_idle_relay(make, until, monkeypatch):
    monkeypatch.setattr(relay, "SWEEP_INTERVAL", 3600)
    webhooks = make(moves=True)
    looked = threading.Event()
    until_due = webhooks.spool.seconds_until_due
    monkeypatch.setattr(webhooks.spool, "seconds_until_due", lambda: (until_due(), looked.set())[0])
    webhooks.start()
    thread = webhooks._relay._state.thread
    assert looked.wait(PATIENCE)
    webhooks.stop(timeout=PATIENCE)
    assert not thread.is_alive()


def test_a_forked_child_has_its_own_state(make, inbox, until, monkeypatch):
    webhooks = make(moves=True)
    inbox.down = True
    deliver(webhooks)
    parent = webhooks._relay._state
    assert parent.down
    parent.moving.acquire()  # as if the parent's thread were moving events at the fork
    try:
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in the child
        inbox.down = False
        deliver(webhooks)
        until(lambda: inbox.stats().total == 2)
        webhooks.stop()
    finally:
        monkeypatch.undo()
        parent.moving.release()


def test_a_failing_spool_is_reported_and_polled_again(make, inbox, until, monkeypatch):
    monkeypatch.setattr(relay, "PROBE_INTERVAL", 0.02)
    webhooks = make(moves=True)
    until_due = webhooks.spool.seconds_until_due
    calls = []

    def fails_first():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("disk error")
        return until_due()

    monkeypatch.setattr(webhooks.spool, "seconds_until_due", fails_first)
    inbox.down = True
    deliver(webhooks)
    inbox.down = False
    until(lambda: inbox.stats().total == 1)
    assert of_type(webhooks, SpoolFailed)[0].detail == "OSError: disk error"


# Start-up


def test_the_file_is_created_at_start_up_and_not_before(tmp_path, webhooks):
    assert list(tmp_path.iterdir()) == []
    webhooks.start()
    assert (tmp_path / "spool.db").exists()


def test_only_the_owner_can_read_the_file(tmp_path, webhooks, inbox):
    inbox.down = True
    deliver(webhooks)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_an_existing_file_keeps_its_permissions(tmp_path, webhooks):
    file = tmp_path / "spool.db"
    file.touch(0o640)
    file.chmod(0o640)
    webhooks.start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("what", ["no folder", "no database"])
@pytest.mark.parametrize("begin", ["start", "lifespan", "run_worker"])
def test_a_spool_that_cannot_be_opened_is_an_error_at_start_up(begin, what, make, tmp_path):
    place = tmp_path / "nowhere" if what == "no folder" else tmp_path
    (tmp_path / "spool.db").write_text("these are not the bytes of a database " * 50)
    webhooks = make(spool=url(place))
    webhooks.on("*")(print)

    async def live():
        async with webhooks.lifespan():
            pass

    with pytest.raises(ConfigurationError, match=r"the spool cannot be opened|cannot create .*nowhere"):
        asyncio.run(live()) if begin == "lifespan" else getattr(webhooks, begin)()


@pytest.mark.parametrize("begin", ["start", "lifespan"])
def test_a_process_that_starts_during_an_outage_accepts_events(begin, make, inbox):
    webhooks = make()
    inbox.down = True

    async def live():
        async with webhooks.lifespan():
            deliver(webhooks)

    if begin == "start":
        webhooks.start()
        deliver(webhooks)
    else:
        asyncio.run(live())
    assert webhooks.spool.stats().total == 1
    assert of_type(webhooks, WorkerFailed) == [WorkerFailed("default", "OutageError: connection refused", None)]


def test_an_inbox_that_an_operator_must_create_is_an_error_at_start_up(make, inbox, monkeypatch):
    def missing():
        raise ConfigurationError("run `envoyou migrate`")

    monkeypatch.setattr(inbox, "open", missing)
    with pytest.raises(ConfigurationError, match="envoyou migrate"):
        make().start()


@pytest.mark.parametrize(
    "spool",
    [
        "postgresql+psycopg://user:very-private@host/database",
        "memory:",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:spool?mode=memory&uri=true",
        "very-private",
        MemoryInbox(),
        5,
    ],
)
def test_a_spool_must_be_a_sqlite_file(spool):
    with pytest.raises(ConfigurationError, match="such as sqlite") as caught:
        Webhooks(secret=SECRET, spool=spool)
    assert "very-private" not in str(caught.value)


def test_a_spool_must_not_be_the_file_of_the_inbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="file of its own"):
        Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/./events.db", spool="sqlite+pysqlite:///events.db")
    Webhooks(secret=SECRET, inbox="sqlite:///events.db", spool="sqlite:///spool.db")


def test_several_webhooks_share_one_file(make, inbox, tmp_path, clock):
    """If the file is also an inbox, its worker must not handle the spooled events."""
    other = make(inbox=url(tmp_path), spool=None, moves=True)
    other.on("*")(lambda event: None)
    billing = make(name="billing", inbox=FailingInbox(name="billing", clock=clock))
    webhooks = make()
    inbox.down = billing.inbox.down = True
    event = deliver(webhooks)
    other_event = deliver(billing)
    assert other.drain() == 0
    inbox.down = billing.inbox.down = False
    webhooks._relay.move_due()
    assert ids(inbox) == {event.id}
    billing._relay.move_due()
    assert ids(billing.inbox) == {other_event.id}
    other.inbox.close()


class RemoteInbox(MemoryInbox):
    remote = True


def accept_in_a_lifespan(webhooks):
    async def live():
        async with webhooks.lifespan():
            pass

    asyncio.run(live())


@pytest.mark.parametrize("accept", [accept_in_a_lifespan, Webhooks.ensure_worker, lambda webhooks: deliver(webhooks)])
def test_a_process_that_accepts_into_a_remote_inbox_without_a_spool_logs_that_once(accept, make, caplog):
    webhooks = make(inbox=RemoteInbox(), spool=None, moves=True)
    for _ in range(2):
        accept(webhooks)
    assert of_type(webhooks, NoSpool) == [NoSpool("default")]
    [record] = [record for record in caplog.records if "without a spool" in record.getMessage()]
    assert record.levelno == logging.WARNING


def test_no_warning_with_a_spool_or_a_local_inbox_or_without_a_spool_on_purpose(make):
    no_spool = make(inbox=RemoteInbox(), spool=False, moves=True)
    assert no_spool.spool is None
    for webhooks in (make(inbox=RemoteInbox()), make(spool=None, moves=True), no_spool):
        accept_in_a_lifespan(webhooks)
        deliver(webhooks)
        assert not of_type(webhooks, NoSpool)


def test_no_warning_in_a_process_that_accepts_nothing(make):
    webhooks = make(inbox=RemoteInbox(), spool=None, moves=True)
    handled = threading.Event()
    webhooks.on("*")(lambda event: handled.set())
    webhooks.start()
    assert webhooks.drain() == 0
    webhooks.inbox.add(NewEvent(sample_event())).result()
    worker = threading.Thread(target=webhooks.run_worker)
    worker.start()
    assert handled.wait(PATIENCE)
    webhooks.stop()
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert not of_type(webhooks, NoSpool)


# Random order


class SpoolMachine(RuleBasedStateMachine):
    """Outages, deliveries, moves, and crashes between the two commits, in any order."""

    folder = None

    def __init__(self):
        super().__init__()
        self.clock = HandClock()
        self.inbox = FailingInbox(clock=self.clock)
        self.folder = self.make_folder()
        self.webhooks = self.make()
        self.accepted = {}

    def make(self):
        webhooks = Webhooks(secret=SECRET, inbox=self.inbox, spool=url(self.folder), handoff="manual", clock=self.clock)
        webhooks._relay.start = lambda: None
        return webhooks

    @rule(down=st.booleans())
    def the_inbox_goes_down_or_up(self, down):
        self.inbox.down = down

    @rule(number=st.integers(0, 5))
    def deliver(self, number):
        self.clock.advance(1)
        event = deliver(self.webhooks, sample_event(id=f"evt_{number}", created=1))
        self.accepted.setdefault(event.id, set()).add(self.clock.moment())

    @rule()
    def move(self):
        self.clock.advance(0.5)
        self.webhooks._relay.move_due()

    @rule()
    def move_and_die(self):
        def die(claims):
            if claims:
                raise SystemExit

        self.webhooks.spool.remove = die
        with suppress(SystemExit):
            self.move()
        self.the_process_is_replaced()

    @rule()
    def the_process_is_replaced(self):
        self.webhooks.spool.close()
        self.webhooks = self.make()

    @rule()
    def time_passes(self):
        self.clock.advance(relay.LEASE)

    @invariant()
    def every_accepted_event_is_in_the_inbox_or_the_spool(self):
        assert ids(self.inbox) | ids(self.webhooks.spool) == self.accepted.keys()

    def teardown(self):
        self.inbox.down = False
        self.clock.advance(relay.LEASE)
        self.move()
        assert self.webhooks.spool.stats().total == 0
        assert ids(self.inbox) == self.accepted.keys()
        assert all(record.received_at in self.accepted[record.event.id] for record in self.inbox.list())
        self.webhooks.spool.close()


def test_every_accepted_event_reaches_the_inbox_once(tmp_path):
    folders = iter(range(1_000_000))

    class Machine(SpoolMachine):
        def make_folder(self):
            folder = tmp_path / str(next(folders))
            folder.mkdir()
            return folder

    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=40, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]),
    )


def test_an_unreadable_event_stays_in_the_spool_and_delays_no_other(webhooks, inbox, clock):
    inbox.down = True
    events = [deliver(webhooks) for _ in range(3)]
    with webhooks.spool._engine.begin() as connection:
        connection.execute(text("UPDATE envoyou_inbox SET body = x'7b7b' WHERE key = 2"))
    inbox.down = False
    move(webhooks, times=3)
    assert ids(inbox) == {events[0].id, events[2].id}
    assert ids(webhooks.spool) == {events[1].id}
    [refused] = of_type(webhooks, MoveRefused)
    assert (refused.event_id, refused.retry_in) == (events[1].id, 5)
    with webhooks.spool._engine.begin() as connection:
        connection.execute(text("UPDATE envoyou_inbox SET body = :body"), {"body": events[1].body})
    clock.advance(6)
    move(webhooks)
    assert ids(inbox) == {event.id for event in events}
    assert webhooks.spool.stats().total == 0


# Genuine deliveries that cannot be used


def deliver_unusable(webhooks, body=b"{"):
    timestamp = int(webhooks._reception.clock())
    signature = sign(body, secret=SECRET, timestamp=timestamp)
    headers = {
        "Content-Type": "application/json",
        "X-EnvoyOU-Signature": signature,
        "X-EnvoyOU-Timestamp": str(timestamp),
        "X-EnvoyOU-Event-Type": "user.created",
    }
    return webhooks.receive(WebhookRequest.from_http("POST", headers, body)).status


@pytest.mark.parametrize("known", [False, True], ids=["the outage is new", "the outage is known"])
def test_an_unusable_delivery_is_kept_in_the_spool_and_moved(webhooks, inbox, clock, known):
    inbox.down = True
    event = deliver(webhooks) if known else None
    clock.advance(10)
    assert [deliver_unusable(webhooks), deliver_unusable(webhooks)] == [400, 400]
    assert [notice.kept for notice in of_type(webhooks, Rejected)] == [True, True]
    received_at = clock.moment()
    clock.advance(60)
    move(webhooks)
    assert inbox.list_rejected() == []
    assert len(webhooks.spool.list_rejected()) == 1
    inbox.down = False
    move(webhooks)
    [moved] = inbox.list_rejected()
    assert (moved.body, moved.reason, moved.received_at) == (b"{", "invalid_payload", received_at)
    assert moved.headers["event_type"] == b"user.created"
    assert webhooks.spool.list_rejected() == []
    assert ids(inbox) == ({event.id} if event else set())


def test_unusable_deliveries_are_moved_in_the_order_in_which_they_came(webhooks, inbox, clock):
    inbox.down = True
    bodies = [b"%d" % number for number in range(25)]
    for body in bodies:
        deliver_unusable(webhooks, body)
    inbox.down = False
    move(webhooks)
    assert [delivery.body for delivery in reversed(inbox.list_rejected())] == bodies


def test_an_unusable_delivery_that_neither_store_keeps_is_reported(webhooks, inbox, monkeypatch):
    inbox.down = True
    monkeypatch.setattr(webhooks.spool, "keep_rejected", lambda rejection: 1 / 0)
    assert deliver_unusable(webhooks) == 400
    [notice] = of_type(webhooks, RejectedNotKept)
    assert "connection refused" in notice.detail
    assert "ZeroDivisionError" in notice.detail
