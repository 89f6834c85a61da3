"""Pauses, which apply to all processes, and drains that do not wait for paused events."""

import asyncio
import logging
import threading

import pytest

from envoyou_core import ConfigurationError, RetryPolicy, Webhooks
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.testing import sample_event
from envoyou_core.worker import pauses

PATIENCE = 20


def add(webhooks, id="evt_1", type="user.created", **values):
    webhooks.inbox.add(NewEvent(sample_event(type, id=id, **values))).result(PATIENCE)


def status(webhooks, id="evt_1"):
    return webhooks.inbox.get(id).status


@pytest.fixture
def make_webhooks():
    made = []

    def make(**settings):
        settings = {"inbox": "memory:", "handoff": "manual", "retry": RetryPolicy(initial_delay=0.05)} | settings
        made.append(Webhooks(secret="s", **settings))
        return made[-1]

    yield make
    for webhooks in made:
        webhooks.stop()


@pytest.fixture
def webhooks(make_webhooks):
    return make_webhooks()


@pytest.fixture(params=["drain", "adrain"])
def drain(request):
    """Drain, sync or async, and fail if that does not end."""

    def drain(webhooks, *, until_idle=False):
        drained = []
        if request.param == "drain":
            thread = threading.Thread(target=lambda: drained.append(webhooks.drain(until_idle=until_idle)), daemon=True)
            thread.start()
            thread.join(PATIENCE)
            assert drained, "it did not end"
            return drained[0]
        return asyncio.run(asyncio.wait_for(webhooks.adrain(until_idle=until_idle), PATIENCE))

    return drain


def test_a_paused_type_waits_and_others_go_on(webhooks):
    seen = []
    webhooks.on("*", name="h")(lambda event: seen.append(event.id))
    webhooks.pause(type="user.*")
    add(webhooks, "user", "user.created")
    add(webhooks, "auth", "auth.login")
    assert webhooks.drain() == 1
    assert (seen, status(webhooks, "user")) == (["auth"], Status.RECEIVED)
    webhooks.resume(type="user.*")
    assert webhooks.drain() == 1
    assert seen == ["auth", "user"]


def test_events_that_a_paused_handler_handles_wait_whole(webhooks):
    seen = []
    webhooks.on("user.created", name="welcome")(lambda event: seen.append(("welcome", event.id)))
    webhooks.on("*", name="audit")(lambda event: seen.append(("audit", event.id)))
    webhooks.pause(handler="welcome")
    add(webhooks, "created", "user.created")
    add(webhooks, "updated", "user.updated")
    webhooks.drain()
    assert seen == [("audit", "updated")]
    webhooks.resume(handler="welcome")
    webhooks.drain()
    assert seen[1:] == [("welcome", "created"), ("audit", "created")]


def test_pauses_are_listed_and_resumed_by_name(webhooks):
    webhooks.on("user.created", name="welcome")(lambda event: None)
    assert webhooks.paused == frozenset()
    webhooks.pause(type="user.*")
    webhooks.pause(handler="welcome")
    webhooks.pause(type="user.*")
    assert webhooks.paused == {"type:user.*", "handler:welcome"}
    webhooks.resume(type="user.created")
    assert webhooks.paused == {"type:user.*", "handler:welcome"}
    webhooks.resume(type="user.*")
    assert webhooks.paused == {"handler:welcome"}


@pytest.mark.parametrize("method", ["pause", "resume"])
def test_invalid_pause_is_refused(webhooks, method):
    for named in ({}, {"type": "user.*", "handler": "welcome"}):
        with pytest.raises(ValueError, match="either a type or a handler"):
            getattr(webhooks, method)(**named)
    with pytest.raises(ConfigurationError, match="invalid event type"):
        getattr(webhooks, method)(type="user*")
    assert webhooks.paused == frozenset()


