"""Reports to Sentry: failures, dead events and attempts, and that no payload, secret or local variable is sent."""

import io
import json
import logging

import pytest
import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

from envoyou_core import PermanentError, RetryLater, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import Status
from envoyou_core.observability import HandlerFailed, LeaseLost, Settled, sentry
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import webhooks_entry

SECRET = "whsec_of_the_reports"


class Recorder(Transport):
    """A transport that keeps what would be sent."""

    def __init__(self, options=None):
        super().__init__(options)
        self.items = []

    def capture_envelope(self, envelope):
        self.items += [item.payload.json for item in envelope.items]

    @property
    def errors(self):
        return [item for item in self.items if item.get("type") != "transaction"]

    @property
    def transactions(self):
        return [item for item in self.items if item.get("type") == "transaction"]

    @property
    def text(self):
        return json.dumps(self.items)


@pytest.fixture
def sent():
    recorder = Recorder()
    before = sentry_sdk.get_global_scope().client
    client = sentry_sdk.Client(
        "https://key@sentry.invalid/1",
        transport=recorder,
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[LoggingIntegration()],
        shutdown_timeout=0,
    )
    sentry_sdk.get_global_scope().set_client(client)
    with sentry_sdk.isolation_scope():
        yield recorder
    client.close()
    sentry_sdk.get_global_scope().set_client(before)


def make_webhooks(**settings):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", **settings)
    sentry.instrument(webhooks)
    return webhooks


def deliver(webhooks, event, secret=SECRET):
    delivery = sign_delivery(event, secret=secret)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))


def test_a_failure_bears_its_handler_and_dead_its_exception(sent):
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=2, initial_delay=0))

    @webhooks.on("user.created", name="fails")
    def fails(event):
        password = "hunter2-battery"
        raise ValueError(f"password={password} {event.data.object['email']}")

    event = sample_event("user.created", webhook_id="wh_1")
    deliver(webhooks, event)
    webhooks.drain(until_idle=True)
    failed, dead = sent.errors
    tags = {
        "envoyou.event_id": event.id,
        "envoyou.event_type": "user.created",
        "envoyou.handler": "fails",
        "envoyou.webhook_id": "wh_1",
    }
    assert failed["tags"] == {**tags, "envoyou.attempt": "1", "envoyou.status": "failed"}
    assert dead["tags"] == {**tags, "envoyou.attempt": "2", "envoyou.status": "dead"}
    assert failed["fingerprint"] == dead["fingerprint"] == ["envoyou", "fails", "ValueError"]
    assert (failed["level"], dead["level"]) == ("warning", "error")
    for report in (failed, dead):
        [value] = report["exception"]["values"]
        assert (value["type"], value["value"]) == ("ValueError", "password=[redacted] [redacted]")
        assert value["stacktrace"]["frames"][-1]["function"] == "fails"
        assert report["contexts"]["trace"]["op"] == "queue.process"
    assert not any(secret in sent.text for secret in ("hunter2", event.data.object["email"], '"vars"', SECRET))


def test_an_attempt_is_a_transaction_of_the_queue(sent):
    now = []
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=2, initial_delay=0))

    @webhooks.on("*", name="second_time")
    def second_time(event, attempt):
        now.append(attempt)
        if attempt == 1:
            raise RetryLater(0, "busy")

    event = sample_event()
    deliver(webhooks, event)
    webhooks.drain(until_idle=True)
    first, second = sent.transactions
    assert (first["transaction"], first["contexts"]["trace"]["op"]) == ("second_time", "queue.process")
    assert (first["contexts"]["trace"]["status"], second["contexts"]["trace"].get("status")) == ("aborted", "ok")
    for attempt, transaction in enumerate((first, second)):
        data = transaction["contexts"]["trace"]["data"]
        assert data["messaging.message.id"] == event.id
        assert data["messaging.message.retry.count"] == attempt
        assert data["messaging.message.receive.latency"] >= 0
        assert data["messaging.destination.name"] == "default"
        assert data["messaging.message.body.size"] == len(event.body)
        assert transaction["tags"]["envoyou.handler"] == "second_time"
    # `RetryLater` is no error.
    assert sent.errors == []


def test_what_a_handler_reports_itself_has_no_local_variables_and_no_payload(sent):
    webhooks = make_webhooks()

    @webhooks.on("user.created", name="catches")
    def catches(event):
        email = event.data.object["email"]
        try:
            raise LookupError(f"no customer {email}")
        except LookupError:
            sentry_sdk.capture_exception()

    event = sample_event("user.created")
    deliver(webhooks, event)
    webhooks.drain()
    [report] = sent.errors
    assert report["exception"]["values"][0]["value"] == "no customer [redacted]"
    assert report["tags"]["envoyou.event_id"] == event.id
    assert event.data.object["email"] not in sent.text
    assert '"vars"' not in sent.text


def test_the_causes_of_a_failure_are_redacted_as_well(sent):
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))

    @webhooks.on("user.created", name="fails")
    def fails(event):
        try:
            raise KeyError(event.data.object["email"])
        except KeyError as error:
            raise PermanentError("no") from error

    event = sample_event("user.created")
    deliver(webhooks, event)
    webhooks.drain()
    [dead] = sent.errors
    assert [value["type"] for value in dead["exception"]["values"]] == ["KeyError", "PermanentError"]
    assert event.data.object["email"] not in sent.text


