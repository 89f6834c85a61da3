"""The spool: what is accepted while the inbox is away, and how it gets there afterwards."""

import asyncio
import json
import logging
import os
import stat
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from envoyou_core import ConfigurationError, Tenant, WebhookRequest, Webhooks
from envoyou_core.inbox import Added, NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import (
    Accepted,
    InboxDown,
    InboxUp,
    MoveRefused,
    NoSpool,
    Spooled,
    SpoolFailed,
    WorkerFailed,
)
from envoyou_core.reception import receiver
from envoyou_core.spool import relay
from envoyou_core.steps import Wait
from envoyou_core.testing import sample_event, sign_delivery
from tests.inbox.contract import HandClock

SECRET = "whsec_test"
RECEIVED = (200, {"received": True})
DUPLICATE = (200, {"received": True, "duplicate": True})
UNAVAILABLE = 503
PATIENCE = 20


class AwayError(Exception):
    """What a database that is away raises."""


class FailingInbox(MemoryInbox):
    """An inbox that can be away, hang, or refuse some events."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.away = False
        self.hangs = False
        self.refuses = set()
        self.asked = []
        self.pending = []

    def add(self, entry):
        self.asked.append(entry.event.id)
        if self.hangs:
            self.pending.append((entry, future := Future()))
            return future
        if self.away:
            raise AwayError("connection refused")
        if entry.event.id in self.refuses:
            future = Future()
            future.set_exception(ValueError("not this one"))
            return future
        return super().add(entry)

    def open(self):
        if self.away:
            raise AwayError("connection refused")


@pytest.fixture
def inbox(clock):
    return FailingInbox(clock=clock)


@pytest.fixture
def make(tmp_path, inbox, clock):
    """Makes `Webhooks` over `inbox`, and a spool that all of them share; nobody moves anything but who is told to."""
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
    """How long each store may take to answer, on a clock that stands still; nobody waits for one that hangs.

    Attributes:
        now: the seconds that have passed.
        until: the second up to which each store was waited for, in their order.
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
def waits(inbox, monkeypatch):
    waits = Waits(inbox)
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
        webhooks._relay.move_all()


def url(folder):
    return f"sqlite:///{folder / 'spool.db'}"


def of_type(webhooks, *types):
    return [notice for notice in webhooks.notices if isinstance(notice, types)]


def ids(inbox):
    return {record.event.id for record in inbox.list(limit=1000)}


# Accepting


def test_an_event_that_the_inbox_cannot_take_is_accepted_all_the_same(webhooks, inbox, answer):
    inbox.away = True
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert webhooks.spool.get(event.id).event.body == event.body
    assert ids(inbox) == set()
    assert webhooks.notices == [
        InboxDown("default", "AwayError: connection refused"),
        Spooled(event.id, event.type),
        Accepted(event.id, event.type, Added.NEW),
    ]


def test_an_event_that_the_inbox_takes_never_sees_the_spool(webhooks, inbox, answer):
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert ids(inbox) == {event.id}
    assert webhooks.spool.stats().total == 0
    assert webhooks.notices == [Accepted(event.id, event.type, Added.NEW)]


def test_an_inbox_that_does_not_answer_has_half_of_the_budget(webhooks, inbox, answer, waits):
    inbox.hangs = True
    assert answer(webhooks) == RECEIVED
    assert waits.until == [1.5, 3.0]
    [(_, future)] = inbox.pending
    assert future.cancelled(), "what is not begun must not be stored late"
    assert "the inbox did not answer within" in webhooks.notices[0].detail


def test_nobody_waits_for_an_inbox_that_is_known_to_be_away(webhooks, inbox, answer, waits):
    inbox.hangs = True
    for _ in range(5):
        assert answer(webhooks) == RECEIVED
    assert len(inbox.asked) == 1
    assert len(of_type(webhooks, InboxDown)) == 1
    assert webhooks.spool.stats().total == 5


def test_a_redelivery_is_a_duplicate_in_the_spool_too(webhooks, inbox, answer):
    inbox.away = True
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert answer(webhooks, event) == DUPLICATE
    assert webhooks.spool.stats().total == 1


