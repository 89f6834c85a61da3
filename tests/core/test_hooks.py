"""Hooks: calls for dead events, and registration on a `Handlers` registry."""

import asyncio

import pytest

from envoyou_core import Handlers, PermanentError, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import Status
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_test"


@pytest.fixture
def webhooks():
    return Webhooks(
        secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=2, initial_delay=0)
    )


def accept(webhooks):
    event = sample_event()
    delivery = sign_delivery(event, secret=SECRET)
    assert webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status == 200
    return event


@pytest.mark.parametrize("drained_by", ["drain", "adrain"])
async def test_hooks_are_called_once_for_a_dead_event(webhooks, drained_by):
    calls = []

    @webhooks.on("*")
    def fails(event):
        raise ValueError("no")

    @webhooks.on_dead
    def sync_hook(event, error):
        calls.append(("sync", event, error))

    @webhooks.on_dead
    async def async_hook(event, error):
        calls.append(("async", event, error))

    event = accept(webhooks)
    if drained_by == "adrain":
        assert await webhooks.adrain(until_idle=True) == 2
    else:
        assert await asyncio.to_thread(webhooks.drain, until_idle=True) == 2
    assert calls == [("sync", event, "ValueError: no"), ("async", event, "ValueError: no")]


def test_a_failing_hook_affects_neither_the_event_nor_the_other_hooks(webhooks, caplog):
    calls = []

    @webhooks.on("*")
    def gives_up(event):
        raise PermanentError("never")

    @webhooks.on_dead
    def broken(event, error):
        raise RuntimeError("the pager is down")

    webhooks.on_dead(lambda event, error: calls.append(error))
    event = accept(webhooks)
    assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status is Status.DEAD
    assert calls == ["PermanentError: never"]
    assert "the pager is down" in caplog.text
    assert "on_dead hook " in caplog.text


def test_no_hook_is_called_for_an_event_that_succeeds(webhooks):
    calls = []
    webhooks.on_dead(lambda *arguments: calls.append(arguments))

    @webhooks.on("*")
    def recovers(event, attempt):
        if attempt == 1:
            raise ValueError("not yet")

    accept(webhooks)
    assert webhooks.drain(until_idle=True) == 2
    assert calls == []


@pytest.mark.parametrize("nested", [False, True], ids=["included", "included through another registry"])
def test_hooks_of_a_registry_are_included_with_its_handlers(webhooks, nested):
    registry, calls = Handlers(), []

    @registry.on("*")
    def gives_up(event):
        raise PermanentError("never")

    @registry.on_dead
    def alert(event, error):
        calls.append(("dead", error))

    @registry.on_worker_start
    def open_pool():
        calls.append("worker start")
        webhooks.stop(timeout=0)

    @registry.on_worker_stop
    async def close_pool():
        calls.append("worker stop")

    registry.subscribe(lambda notice: calls.append(type(notice).__name__))
    if nested:
        inner, registry = registry, Handlers()
        registry.include(inner)
    webhooks.include(registry)
    accept(webhooks)
    assert webhooks.drain() == 1
    assert ("dead", "PermanentError: never") in calls
    assert {"Accepted", "HandlerFailed", "Settled"} <= {name for name in calls if isinstance(name, str)}
    webhooks.run_worker()
    assert [name for name in calls if name in ("worker start", "worker stop")] == ["worker start", "worker stop"]
