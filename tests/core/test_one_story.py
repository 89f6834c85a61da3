"""One event is followed by its id, from the acceptance to the handler's own line, through logs, traces and metrics."""

import io
import json
import logging

import prometheus_client
import pytest
import pythonjsonlogger.json as jsonlogger
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from envoyou_core import RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.observability import HandlerFilter, handler_fields, opentelemetry, prometheus
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_the_story"


def json_formatter():
    return jsonlogger.JsonFormatter("%(levelname)s %(name)s %(message)s")


def structlog_formatter():
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )


@pytest.fixture(params=[json_formatter, structlog_formatter], ids=["python-json-logger", "structlog"])
def lines(request):
    """The log lines so far, as a program that reads them sees them."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    handler.addFilter(HandlerFilter())
    loggers = [logging.getLogger(name) for name in ("envoyou", "shop")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for log, level in zip(loggers, levels, strict=True):
        log.removeHandler(handler)
        log.setLevel(level)


def test_one_event_is_followed_from_its_acceptance_to_the_handlers_own_line(lines):
    webhooks = Webhooks(
        secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=2, initial_delay=0)
    )
    exporter, registry = InMemorySpanExporter(), prometheus_client.CollectorRegistry()
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    prometheus.instrument(webhooks, registry)
    opentelemetry.instrument(webhooks, tracer_provider=traces)

    @webhooks.on("user.created", name="welcome")
    def welcome(event, attempt):
        logging.getLogger("shop").info("welcome")
        if attempt == 1:
            raise ConnectionError("no mail server\nat all")

    event = sample_event("user.created")
    # The last one, because a bucket keeps its latest exemplar.
    for each in (sample_event("user.created"), sample_event("user.created"), event):
        delivery = sign_delivery(each, secret=SECRET)
        webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain(until_idle=True)

    story = [line for line in lines() if line["event_id"] == event.id]
    assert [(line.get("outcome"), line["handler"], line["attempt"]) for line in story] == [
        ("accepted", None, None),
        (None, "welcome", 1),
        ("failed", "welcome", 1),
        ("failed", "welcome", 1),
        (None, "welcome", 2),
        ("processed", None, 2),
    ]
    assert story[2]["error"]["message"] == "ConnectionError: no mail server"
    spans = [span for span in exporter.get_finished_spans() if span.attributes.get("messaging.message.id") == event.id]
    assert [(span.name, span.attributes.get("envoyou.attempt")) for span in spans] == [
        ("send default", None),
        ("process default", 1),
        ("process default", 2),
    ]
    accepted, *attempts = spans
    assert {link.context.span_id for span in attempts for link in span.links} == {accepted.context.span_id}
    # The trace leads from a metric to the event.
    trace_id = f"{accepted.context.trace_id:032x}"
    exemplars = {
        sample.exemplar.labels["trace_id"]: sample.labels
        for family in registry.collect()
        if family.name == "envoyou_webhook_handler_seconds"
        for sample in family.samples
        if sample.exemplar is not None and sample.labels["outcome"] == "failed"
    }
    assert exemplars[trace_id]["handler"] == "welcome"
    assert story[0]["envoyou"]["traceparent"].split("-")[1] == trace_id
    attempts_total = {"handler": "welcome", "outcome": "succeeded"}
    assert registry.get_sample_value("envoyou_webhook_attempts_total", attempts_total) == 3
    traces.shutdown()


def test_the_loggers_of_structlog_bear_the_event_as_well():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    lines = []

    def keep(logger, method, line):
        lines.append(line)
        raise structlog.DropEvent

    log = structlog.wrap_logger(None, processors=[lambda logger, method, line: {**handler_fields(), **line}, keep])
    webhooks.on("user.created", name="welcome")(lambda event: log.info("welcome"))
    event = sample_event("user.created")
    delivery = sign_delivery(event, secret=SECRET)
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    webhooks.drain()
    [line] = lines
    assert (line["event"], line["event_id"], line["handler"], line["attempt"]) == ("welcome", event.id, "welcome", 1)