def test_the_nonce_is_bound_once_the_event_is_in_the_spool(webhooks, inbox, answer, monkeypatch):
    inbox.away = True
    with monkeypatch.context() as full:
        full.setattr(webhooks.spool, "add", inbox.add)
        assert answer(webhooks, nonce="nonce-1")[0] == UNAVAILABLE
    assert answer(webhooks, nonce="nonce-1") == RECEIVED
    assert answer(webhooks, nonce="nonce-1")[0] == 401


def test_where_both_fail_the_sender_is_asked_to_try_again(webhooks, inbox, answer, monkeypatch):
    inbox.away = True

    def full(entry):
        raise OSError("no space left on device")

    monkeypatch.setattr(webhooks.spool, "add", full)
    for _ in range(2):
        assert answer(webhooks)[0] == UNAVAILABLE
    assert "connection refused" in webhooks.notices[-1].detail
    assert "no space left on device" in webhooks.notices[-1].detail


def test_a_spool_that_hangs_is_given_up_in_time(webhooks, inbox, answer, monkeypatch):
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.2)
    monkeypatch.setattr(webhooks.spool, "add", lambda entry: Future())
    inbox.hangs = True
    assert answer(webhooks)[0] == UNAVAILABLE


def test_a_spool_that_fails_does_not_keep_events_from_an_inbox_that_is_back(webhooks, inbox, answer, monkeypatch):
    inbox.away = True
    answer(webhooks)
    inbox.away = False
    monkeypatch.setattr(webhooks.spool, "add", lambda entry: Future())
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.2)
    event = sample_event()
    assert answer(webhooks, event) == RECEIVED
    assert event.id in ids(inbox)
    asked = len(inbox.asked)
    monkeypatch.setattr(webhooks.spool, "add", None)
    assert answer(webhooks) == RECEIVED
    assert len(inbox.asked) == asked + 1, "from then on it is asked first"


def test_an_inbox_that_uses_up_all_the_time_leaves_the_spool_its_own(webhooks, inbox, waits, monkeypatch):
    """As one does that stores in the calling thread."""

    def slow(entry):
        waits.now += 10
        raise AwayError

    monkeypatch.setattr(inbox, "add", slow)
    deliver(webhooks)
    assert waits.until == [10 + 1.5]
    assert webhooks.spool.stats().total == 1


# Moving


def test_everything_about_an_event_survives_the_move(make, inbox, clock):
    def secrets_of(webhook_id):
        return Tenant(webhook_id.removeprefix("wh_"), SECRET)

    webhooks = make(secret=secrets_of)
    inbox.away = True
    clock.advance(0.123456)
    accepted_at = clock.moment()
    body = b'{"id": "evt_1",  "type":"user.created", "created": 1, "data": {"object": {"name": "\\ud83d Zo\xc3\xab"}}}'
    deliver(webhooks, body, webhook_id="wh_acme", event_type="user.created")
    clock.advance(3600)
    inbox.away = False
    assert webhooks.spool.get("evt_1", tenant="acme").received_at == accepted_at
    webhooks._relay.move_all()
    record = inbox.get("evt_1", tenant="acme")
    assert record.event.body == body
    assert record.received_at == accepted_at
    assert record.webhook_id == "wh_acme"
    assert record.status is Status.RECEIVED
    assert record.next_attempt_at == clock.moment()


def test_what_was_moved_leaves_no_trace(webhooks, inbox):
    inbox.away = True
    for _ in range(250):
        deliver(webhooks)
    inbox.away = False
    webhooks._relay.move_all()
    assert inbox.stats().total == 250
    assert webhooks.spool.stats().total == 0
    assert of_type(webhooks, InboxUp) == [InboxUp("default", 250)]


@pytest.mark.parametrize("drained", ["in a thread", "on a loop"])
def test_a_spool_that_cannot_be_used_does_not_keep_a_drain_from_the_inbox(webhooks, inbox, monkeypatch, drained):
    def fail():
        raise OSError("disk error")

    monkeypatch.setattr(webhooks._relay, "move_all", fail)
    deliver(webhooks)
    assert (webhooks.drain() if drained == "in a thread" else asyncio.run(webhooks.adrain())) == 1
    assert of_type(webhooks, SpoolFailed) == [SpoolFailed("default", "OSError: disk error", None)]


