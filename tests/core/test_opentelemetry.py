"""Spans and metrics of OpenTelemetry: of acceptances, claims and attempts, across threads, processes and stores."""

import asyncio
import io
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from sqlalchemy import create_engine, text

from envoyou_core import RetryLater, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.observability import opentelemetry
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.wsgi import webhooks_entry

SECRET = "whsec_of_the_traces"
PROJECT = Path(__file__).parents[2]


class Telemetry:
    """Providers that keep what they receive."""

    def __init__(self):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def instrument(self, webhooks):
        opentelemetry.instrument(webhooks, tracer_provider=self.traces, meter_provider=self.meters)

    def spans(self, kind):
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def points(self):
        """The points of each metric by its attributes."""
        data = self.reader.get_metrics_data()
        metrics = [it for resource in data.resource_metrics for scope in resource.scope_metrics for it in scope.metrics]
        return {
            metric.name: {tuple(point.attributes.values()): point for point in metric.data.data_points}
            for metric in metrics
        }


@pytest.fixture
def telemetry():
    telemetry = Telemetry()
    yield telemetry
    telemetry.traces.shutdown()
    telemetry.meters.shutdown()


def make_webhooks(telemetry, inbox="memory:", **settings):
    webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual", **settings)
    telemetry.instrument(webhooks)
    return webhooks


def request_of(event, secret=SECRET):
    delivery = sign_delivery(event, secret=secret)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


def test_an_attempt_is_linked_to_its_acceptance_in_another_process(telemetry, tmp_path):
    inbox = f"sqlite:///{tmp_path}/inbox.db"
    accepting = make_webhooks(telemetry, inbox)
    event = sample_event("user.created", webhook_id="wh_1")
    accepting.receive(request_of(event))
    accepting.inbox.close()
    working = make_webhooks(telemetry, inbox)
    working.on("user.created", name="welcome")(lambda event: None)
    working.drain()
    working.inbox.close()
    [accepted], [claim], [attempt] = map(telemetry.spans, (SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CONSUMER))
    assert accepted.name == "send default"
    assert dict(accepted.attributes) == {
        "messaging.system": "envoyou",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "default",
        "messaging.message.id": event.id,
        "messaging.message.body.size": len(event.body),
        "envoyou.event_type": "user.created",
        "envoyou.webhook_id": "wh_1",
        "envoyou.outcome": "accepted",
    }
    assert (claim.name, claim.attributes["messaging.batch.message_count"]) == ("receive default", 1)
    assert claim.end_time >= claim.start_time
    assert attempt.name == "process default"
    assert attempt.attributes["messaging.message.id"] == event.id
    assert (attempt.attributes["envoyou.handler"], attempt.attributes["envoyou.attempt"]) == ("welcome", 1)
    assert attempt.attributes["envoyou.outcome"] == "succeeded"
    # A trace of its own: the acceptance may be days older.
    assert attempt.parent is None
    assert attempt.context.trace_id != accepted.context.trace_id
    [link] = attempt.links
    assert (link.context.trace_id, link.context.span_id) == (accepted.context.trace_id, accepted.context.span_id)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_handler_traces_is_below_its_attempt(telemetry, is_async):
    webhooks = make_webhooks(telemetry)
    seen = []

    def welcome(event):
        seen.append(get_current_span().get_span_context().span_id)

    async def later(event):
        await asyncio.sleep(0)
        welcome(event)

    webhooks.on("*", name="welcome")(later if is_async else welcome)
    webhooks.receive(request_of(sample_event()))
    webhooks.drain()
    [attempt] = telemetry.spans(SpanKind.CONSUMER)
    assert seen == [attempt.context.span_id]
    assert not get_current_span().get_span_context().is_valid


def test_an_exception_is_recorded_once_and_redacted(telemetry):
    webhooks = make_webhooks(telemetry, retry=RetryPolicy(max_attempts=1))
    event = sample_event("user.created")
    email = event.data.object["email"]

    @webhooks.on("user.created", name="fails")
    def fails(event):
        raise ValueError(f"token=hunter2-battery {email}\nmore")

    webhooks.receive(request_of(event))
    webhooks.drain()
    [attempt] = telemetry.spans(SpanKind.CONSUMER)
    assert attempt.status.status_code is StatusCode.ERROR
    assert attempt.status.description == "ValueError: token=[redacted] [redacted]"
    assert (attempt.attributes["error.type"], attempt.attributes["envoyou.outcome"]) == ("ValueError", "failed")
    [recorded] = attempt.events
    assert recorded.name == "exception"
    assert recorded.attributes["exception.type"] == "ValueError"
    assert recorded.attributes["exception.message"] == "token=[redacted] [redacted]"
    assert "in fails" in recorded.attributes["exception.stacktrace"]
    assert not any(secret in attempt.to_json() for secret in ("hunter2", email))