def test_a_handler_that_is_unknown_here_is_paused_and_warned_of(webhooks, caplog):
    webhooks.on("user.created", name="welcome")(lambda event: None)
    webhooks.pause(handler="welcome")
    assert caplog.records == []
    webhooks.pause(handler="welcom")
    [record] = caplog.records
    assert (record.levelno, "'welcom'" in record.getMessage()) == (logging.WARNING, True)
    assert "handler:welcom" in webhooks.paused


def test_pause_by_another_process_takes_effect_within_a_second(make_webhooks, monkeypatch):
    inbox = MemoryInbox()
    here, there = make_webhooks(inbox=inbox), make_webhooks(inbox=inbox)
    here.on("*", name="h")(lambda event: None)
    assert here.drain() == 0
    there.pause(type="user.*")
    monkeypatch.setattr(pauses, "CACHE_SECONDS", 0.0)
    add(here)
    assert here.drain() == 0
    assert status(here) is Status.RECEIVED
    there.resume(type="user.*")
    assert here.drain() == 1


def test_repeated_claims_do_not_read_the_pauses_each_time(webhooks):
    asked = []
    paused = webhooks.inbox.paused
    webhooks.inbox.paused = lambda: (asked.append(True), paused())[1]
    webhooks.on("*", name="h")(lambda event: None)
    for number in range(50):
        add(webhooks, f"evt_{number}")
    assert webhooks.drain() == 50
    assert len(asked) < 10


def test_worker_respects_a_pause(make_webhooks, until):
    webhooks = make_webhooks(handoff="auto")
    seen = []
    webhooks.on("*", name="h")(lambda event: seen.append(event.id))
    webhooks.pause(type="user.*")
    webhooks.start()
    add(webhooks, "user", "user.created")
    add(webhooks, "auth", "auth.login")
    until(lambda: status(webhooks, "auth") is Status.PROCESSED)
    assert seen == ["auth"]
    webhooks.resume(type="user.*")
    until(lambda: status(webhooks, "user") is Status.PROCESSED)


# Draining until nothing happens by itself any more


def test_drain_does_not_wait_for_paused_events(webhooks, drain):
    webhooks.on("*", name="h")(lambda event: None)
    webhooks.pause(type="user.*")
    add(webhooks, "user", "user.created")
    add(webhooks, "auth", "auth.login")
    assert drain(webhooks, until_idle=True) == 1
    assert status(webhooks, "user") is Status.RECEIVED


def test_drain_waits_for_retries_but_not_for_paused_ones(webhooks, drain):
    calls = []

    @webhooks.on("*", name="h")
    def handler(event, attempt):
        calls.append((event.id, attempt))
        if attempt == 1:
            raise ValueError("not yet")
        if event.id == "auth":
            webhooks.pause(type="user.*")

    add(webhooks, "user", "user.created")
    drain(webhooks)
    webhooks.pause(type="user.*")
    add(webhooks, "auth", "auth.login")
    assert drain(webhooks, until_idle=True) == 2
    assert calls == [("user", 1), ("auth", 1), ("auth", 2)]
    assert status(webhooks, "user") is Status.FAILED
    webhooks.resume(type="user.*")
    assert drain(webhooks, until_idle=True) == 1


def test_drain_does_not_wait_for_a_distant_retry_of_a_paused_event(make_webhooks, drain):
    webhooks = make_webhooks(retry=RetryPolicy(initial_delay=3600))
    webhooks.on("*", name="h")(lambda event: 1 / 0)
    add(webhooks)
    drain(webhooks)
    webhooks.pause(type="user.*")
    assert drain(webhooks, until_idle=True) == 0
    assert status(webhooks) is Status.FAILED


def test_drain_does_not_wait_for_events_behind_a_paused_one(webhooks, drain):
    webhooks.on("user.*", name="h", ordered=True)(lambda event: None)
    webhooks.pause(type="user.created")
    add(webhooks, "first", "user.created", created=10)
    add(webhooks, "second", "user.updated", created=20)
    assert drain(webhooks, until_idle=True) == 0
    webhooks.resume(type="user.created")
    assert drain(webhooks, until_idle=True) == 2