def test_each_outage_is_told_of_by_itself(webhooks, inbox):
    for events in (3, 2):
        inbox.away = True
        for _ in range(events):
            deliver(webhooks)
        inbox.away = False
        webhooks._relay.move_all()
    detail = "AwayError: connection refused"
    assert of_type(webhooks, InboxDown, InboxUp) == [
        InboxDown("default", detail),
        InboxUp("default", 3),
        InboxDown("default", detail),
        InboxUp("default", 2),
    ]


def test_an_inbox_that_is_still_away_is_asked_for_one_event_only(webhooks, inbox):
    inbox.away = True
    events = [deliver(webhooks) for _ in range(5)]
    inbox.asked.clear()
    move(webhooks, times=3)
    assert inbox.asked == [event.id for event in events[:3]], "each time another one"
    assert webhooks.spool.stats().by_status[Status.RECEIVED] == 5
    assert len(of_type(webhooks, InboxDown)) == 1
    assert not of_type(webhooks, InboxUp)


def test_the_inbox_is_asked_first_again_once_an_event_has_reached_it(webhooks, inbox):
    inbox.away = True
    deliver(webhooks)
    inbox.away = False
    deliver(webhooks)
    assert ids(inbox) == set()
    webhooks._relay.move_all()
    deliver(webhooks)
    assert inbox.stats().total == 3
    assert len(of_type(webhooks, Spooled)) == 2


def test_a_commit_that_nobody_heard_of_is_resolved_by_the_key(webhooks, inbox, monkeypatch, clock):
    def commit_and_fail(entry):
        clock.advance(5)
        MemoryInbox.add(inbox, entry)
        raise AwayError("the connection broke after the commit")

    accepted_at = clock.moment()
    with monkeypatch.context() as breaking:
        breaking.setattr(inbox, "add", commit_and_fail)
        event = deliver(webhooks)
    assert webhooks.spool.get(event.id).received_at == inbox.get(event.id).received_at == accepted_at
    webhooks._relay.move_all()
    assert inbox.stats().total == 1
    assert webhooks.spool.stats().total == 0


def test_an_inbox_that_hangs_while_an_event_is_moved_leaves_it_in_the_spool(webhooks, inbox, monkeypatch):
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    inbox.away = True
    event = deliver(webhooks)
    inbox.away, inbox.hangs = False, True
    webhooks._relay.move_all()
    assert webhooks.spool.get(event.id).status is Status.RECEIVED
    assert webhooks._relay.inbox_is_down


def test_an_event_that_is_not_answered_in_time_is_not_taken_for_refused(webhooks, inbox, monkeypatch):
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    # The others are asked in time, however busy the machine.
    monkeypatch.setattr(relay, "time", SimpleNamespace(monotonic=lambda: 0.0))
    inbox.away = True
    slow, *others = [deliver(webhooks) for _ in range(5)]
    inbox.away = False
    add = inbox.add
    monkeypatch.setattr(inbox, "add", lambda entry: Future() if entry.event.id == slow.id else add(entry))
    move(webhooks, times=5)
    assert ids(inbox) == {event.id for event in others}
    assert webhooks.spool.get(slow.id).status is Status.RECEIVED
    assert not of_type(webhooks, MoveRefused)


def test_an_inbox_that_stores_in_the_calling_thread_is_asked_no_longer_than_its_time(webhooks, inbox, monkeypatch):
    inbox.away = True
    for _ in range(5):
        deliver(webhooks)
    inbox.away = False
    webhooks._relay.inbox_answered()
    monkeypatch.setattr(relay, "MOVE_TIMEOUT", 0.05)
    add = inbox.add
    monkeypatch.setattr(inbox, "add", lambda entry: (time.sleep(0.1), add(entry))[1])
    inbox.asked.clear()
    webhooks._relay._move_batch(webhooks._relay._here)
    assert len(inbox.asked) == 1
    assert webhooks.spool.stats().by_status[Status.RECEIVED] == 4
    assert not webhooks._relay.inbox_is_down


