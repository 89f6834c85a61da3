"""The fields of log records: those of the guide and more on every record, and those of handlers' own log lines."""

import asyncio
import logging
import re

import pytest

from envoyou_core import Handlers, PermanentError, RetryLater, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.observability import HandlerFilter, HandlerSucceeded, Settled, current_handler, handler_fields
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_the_log_fields"
FIELDS = {
    *("webhook_id", "event_id", "event_type", "status", "timestamp", "error"),
    *("attempt", "handler", "duration", "outcome", "reason", "body_size", "tenant"),
}
FORGED = "\nERROR envoyou: forged \x1b[31m"


def make_webhooks(**settings):
    return Webhooks(secret=SECRET, inbox="memory:", handoff="manual", **settings)


def deliver(webhooks, event, secret=SECRET):
    delivery = sign_delivery(event, secret=secret)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))


@pytest.fixture(autouse=True)
def _at_info(caplog):
    caplog.set_level(logging.INFO, "envoyou")


def fields_of(record):
    return {name: getattr(record, name) for name in FIELDS}


def test_each_delivery_and_each_outcome_is_one_record_with_the_fields_of_the_guide(caplog):
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))
    webhooks.on("user.created", name="welcome")(lambda event: None)
    event = sample_event("user.created", webhook_id="wh_1")
    deliver(webhooks, event)
    deliver(webhooks, event)
    webhooks.drain()
    accepted, duplicate, processed = map(fields_of, caplog.records)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", accepted.pop("timestamp"))
    assert accepted.pop("duration") > 0
    assert accepted == {
        "webhook_id": "wh_1",
        "event_id": event.id,
        "event_type": "user.created",
        "status": "received",
        "error": None,
        "attempt": None,
        "handler": None,
        "outcome": "accepted",
        "reason": None,
        "body_size": len(event.body),
        "tenant": "",
    }
    assert (duplicate["outcome"], duplicate["status"], duplicate["event_id"]) == ("duplicate", None, event.id)
    assert (processed["outcome"], processed["status"], processed["attempt"]) == ("processed", "processed", 1)
    assert (processed["webhook_id"], processed["body_size"]) == ("wh_1", len(event.body))


def test_a_refused_delivery_has_its_reason_and_a_failed_one_the_error_of_the_database(caplog, monkeypatch):
    webhooks = make_webhooks()
    deliver(webhooks, sample_event(), secret="whsec_another")
    monkeypatch.setattr(webhooks.inbox, "add", lambda entry: 1 / 0)
    deliver(webhooks, sample_event())
    rejected, unavailable = map(fields_of, caplog.records)
    assert (rejected["outcome"], rejected["reason"], rejected["status"]) == ("rejected", "signature_mismatch", None)
    assert (unavailable["outcome"], unavailable["reason"]) == ("unavailable", "unavailable")
    assert unavailable["error"]["message"].startswith("ZeroDivisionError")
    assert unavailable["body_size"] > 0


def test_a_failure_has_message_and_stack_redacted_and_on_one_line(caplog):
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=2, initial_delay=0))

    @webhooks.on("*", name="fails")
    def fails(event):
        raise ValueError(f"token=hunter2-battery {event.data.object['email']}{FORGED}")

    event = sample_event("user.created")
    deliver(webhooks, event)
    webhooks.drain(until_idle=True)
    told = [fields_of(record) for record in caplog.records if record.levelno >= logging.WARNING]
    kinds = [(it["outcome"], it["handler"], it["attempt"]) for it in told]
    assert kinds == [
        ("failed", "fails", 1),
        ("failed", "fails", 1),
        ("failed", "fails", 2),
        ("dead", "fails", 2),
    ]
    for fields in told:
        assert fields["error"]["message"].startswith("ValueError: token=[redacted]")
        assert "\n" not in fields["error"]["message"]
        assert "in fails" in fields["error"]["stack"]
        for text in (fields["error"]["message"], fields["error"]["stack"]):
            assert "hunter2" not in text
            assert event.data.object["email"] not in text
            assert "\x1b" not in text