def test_drain_does_not_wait_for_a_failed_event_behind_a_paused_one(webhooks, drain):
    """The failed event ran before the earlier one arrived, and is due."""
    failing = [True]
    webhooks.on("user.*", name="h", ordered=True)(lambda event: 1 / 0 if failing else None)
    add(webhooks, "second", "user.updated", created=20)
    drain(webhooks)
    failing.clear()
    webhooks.pause(type="user.created")
    add(webhooks, "first", "user.created", created=10)
    assert drain(webhooks, until_idle=True) == 0
    assert status(webhooks, "second") is Status.FAILED
    webhooks.resume(type="user.created")
    assert drain(webhooks, until_idle=True) == 2


@pytest.mark.parametrize("paused", [False, True])
def test_drain_waits_for_events_behind_a_retry(webhooks, drain, paused):
    seen = []

    @webhooks.on("user.*", name="h", ordered=True)
    def handler(event, attempt):
        seen.append((event.id, attempt))
        if event.id == "first" and attempt < 3:
            raise ValueError("not yet")

    if paused:
        webhooks.pause(type="auth.*")
        add(webhooks, "paused", "auth.login")
    add(webhooks, "first", created=10)
    add(webhooks, "second", created=20)
    assert drain(webhooks, until_idle=True) == 4
    assert seen == [("first", 1), ("first", 2), ("first", 3), ("second", 1)]


def test_drain_does_not_spin_while_events_are_held_back(webhooks, drain):
    looks = []
    claim = webhooks.inbox.claim
    webhooks.inbox.claim = lambda *arguments: (looks.append(True), claim(*arguments))[1]

    @webhooks.on("user.*", name="h", ordered=True)
    def handler(event, attempt):
        if event.id == "first" and attempt < 3:
            raise ValueError("not yet")

    add(webhooks, "first", created=10)
    add(webhooks, "second", created=20)
    assert drain(webhooks, until_idle=True) == 4
    # It was at rest for 0.15 s, and looks at most fifty times a second.
    assert len(looks) < 30


@pytest.mark.parametrize("paused", ["user.*", "auth.*"])
def test_drain_waits_for_events_of_another_worker(webhooks, drain, paused):
    """Even if it was paused meanwhile, because a running attempt is finished."""
    webhooks.on("*", name="h")(lambda event: None)
    add(webhooks)
    [claim] = webhooks.inbox.claim(1, 60)
    webhooks.pause(type=paused)
    looked = []
    list_events = webhooks.inbox.list

    def look_and_return_to_inbox(**asked):
        found = list_events(**asked)
        if not looked:
            webhooks._engine.return_to_inbox(claim, {}, retry_in=0.0)
        looked.append(found)
        return found

    webhooks.inbox.list = look_and_return_to_inbox
    settled = drain(webhooks, until_idle=True)
    assert looked[0], "it was in work when it was looked for"
    assert (settled, status(webhooks)) == ((0, Status.RECEIVED) if paused == "user.*" else (1, Status.PROCESSED))


@pytest.mark.parametrize("paused", [False, True])
def test_drain_waits_for_an_event_returned_for_later(webhooks, drain, paused):
    webhooks.on("*", name="h")(lambda event: None)
    if paused:
        webhooks.pause(type="auth.*")
        add(webhooks, "paused", "auth.login")
    add(webhooks)
    [claim] = [claim for claim in webhooks.inbox.claim(2, 0.0) if claim.event.id == "evt_1"]
    webhooks._engine.return_to_inbox(claim, {}, retry_in=0.05)
    assert drain(webhooks, until_idle=True) == 1
    assert status(webhooks) is Status.PROCESSED


def test_drain_does_not_wait_for_a_paused_event_of_a_dead_worker(webhooks, drain):
    webhooks.on("*", name="h")(lambda event: None)
    add(webhooks)
    webhooks.inbox.claim(1, 0.0)
    webhooks.pause(type="user.*")
    assert drain(webhooks, until_idle=True) == 0