def test_a_relay_that_dies_between_the_two_commits_loses_and_doubles_nothing(webhooks, make, inbox, clock, monkeypatch):
    inbox.away = True
    event = deliver(webhooks)
    inbox.away = False

    def die(claims):
        raise SystemExit

    monkeypatch.setattr(webhooks.spool, "remove", die)
    with pytest.raises(SystemExit):
        webhooks._relay.move_all()
    assert ids(inbox) == ids(webhooks.spool) == {event.id}
    another = make()
    another._relay.move_all()
    assert another.spool.stats().total == 1, "the lease has not run out"
    clock.advance(relay.LEASE)
    another._relay.move_all()
    assert another.spool.stats().total == 0
    assert inbox.stats().total == 1


def test_a_relay_that_was_too_slow_does_not_remove_what_another_holds(webhooks, make, inbox, clock):
    inbox.away = True
    deliver(webhooks)
    spool = webhooks.spool
    slow = spool.claim(1, relay.LEASE)
    clock.advance(relay.LEASE)
    [held] = spool.claim(1, relay.LEASE)
    spool.remove(slow)
    spool.return_to_inbox(slow)
    assert spool.get(held.event.id).status is Status.PROCESSING
    spool.remove([held])
    assert spool.stats().total == 0


def test_what_is_given_back_is_due_at_once_and_still_known_as_refused(webhooks, clock):
    spool = webhooks.spool
    for event_id in ("evt_new", "evt_refused"):
        spool.add(NewEvent(sample_event(id=event_id))).result(PATIENCE)
    refused = next(claim for claim in spool.claim(2, 60) if claim.event.id == "evt_refused")
    spool.settle(refused, Settlement(Status.FAILED, 1, retry_in=0, error="ValueError"))
    clock.advance(60)
    spool.return_to_inbox(spool.claim(2, 60))
    records = {record.event.id: record for record in spool.list()}
    assert {event_id: record.status for event_id, record in records.items()} == {
        "evt_new": Status.RECEIVED,
        "evt_refused": Status.FAILED,
    }
    assert {record.next_attempt_at for record in records.values()} == {clock.moment()}


def test_a_dead_event_that_was_delivered_again_gets_new_attempts(webhooks, inbox):
    event = deliver(webhooks)
    [claim] = inbox.claim(1, 60)
    inbox.settle(claim, Settlement(Status.DEAD, 3))
    inbox.away = True
    assert deliver(webhooks, event)
    inbox.away = False
    webhooks._relay.move_all()
    assert inbox.get(event.id).status is Status.RECEIVED