def test_a_postponed_attempt_is_no_error(telemetry):
    webhooks = make_webhooks(telemetry)

    @webhooks.on("*", name="waits")
    def waits(event):
        raise RetryLater(60, "busy")

    webhooks.receive(request_of(sample_event()))
    webhooks.drain()
    [attempt] = telemetry.spans(SpanKind.CONSUMER)
    assert attempt.status.status_code is StatusCode.UNSET
    assert (attempt.attributes["envoyou.outcome"], attempt.events) == ("postponed", ())


def test_the_acceptance_is_below_the_span_of_the_framework(telemetry):
    webhooks = make_webhooks(telemetry)
    app = OpenTelemetryMiddleware(
        webhooks_entry(lambda environ, start_response: [], webhooks), tracer_provider=telemetry.traces
    )
    delivery = sign_delivery(sample_event(), secret=SECRET)
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
    answer = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    list(answer)
    answer.close()
    assert statuses == ["200 OK"]
    [accepted], [request] = telemetry.spans(SpanKind.PRODUCER), telemetry.spans(SpanKind.SERVER)
    assert accepted.parent.span_id == request.context.span_id


def test_the_statements_of_a_handler_are_below_its_attempt(telemetry):
    webhooks, engine = make_webhooks(telemetry), create_engine("sqlite://")
    # It names SQLAlchemy 2.0 as the newest release that it supports.
    SQLAlchemyInstrumentor().instrument(engine=engine, tracer_provider=telemetry.traces, skip_dep_check=True)

    @webhooks.on("*", name="welcome")
    def welcome(event):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    try:
        webhooks.receive(request_of(sample_event()))
        webhooks.drain()
    finally:
        SQLAlchemyInstrumentor().uninstrument()
        engine.dispose()
    [attempt] = telemetry.spans(SpanKind.CONSUMER)
    [statement] = [span for span in telemetry.spans(SpanKind.CLIENT) if "db.statement" in span.attributes]
    assert statement.attributes["db.statement"] == "SELECT 1"
    assert statement.parent.span_id == attempt.context.span_id


@pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed")
def test_an_attempt_in_a_task_of_celery_is_linked_to_its_acceptance_and_to_the_task(tmp_path):
    script = """
        import sys, threading

        from celery import Celery
        from celery.contrib.testing.worker import start_worker
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.trace import SpanKind

        from envoyou_core import WebhookRequest, Webhooks
        from envoyou_core.observability import opentelemetry
        from envoyou_core.testing import sample_event, sign_delivery
        from tests.spans import recorded_spans

        app = Celery("shop", broker="memory://")
        app.conf.worker_hijack_root_logger = False
        app.set_default()
        handled = threading.Event()
        with recorded_spans() as (provider, spans):
            CeleryInstrumentor().instrument(tracer_provider=provider)
            webhooks = Webhooks(secret="whsec_test", inbox=sys.argv[1], handoff="celery")
            webhooks.on("*", name="welcome")(lambda event: handled.set())
            opentelemetry.instrument(webhooks, tracer_provider=provider)
            delivery = sign_delivery(sample_event(), secret="whsec_test")
            webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
            with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
                assert handled.wait(60)
            webhooks.stop()
            [accepted] = [span for span in spans(SpanKind.PRODUCER) if span.name == "send default"]
            runs = {span.context.span_id for span in spans(SpanKind.CONSUMER) if span.name.startswith("run/")}
            [attempt] = [span for span in spans(SpanKind.CONSUMER) if span.name == "process default"]
            first, second = [link.context.span_id for link in attempt.links]
            assert attempt.parent is None and attempt.attributes["envoyou.outcome"] == "succeeded"
            assert first == accepted.context.span_id and second in runs, (first, second, runs)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), f"sqlite:///{tmp_path / 'inbox.db'}"]
    ended = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert ended.returncode == 0, ended.stderr


def test_each_of_several_acceptances_on_one_loop_has_the_span_of_its_own_request(telemetry):
    webhooks = make_webhooks(telemetry)
    tracer = telemetry.traces.get_tracer("test")

    async def serve(event):
        with tracer.start_as_current_span(event.id, kind=SpanKind.SERVER):
            await webhooks.areceive(request_of(event))

    async def serve_all():
        await asyncio.gather(*(serve(sample_event(id=f"evt_{number}")) for number in range(3)))

    asyncio.run(serve_all())
    requests = {span.context.span_id: span.name for span in telemetry.spans(SpanKind.SERVER)}
    accepted = telemetry.spans(SpanKind.PRODUCER)
    assert len(accepted) == 3
    assert all(requests[it.parent.span_id] == it.attributes["messaging.message.id"] for it in accepted)


def test_an_event_that_cannot_be_stored_ends_its_span_as_an_error(telemetry, monkeypatch):
    webhooks = make_webhooks(telemetry)
    monkeypatch.setattr(webhooks.inbox, "add", lambda entry: 1 / 0)
    webhooks.receive(request_of(sample_event()))
    # Nothing that is not proven makes a span.
    webhooks.receive(request_of(sample_event(), secret="whsec_another"))
    [accepted] = telemetry.spans(SpanKind.PRODUCER)
    assert accepted.status.status_code is StatusCode.ERROR
    assert accepted.attributes["error.type"] == "ZeroDivisionError"


@pytest.mark.parametrize("fails_at", ["begin", "end"])
def test_a_tracer_that_fails_does_not_affect_the_acceptance(telemetry, monkeypatch, caplog, fails_at):
    webhooks = make_webhooks(telemetry)
    if fails_at == "begin":
        monkeypatch.setattr(telemetry.traces.sampler, "should_sample", lambda *args, **named: 1 / 0)
    else:
        monkeypatch.setattr("envoyou_core.observability.traces.TracedEvent.end", lambda *args: 1 / 0)
    event = sample_event()
    assert webhooks.receive(request_of(event)).status == 200
    assert webhooks.inbox.get(event.id) is not None
    assert "an acceptance was not traced" in caplog.text


def test_the_spool_carries_the_trace_context_to_the_inbox(telemetry, tmp_path, monkeypatch):
    webhooks = make_webhooks(telemetry, f"sqlite:///{tmp_path}/inbox.db", spool=f"sqlite:///{tmp_path}/spool.db")
    webhooks.on("*", name="welcome")(lambda event: None)
    with monkeypatch.context() as outage:
        outage.setattr(webhooks.inbox, "add", lambda entry: 1 / 0)
        assert webhooks.receive(request_of(sample_event())).status == 200
    assert webhooks.spool.stats().total == 1
    webhooks.drain()
    webhooks.stop()
    webhooks.inbox.close()
    webhooks.spool.close()
    [accepted], [attempt] = telemetry.spans(SpanKind.PRODUCER), telemetry.spans(SpanKind.CONSUMER)
    assert [link.context.span_id for link in attempt.links] == [accepted.context.span_id]


def test_a_trace_context_that_was_changed_by_hand_is_left_out(telemetry, tmp_path):
    webhooks = make_webhooks(telemetry, f"sqlite:///{tmp_path}/inbox.db")
    webhooks.on("*", name="welcome")(lambda event: None)
    webhooks.receive(request_of(sample_event()))
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as connection:
        connection.execute("UPDATE envoyou_inbox SET traceparent = 'nonsense'")
        connection.commit()
    webhooks.drain()
    webhooks.inbox.close()
    [attempt] = telemetry.spans(SpanKind.CONSUMER)
    assert attempt.links == ()


def test_nothing_is_stored_and_no_span_is_made_without_an_sdk(tmp_path):
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", instrument=["opentelemetry"])
    webhooks.on("*", name="welcome")(lambda event: None)
    event = sample_event()
    webhooks.receive(request_of(event))
    assert webhooks.inbox.get(event.id).traceparent is None
    assert webhooks.drain() == 1


def test_the_metrics_are_those_of_prometheus(telemetry, tmp_path):
    webhooks = make_webhooks(telemetry, f"sqlite:///{tmp_path}/inbox.db")
    telemetry.instrument(webhooks)
    opentelemetry.observe_inbox(webhooks, meter_provider=telemetry.meters)
    webhooks.on("user.created", name="welcome")(lambda event: None)
    webhooks.receive(request_of(sample_event("user.created", created=int(datetime.now(UTC).timestamp()))))
    webhooks.drain()
    points = telemetry.points()
    webhooks.inbox.close()
    assert points["envoyou.webhook.deliveries"]["accepted", ""].value == 1
    assert points["envoyou.webhook.processed"]["user.created", "processed"].value == 1
    assert points["envoyou.webhook.attempts"]["welcome", "succeeded"].value == 1
    assert points["envoyou.webhook.handler"]["welcome", "succeeded"].explicit_bounds[0] == 0.005
    for name in ("acknowledge", "received_lag", "processed_lag"):
        assert points[f"envoyou.webhook.{name}"][()].count == 1
    assert points["envoyou.inbox.events"]["default", "processed"].value == 1
    assert points["envoyou.workers.alive"]["default",].value == 0
    assert points["envoyou.disk.free_bytes"]["default",].value > 0