def test_a_postponed_event_is_no_error(caplog):
    webhooks = make_webhooks()

    @webhooks.on("*", name="waits")
    def waits(event):
        raise RetryLater(60, "busy")

    deliver(webhooks, sample_event())
    webhooks.drain()
    postponed = fields_of(caplog.records[-1])
    assert (postponed["outcome"], postponed["handler"], postponed["error"]) == ("postponed", "waits", None)


def test_every_record_has_every_field(caplog):
    caplog.set_level(logging.DEBUG, "envoyou")
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))
    webhooks.on("user.created", name="gives_up")(lambda event: (_ for _ in ()).throw(PermanentError("no")))
    webhooks.on_dead(lambda event, error: 1 / 0)
    deliver(webhooks, sample_event("user.created"))
    deliver(webhooks, sample_event("user.deleted"))
    webhooks.drain()
    assert {record.envoyou["notice"] for record in caplog.records} == {
        *("Accepted", "HandlerFailed", "HookFailed", "Settled"),
    }
    for record in caplog.records:
        assert record.__dict__.keys() >= FIELDS


def test_the_log_lines_of_handlers_bear_the_event_the_handler_and_the_attempt(caplog):
    log = logging.getLogger("shop")
    caplog.handler.addFilter(own := HandlerFilter())
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=2, initial_delay=0))

    @webhooks.on("user.created", name="welcome")
    def welcome(event, attempt):
        log.warning("in the handler")
        if attempt == 1:
            raise ValueError

    @webhooks.on("user.deleted", name="remove")
    async def remove(event):
        await asyncio.sleep(0)
        log.warning("in the async handler")

    created, deleted = sample_event("user.created"), sample_event("user.deleted")
    try:
        deliver(webhooks, created)
        deliver(webhooks, deleted)
        webhooks.drain(until_idle=True)
        log.warning("outside")
    finally:
        caplog.handler.removeFilter(own)
    lines = [
        (record.message, record.event_id, record.handler, record.attempt)
        for record in caplog.records
        if record.name == "shop"
    ]
    assert sorted(lines, key=lambda line: line[0]) == [
        ("in the async handler", deleted.id, "remove", 1),
        ("in the handler", created.id, "welcome", 1),
        ("in the handler", created.id, "welcome", 2),
        ("outside", None, None, None),
    ]


def test_the_contexts_around_a_handler_see_it_and_nothing_does_afterwards():
    webhooks = make_webhooks()
    seen = []

    @webhooks.around_handler
    def around(event, handler, attempt):
        seen.append(current_handler())
        yield

    webhooks.on("*", name="welcome")(lambda event, delivery: seen.append(delivery.received_at))
    event = sample_event(webhook_id="wh_1")
    deliver(webhooks, event)
    webhooks.drain()
    [call, received_at] = seen
    assert (call.event.id, call.handler, call.attempt, call.webhook_id) == (event.id, "welcome", 1, "wh_1")
    assert call.received_at == received_at
    assert current_handler() is None
    assert set(handler_fields().values()) == {None}


def test_a_listener_gets_only_the_kinds_that_it_subscribed_to():
    handlers = Handlers()
    some, every = [], []
    handlers.subscribe(some.append, kinds=[HandlerSucceeded])
    handlers.subscribe(every.append)
    webhooks = make_webhooks()
    webhooks.include(handlers)
    webhooks.on("*", name="welcome")(lambda event: None)
    deliver(webhooks, sample_event())
    webhooks.drain()
    [succeeded] = some
    assert (succeeded.handler, succeeded.attempt) == ("welcome", 1)
    assert succeeded.seconds > 0
    assert [type(notice).__name__ for notice in every] == ["Accepted", "Settled"]
    assert isinstance(every[-1], Settled)
    assert every[-1].settled_at >= every[-1].created