def test_two_processes_move_each_event_once(make, inbox):
    one, two = make(), make()
    inbox.away = True
    for _ in range(300):
        deliver(one)
    two._relay.inbox_failed(AwayError())
    inbox.away = False
    inbox.asked.clear()
    threads = [threading.Thread(target=webhooks._relay.move_all) for webhooks in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(Counter(inbox.asked).values()) == {1}
    assert inbox.stats().total == 300
    assert one.spool.stats().total == 0


def test_a_process_whose_events_another_has_moved_asks_the_inbox_again(make, inbox):
    one, two = make(), make()
    inbox.away = True
    deliver(one)
    assert one._relay.inbox_is_down
    inbox.away = False
    two._relay.move_all()
    one._relay.move_all()
    assert not one._relay.inbox_is_down
    assert not of_type(one, InboxUp), "it has not heard of the inbox itself"
    deliver(one)
    one._relay.move_all()
    assert of_type(one, InboxUp) == [InboxUp("default", 0)]


def test_an_empty_spool_tells_nothing_of_the_inbox_where_nothing_was_put_into_it(webhooks, inbox, monkeypatch):
    inbox.away = True
    deliver(webhooks)
    inbox.away = False
    webhooks._relay.move_all()
    webhooks._relay.inbox_failed(AwayError())
    webhooks._relay.move_all()
    assert webhooks._relay.inbox_is_down


# What the inbox refuses


def test_an_event_that_is_refused_stays_is_reported_and_holds_up_no_other(webhooks, inbox, clock):
    inbox.away = True
    refused = deliver(webhooks)
    inbox.refuses.add(refused.id)
    others = {deliver(webhooks).id for _ in range(150)}
    inbox.away = False
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


def test_the_pauses_of_a_refused_event_grow_up_to_an_hour_and_end_when_it_is_taken(webhooks, inbox, clock):
    inbox.away = True
    refused = deliver(webhooks)
    inbox.refuses.add(refused.id)
    deliver(webhooks)
    inbox.away = False
    move(webhooks, times=3)
    for _ in range(12):
        clock.now = webhooks.spool.get(refused.id).next_attempt_at.timestamp()
        webhooks._relay.move_all()
    pauses = [notice.retry_in for notice in of_type(webhooks, MoveRefused)]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    clock.advance(3600)
    [claim] = webhooks.spool.claim(1, 60)
    webhooks.spool.settle(claim, Settlement(Status.FAILED, 5_000, retry_in=0))
    move(webhooks)
    assert of_type(webhooks, MoveRefused)[-1].retry_in == 3600
    assert not webhooks._relay.inbox_is_down, "that it fails again tells nothing of the inbox"
    inbox.refuses.clear()
    clock.advance(3600)
    webhooks._relay.move_all()
    assert refused.id in ids(inbox)
    assert webhooks.spool.stats().total == 0


def test_one_that_nothing_follows_looks_like_an_outage_until_another_gets_through(webhooks, inbox):
    refused = sample_event()
    inbox.refuses.add(refused.id)
    deliver(webhooks, refused)
    webhooks._relay.move_all()
    assert webhooks._relay.inbox_is_down
    assert not of_type(webhooks, MoveRefused)
    other = deliver(webhooks)
    move(webhooks, times=3)
    assert ids(inbox) == {other.id}
    assert not webhooks._relay.inbox_is_down
    assert [notice.event_id for notice in of_type(webhooks, MoveRefused)] == [refused.id]


# By itself


def test_events_are_moved_by_themselves_when_the_inbox_is_back(make, inbox, until, monkeypatch, answer):
    monkeypatch.setattr(relay, "PROBE_INTERVAL", 0.02)
    webhooks = make(moves=True)
    inbox.away = True
    events = [sample_event() for _ in range(20)]
    for event in events:
        assert answer(webhooks, event) == RECEIVED
    inbox.away = False
    until(lambda: of_type(webhooks, InboxUp))
    assert ids(inbox) == {event.id for event in events}
    assert webhooks.spool.stats().total == 0
    before = len(of_type(webhooks, Spooled))
    answer(webhooks)
    assert len(of_type(webhooks, Spooled)) == before


def test_the_inbox_is_not_asked_faster_the_more_is_spooled(webhooks, inbox):
    class Stop:
        """Ends the thread's loop after three pauses, and remembers how long they were."""

        def __init__(self):
            self.pauses = []

        def is_set(self):
            return len(self.pauses) == 3

        def wait(self, seconds):
            self.pauses.append(seconds)
            deliver(webhooks)

    inbox.away = True
    deliver(webhooks)
    webhooks._relay._run(webhooks._relay._here, stop := Stop())
    assert stop.pauses == [relay.PROBE_INTERVAL] * 3
    assert len(inbox.asked) == 1 + 3


@pytest.mark.parametrize("begin", ["start", "wake", "lifespan", "receive", "receive, and nudge"])
def test_what_an_earlier_process_left_is_moved(begin, make, inbox, until):
    earlier = make()
    inbox.away = True
    event = deliver(earlier)
    inbox.away = False
    webhooks = make(moves=True, handoff=print if begin == "receive, and nudge" else "manual")
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
def test_a_drain_works_off_what_is_in_the_spool(drain, webhooks, inbox):
    seen = []
    webhooks.on("*")(lambda event: seen.append(event.id))
    inbox.away = True
    event = deliver(webhooks)
    inbox.away = False
    settled = webhooks.drain() if drain == "drain" else asyncio.run(webhooks.adrain())
    assert settled == 1
    assert seen == [event.id]


@pytest.mark.parametrize("life", ["lifespan", "thread", "no life cycle"])
def test_a_worker_is_woken_by_what_was_moved(life, make, inbox, until, monkeypatch):
    monkeypatch.setattr(relay, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr("envoyou_core.worker.worker.SWEEP_INTERVAL", 60)
    webhooks = make(moves=True, handoff="auto")
    loops, inbox.away = [], True

    @webhooks.on("*")
    async def handle(event):
        loops.append(asyncio.get_running_loop())

    async def deliver_and_wait():
        delivery = sign_delivery(sample_event(), secret=SECRET, **sent_at(webhooks, {}))
        await webhooks.areceive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        inbox.away = False
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
        inbox.away = False
        until(lambda: loops)
    else:
        asyncio.run(live() if life == "lifespan" else live_without())


def test_a_function_that_is_the_handoff_is_told_of_what_was_moved_and_not_of_what_waits(make, inbox):
    told = []
    webhooks = make(handoff=told.append)
    webhooks._waker.send = told.append
    inbox.away = True
    event = deliver(webhooks)
    assert told == []
    inbox.away = False
    webhooks._relay.move_all()
    webhooks._relay.move_all()
    assert told == [event.id]


def test_what_the_inbox_had_already_is_nobodys_work(make, inbox):
    told = []
    webhooks = make(handoff=lambda event_id: None)
    webhooks._waker.send = told.append
    event = deliver(webhooks)
    inbox.away = True
    deliver(webhooks, event)
    inbox.away = False
    webhooks._relay.move_all()
    assert told == [event.id]
    assert webhooks.spool.stats().total == 0


def test_the_inbox_is_called_within_the_contexts_and_the_thread_says_when_it_ends(make, inbox, until):
    webhooks = make(moves=True)
    entered, ended = [], []

    class HandlerContext:
        def __enter__(self):
            entered.append(threading.current_thread().name)

        def __exit__(self, *_):
            return None

    webhooks.surround(HandlerContext)
    webhooks.on_thread_exit(lambda: ended.append(threading.current_thread().name))
    inbox.away = True
    deliver(webhooks)
    until(lambda: entered)
    webhooks.stop()
    assert set(entered) == set(ended) == {"envoyou-spool-default"}
    webhooks._relay.start()
    inbox.away = False
    until(lambda: inbox.stats().total == 1)


def test_an_event_is_accepted_where_no_thread_can_be_started_to_move_it(make, inbox, monkeypatch):
    webhooks = make(moves=True)
    inbox.away = True

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    webhooks.spool.add(NewEvent(sample_event())).result(PATIENCE)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", no_more)
        deliver(webhooks)
    assert of_type(webhooks, SpoolFailed)[0].detail == "RuntimeError: can't start new thread"
    assert webhooks._relay._here.thread is None
    deliver(webhooks)
    assert webhooks._relay._here.thread.is_alive()


def test_an_idle_relay_ends_when_it_is_told_to(make, until, monkeypatch):
    monkeypatch.setattr(relay, "SWEEP_INTERVAL", 3600)
    webhooks = make(moves=True)
    looked = threading.Event()
    until_due = webhooks.spool.seconds_until_due
    monkeypatch.setattr(webhooks.spool, "seconds_until_due", lambda: (until_due(), looked.set())[0])
    webhooks.start()
    thread = webhooks._relay._here.thread
    assert looked.wait(PATIENCE)
    webhooks.stop(timeout=PATIENCE)
    assert not thread.is_alive()


def test_a_forked_child_has_a_relay_of_its_own(make, inbox, until, monkeypatch):
    webhooks = make(moves=True)
    inbox.away = True
    deliver(webhooks)
    parent = webhooks._relay._here
    assert parent.away
    parent.moving.acquire()  # the parent's thread is at work at that moment
    try:
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as a child finds it
        inbox.away = False
        deliver(webhooks)
        until(lambda: inbox.stats().total == 2)
        webhooks.stop()
    finally:
        monkeypatch.undo()
        parent.moving.release()


def test_a_spool_that_cannot_be_looked_into_is_reported_and_looked_into_again(make, inbox, until, monkeypatch):
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
    inbox.away = True
    deliver(webhooks)
    inbox.away = False
    until(lambda: inbox.stats().total == 1)
    assert of_type(webhooks, SpoolFailed)[0].detail == "OSError: disk error"


# At the start


def test_nothing_is_created_before_it_is_needed(tmp_path, webhooks):
    assert list(tmp_path.iterdir()) == []
    webhooks.start()
    assert (tmp_path / "spool.db").exists()


def test_the_file_is_its_owners_only(tmp_path, webhooks, inbox):
    inbox.away = True
    deliver(webhooks)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_is_there_keeps_its_rights(tmp_path, webhooks):
    file = tmp_path / "spool.db"
    file.touch(0o640)
    file.chmod(0o640)
    webhooks.start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("what", ["no folder", "no database"])
@pytest.mark.parametrize("begin", ["start", "lifespan", "run_worker"])
def test_a_spool_that_cannot_be_opened_is_found_out_at_the_start(begin, what, make, tmp_path):
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
    inbox.away = True

    async def live():
        async with webhooks.lifespan():
            deliver(webhooks)

    if begin == "start":
        webhooks.start()
        deliver(webhooks)
    else:
        asyncio.run(live())
    assert webhooks.spool.stats().total == 1
    assert of_type(webhooks, WorkerFailed) == [WorkerFailed("default", "AwayError: connection refused", None)]


def test_an_inbox_that_an_operator_has_to_create_is_found_out_all_the_same(make, inbox, monkeypatch):
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
def test_what_is_not_sqlite_in_a_file_is_refused(spool):
    with pytest.raises(ConfigurationError, match="such as sqlite") as caught:
        Webhooks(secret=SECRET, spool=spool)
    assert "very-private" not in str(caught.value)


def test_the_inboxs_own_file_is_refused_however_it_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="file of its own"):
        Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path}/./events.db", spool="sqlite+pysqlite:///events.db")
    Webhooks(secret=SECRET, inbox="sqlite:///events.db", spool="sqlite:///spool.db")