def test_other_events_keep_their_local_variables(sent):
    make_webhooks()

    def elsewhere():
        amount = 12345
        return amount / 0

    with pytest.raises(ZeroDivisionError) as caught:
        elsewhere()
    # The frames of this test's own module only.
    sentry_sdk.capture_exception(caught.value)
    [report] = sent.errors
    assert report["exception"]["values"][0]["stacktrace"]["frames"][-1]["vars"] == {"amount": "12345"}


def test_what_fails_outside_of_a_handler_is_reported_with_the_text_of_the_notice_alone(sent):
    webhooks = make_webhooks()

    def failing():
        raise ValueError("private text")

    with pytest.raises(ValueError, match="private") as caught:
        failing()
    failed = HandlerFailed("evt_1", "user.created", "saves", 1, caught.value, message="ValueError: [redacted]")
    dead = Settled("evt_2", "user.created", Status.DEAD, 3, None, "ValueError: [redacted]", 0.1, caught.value)
    crashed = Settled("evt_3", "user.created", Status.DEAD, 3, None, "the process died 5 times", 0.1)
    for notice in (failed, dead, crashed):
        webhooks._notices.emit(notice)
    first, second, third = sent.errors
    for report in (first, second):
        assert report["exception"]["values"][-1]["value"] == "ValueError: [redacted]"
    assert first["fingerprint"] == ["envoyou", "saves", "ValueError"]
    assert third["message"] == "event is dead: the process died 5 times"
    assert third["fingerprint"] == ["envoyou", "user.created", "dead"]
    assert "private text" not in json.dumps([first["exception"]["values"][-1]["value"], sent.errors[1]["tags"]])


def test_a_failure_is_not_reported_a_second_time_by_its_log_line(sent):
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))
    webhooks.on("user.created", name="fails")(lambda event: 1 / 0)
    webhooks.on_dead(lambda event, error: [][0])
    deliver(webhooks, sample_event("user.created"))
    webhooks.drain()
    assert [report.get("logger") for report in sent.errors] == ["envoyou", "envoyou"]
    dead, hook = sent.errors
    assert dead["exception"]["values"][0]["type"] == "ZeroDivisionError"
    # A hook that fails has only its log line.
    assert hook["logentry"]["message"].startswith("on_dead hook")


def test_the_request_of_a_webhook_is_sent_without_payload_and_signature(sent, monkeypatch):
    webhooks = make_webhooks()
    monkeypatch.setattr(webhooks.inbox, "add", lambda entry: 1 / 0)
    event = sample_event("user.created")
    delivery = sign_delivery(event, secret=SECRET)

    def with_body(app):
        """Adds the body to Sentry's events, as the integrations of frameworks do."""

        def adding(environ, start_response):
            def add(sentry_event, hint):
                sentry_event["request"]["data"] = json.loads(delivery.body)
                return sentry_event

            sentry_sdk.get_isolation_scope().add_event_processor(add)
            return app(environ, start_response)

        return adding

    app = SentryWsgiMiddleware(with_body(webhooks_entry(lambda environ, start_response: [], webhooks)))
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/webhooks/envoyou",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(delivery.body)),
        "wsgi.input": io.BytesIO(delivery.body),
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "127.0.0.1",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in delivery.headers.items()},
    }
    statuses = []
    list(app(environ, lambda status, headers, exc_info=None: statuses.append(status)))
    assert statuses == ["503 Service Unavailable"]
    [report], [transaction] = sent.errors, sent.transactions
    for each in (report, transaction):
        assert each["request"]["url"].endswith("/webhooks/envoyou")
        assert "data" not in each["request"]
        assert not any(name.lower().startswith("x-envoyou") for name in each["request"]["headers"])
    assert event.data.object["email"] not in sent.text
    assert delivery.headers["X-EnvoyOU-Signature"] not in sent.text


def test_without_a_client_nothing_is_sent_and_events_are_handled():
    webhooks = make_webhooks()
    sentry.instrument(webhooks)
    webhooks.on("*", name="welcome")(lambda event: None)
    deliver(webhooks, sample_event())
    assert webhooks.drain() == 1
    assert logging.getLogger("envoyou").isEnabledFor(logging.ERROR)


def test_a_report_bears_the_tenant(sent):
    webhooks = Webhooks(secret={"wh_1": SECRET}, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=1))
    sentry.instrument(webhooks)
    webhooks.on("*", name="fails")(lambda event: 1 / 0)
    deliver(webhooks, sample_event(webhook_id="wh_1"))
    webhooks.drain()
    [dead], [transaction] = sent.errors, sent.transactions
    assert dead["tags"]["envoyou.tenant"] == transaction["tags"]["envoyou.tenant"] == "wh_1"


def test_failures_that_wait_for_the_end_of_their_attempts_are_bounded(sent, monkeypatch):
    """A failure that is no longer kept is reported with the text of its notice."""
    monkeypatch.setattr(sentry, "MAX_PENDING", 0)
    webhooks = make_webhooks(retry=RetryPolicy(max_attempts=1))
    webhooks.on("*", name="fails")(lambda event: 1 / 0)
    deliver(webhooks, sample_event())
    webhooks.drain()
    [dead] = sent.errors
    assert dead["exception"]["values"][0]["value"] == "ZeroDivisionError: division by zero"
    assert dead["fingerprint"] == ["envoyou", "fails", "ZeroDivisionError"]


def test_a_lost_lease_is_reported_by_its_log_line_alone(sent):
    webhooks = make_webhooks()
    webhooks._notices.emit(LeaseLost("evt_1", "user.created"))
    [report] = sent.items
    assert report["logentry"]["message"].startswith("lease of event")
