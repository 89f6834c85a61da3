"""The hooks that are called when an event is dead."""

import asyncio

import pytest

from envoyou_core import PermanentError, RetryPolicy, WebhookRequest, Webhooks
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
async def test_dead_hook_is_called_once(webhooks, drained_by):
    told = []

    @webhooks.on("*")
    def fails(event):
        raise ValueError("no")

    @webhooks.on_dead
    def sync_hook(event, error):
        told.append(("sync", event, error))

    @webhooks.on_dead
    async def async_hook(event, error):
        told.append(("async", event, error))

    event = accept(webhooks)
    if drained_by == "adrain":
        assert await webhooks.adrain(until_idle=True) == 2
    else:
        assert await asyncio.to_thread(webhooks.drain, until_idle=True) == 2
    assert told == [("sync", event, "ValueError: no"), ("async", event, "ValueError: no")]


def test_a_hook_that_fails_harms_neither_the_event_nor_the_other_hooks(webhooks, caplog):
    told = []

    @webhooks.on("*")
    def gives_up(event):
        raise PermanentError("never")

    @webhooks.on_dead
    def broken(event, error):
        raise RuntimeError("the pager is down")

    webhooks.on_dead(lambda event, error: told.append(error))
    event = accept(webhooks)
    assert webhooks.drain() == 1
    assert webhooks.inbox.get(event.id).status is Status.DEAD
    assert told == ["PermanentError: never"]
    assert "the pager is down" in caplog.text
    assert "on_dead hook " in caplog.text


def test_dead_hook_is_not_called_for_a_processed_event(webhooks):
    told = []
    webhooks.on_dead(lambda *arguments: told.append(arguments))

    @webhooks.on("*")
    def recovers(event, attempt):
        if attempt == 1:
            raise ValueError("not yet")

    accept(webhooks)
    assert webhooks.drain(until_idle=True) == 2
    assert told == []