def test_several_webhooks_share_one_file(make, inbox, tmp_path, clock):
    """Even one whose own inbox it is: it must not work on what only waits there."""
    other = make(inbox=url(tmp_path), spool=None, moves=True)
    billing = make(name="billing", inbox=FailingInbox(name="billing", clock=clock))
    webhooks = make()
    inbox.away = billing.inbox.away = True
    event = deliver(webhooks)
    theirs = deliver(billing)
    assert other.drain() == 0
    inbox.away = billing.inbox.away = False
    webhooks._relay.move_all()
    assert ids(inbox) == {event.id}
    billing._relay.move_all()
    assert ids(billing.inbox) == {theirs.id}
    other.inbox.close()


class RemoteInbox(MemoryInbox):
    remote = True


@pytest.mark.parametrize("begin", ["start", "lifespan", "wake"])
def test_a_remote_inbox_without_a_spool_is_warned_of_once(begin, make, caplog):
    webhooks = make(inbox=RemoteInbox(), spool=None, moves=True)

    async def live():
        async with webhooks.lifespan():
            pass

    for _ in range(2):
        asyncio.run(live()) if begin == "lifespan" else getattr(webhooks, begin)()
    assert webhooks.notices == [NoSpool("default")]
    [record] = [record for record in caplog.records if "no spool" in record.getMessage()]
    assert record.levelno == logging.WARNING


def test_no_other_inbox_is_warned_of(make):
    for webhooks in (make(inbox=RemoteInbox()), make(spool=None, moves=True)):
        webhooks.start()
        assert not of_type(webhooks, NoSpool)


# At random


class SpoolMachine(RuleBasedStateMachine):
    """Outages, deliveries, moves, and movers that die between the two commits, in any order."""

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

    @rule(away=st.booleans())
    def the_inbox_goes_or_comes(self, away):
        self.inbox.away = away

    @rule(number=st.integers(0, 5))
    def deliver(self, number):
        self.clock.advance(1)
        event = deliver(self.webhooks, sample_event(id=f"evt_{number}", created=1))
        self.accepted.setdefault(event.id, set()).add(self.clock.moment())

    @rule()
    def move(self):
        self.clock.advance(0.5)
        self.webhooks._relay.move_all()

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
    def every_accepted_event_is_somewhere(self):
        assert ids(self.inbox) | ids(self.webhooks.spool) == self.accepted.keys()

    def teardown(self):
        self.inbox.away = False
        self.clock.advance(relay.LEASE)
        self.move()
        assert self.webhooks.spool.stats().total == 0
        assert ids(self.inbox) == self.accepted.keys()
        assert all(record.received_at in self.accepted[record.event.id] for record in self.inbox.list())
        self.webhooks.spool.close()


def test_every_accepted_event_ends_in_the_inbox_once(tmp_path):
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
    inbox.away = True
    events = [deliver(webhooks) for _ in range(3)]
    with webhooks.spool._engine.begin() as connection:
        connection.execute(text("UPDATE envoyou_inbox SET body = x'7b7b' WHERE key = 2"))
    inbox.away = False
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
