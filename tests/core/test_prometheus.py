"""Metrics for Prometheus: what is counted, under which labels, and the answers of an exporter."""

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request

import prometheus_client
import pytest
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id
from prometheus_client.openmetrics import exposition as openmetrics

from envoyou_core import ConfigurationError, PermanentError, RetryLater, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import Added
from envoyou_core.observability import Accepted, opentelemetry, prometheus
from envoyou_core.observability.measurements import HISTOGRAMS
from envoyou_core.testing import sample_event, sign_delivery
from tests.spans import recorded_spans

SECRET = "whsec_of_the_metrics"
NOW = 1_800_000_000


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry()


def make_webhooks(registry, inbox="memory:", **settings):
    webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual", **settings)
    prometheus.instrument(webhooks, registry)
    return webhooks


def deliver(webhooks, event, secret=SECRET, timestamp=None):
    delivery = sign_delivery(event, secret=secret, timestamp=timestamp)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))


def counted(registry, name):
    """The values of a counter, by its labels."""
    [family] = [it for it in registry.collect() if it.name == name]
    return {tuple(it.labels.values()): it.value for it in family.samples if it.name == f"{name}_total"}


def observed(registry, name):
    """How many values a histogram has, by its labels."""
    [family] = [it for it in registry.collect() if it.name == name]
    return {tuple(it.labels.values()): it.value for it in family.samples if it.name == f"{name}_count"}


def test_deliveries_are_counted_by_outcome_and_reason(registry, monkeypatch):
    webhooks = make_webhooks(registry, retry=RetryPolicy(max_attempts=1))
    webhooks.on("user.deleted", name="fails")(lambda event: 1 / 0)
    event, dead = sample_event("user.created"), sample_event("user.deleted")
    for each in (event, event, sample_event("user.created", id=event.id, object={"id": "user_2"}), dead):
        deliver(webhooks, each)
    deliver(webhooks, event, secret="whsec_another")
    webhooks.drain()
    deliver(webhooks, dead)
    monkeypatch.setattr(webhooks.inbox, "add", lambda entry: 1 / 0)
    deliver(webhooks, sample_event())
    assert counted(registry, "envoyou_webhook_deliveries") == {
        ("accepted", ""): 2,
        ("duplicate", ""): 1,
        ("body_differs", ""): 1,
        ("rearmed", ""): 1,
        ("rejected", "signature_mismatch"): 1,
        ("unavailable", "unavailable"): 1,
    }
    assert observed(registry, "envoyou_webhook_acknowledge_seconds") == {(): 5}
    assert observed(registry, "envoyou_webhook_received_lag_seconds") == {(): 2}


def test_attempts_are_counted_by_handler_and_events_by_their_end(registry):
    webhooks = make_webhooks(registry, retry=RetryPolicy(max_attempts=2, initial_delay=0))

    @webhooks.on("user.created", name="second_time")
    def second_time(event, attempt):
        if attempt == 1:
            raise ValueError

    @webhooks.on("user.deleted", name="gives_up")
    def gives_up(event):
        raise PermanentError("no")

    @webhooks.on("user.updated", name="waits")
    def waits(event):
        raise RetryLater(60, "busy")

    webhooks.on("user.created", name="welcome")(lambda event: None)
    for type_ in ("user.created", "user.deleted", "auth.login"):
        deliver(webhooks, sample_event(type_))
    webhooks.drain(until_idle=True)
    deliver(webhooks, sample_event("user.updated"))
    webhooks.drain()
    assert counted(registry, "envoyou_webhook_attempts") == {
        ("second_time", "failed"): 1,
        ("second_time", "succeeded"): 1,
        ("welcome", "succeeded"): 1,
        ("gives_up", "failed"): 1,
        ("waits", "postponed"): 1,
    }
    assert observed(registry, "envoyou_webhook_handler_seconds") == counted(registry, "envoyou_webhook_attempts")
    assert counted(registry, "envoyou_webhook_processed") == {
        ("user.created", "failed"): 1,
        ("user.created", "processed"): 1,
        ("user.deleted", "dead"): 1,
        ("auth.login", "ignored"): 1,
        ("user.updated", "postponed"): 1,
    }
    assert counted(registry, "envoyou_webhook_retries") == {("user.created",): 1, ("user.updated",): 1}
    assert counted(registry, "envoyou_webhook_dead") == {("user.deleted",): 1}
    assert observed(registry, "envoyou_webhook_processed_lag_seconds") == {(): 1}


def test_lags_are_from_the_creation_of_the_event(registry):
    now = [NOW]
    webhooks = make_webhooks(registry, clock=lambda: now[0])
    webhooks.on("*", name="welcome")(lambda event: None)
    deliver(webhooks, sample_event(created=int(NOW) - 40), timestamp=NOW)
    now[0] += 60
    webhooks.drain()
    assert registry.get_sample_value("envoyou_webhook_received_lag_seconds_sum") == 40
    assert registry.get_sample_value("envoyou_webhook_processed_lag_seconds_sum") == 100


def test_a_stale_event_is_counted_as_skipped(registry):
    webhooks = make_webhooks(registry)
    webhooks.on("*", name="update", stale="skip")(lambda event: None)
    for created in (NOW, NOW - 100):
        deliver(webhooks, sample_event("user.updated", created=int(created)))
        webhooks.drain()
    assert counted(registry, "envoyou_webhook_attempts") == {("update", "succeeded"): 1, ("update", "skipped"): 1}


def test_the_labels_of_event_types_are_bounded(registry):
    webhooks = make_webhooks(registry)
    webhooks.on("shop.opened", "*", name="all")(lambda event: None)
    for type_ in ("user.created", "shop.opened", "shop.closed", "shop.moved"):
        deliver(webhooks, sample_event(type_, object={"id": "shop_1"}))
    webhooks.drain()
    processed = {("user.created", "processed"): 1, ("shop.opened", "processed"): 1, ("other", "processed"): 2}
    assert counted(registry, "envoyou_webhook_processed") == processed


def test_histograms_have_the_trace_of_an_acceptance_as_exemplar(registry):
    webhooks = make_webhooks(registry)
    webhooks.on("*", name="welcome")(lambda event: None)
    with recorded_spans() as (provider, spans):
        opentelemetry.instrument(webhooks, tracer_provider=provider)
        deliver(webhooks, sample_event())
        webhooks.drain()
        [accepted] = spans(SpanKind.PRODUCER)
    context = accepted.get_span_context()
    expected = {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
    found = {
        family.name: sample.exemplar.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {f"{it.name}_seconds": expected for it in HISTOGRAMS}
    assert f'trace_id="{expected["trace_id"]}"' in openmetrics.generate_latest(registry).decode()


@pytest.mark.parametrize("flags", ["00", "02"])
def test_a_trace_that_is_not_recorded_is_no_exemplar(registry, flags):
    webhooks = make_webhooks(registry)
    traceparent = f"00-{'a' * 32}-{'b' * 16}-{flags}"
    webhooks.notice_stream.emit(Accepted("evt_1", "user.created", Added.NEW, seconds=0.1, traceparent=traceparent))
    assert observed(registry, "envoyou_webhook_acknowledge_seconds") == {(): 1}
    assert not any(sample.exemplar for family in registry.collect() for sample in family.samples)


def test_two_webhooks_share_a_registry_and_a_second_call_counts_nothing_twice(registry):
    webhooks, others = make_webhooks(registry), make_webhooks(registry, name="others")
    prometheus.instrument(webhooks, registry)
    for each in (webhooks, others):
        deliver(each, sample_event())
    assert counted(registry, "envoyou_webhook_deliveries") == {("accepted", ""): 2}


def read(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def scrape(app, query=""):
    answer = {}

    def start_response(status, headers):
        answer["status"] = status

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": query}
    body = b"".join(app(environ, start_response)).decode()
    assert answer["status"] == "200 OK"
    return samples(body)


def samples(text):
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def webhooks(registry, tmp_path):
    webhooks = make_webhooks(
        registry, inbox=f"sqlite:///{tmp_path}/inbox.db", spool=f"sqlite:///{tmp_path}/spool.db", clock=lambda: NOW
    )
    yield webhooks
    webhooks.stop()
    webhooks.inbox.close()
    webhooks.spool.close()


def test_an_exporter_adds_what_only_the_database_knows(webhooks, registry, tmp_path):
    deliver(webhooks, sample_event(), timestamp=NOW)
    found = scrape(prometheus.wsgi_app(webhooks, registry=registry))
    assert found['envoyou_inbox_events{name="default",status="received"}'] == 1
    assert found['envoyou_inbox_events{name="default",status="dead"}'] == 0
    assert found['envoyou_inbox_oldest_waiting_seconds{name="default"}'] == 0
    assert found['envoyou_inbox_waiting_for_handler{name="default"}'] == 0
    assert found['envoyou_inbox_rejected{name="default"}'] == 0
    assert found['envoyou_spool_events{name="default"}'] == 0
    assert found['envoyou_workers_alive{name="default"}'] == 0
    assert found['envoyou_disk_free_bytes{name="default"}'] > 0
    assert found['envoyou_webhook_deliveries_total{outcome="accepted",reason=""}'] == 1
    assert scrape(prometheus.wsgi_app(webhooks, registry=registry), "name[]=envoyou_inbox_rejected") == {
        'envoyou_inbox_rejected{name="default"}': 0
    }


def test_an_exporter_of_asgi_does_not_block_the_loop(webhooks, registry, monkeypatch):
    deliver(webhooks, sample_event(), timestamp=NOW)
    app = prometheus.asgi_app(webhooks, registry=registry)
    loops = []
    stats = webhooks.inbox.stats

    def reading():
        loops.append(asyncio._get_running_loop())
        return stats()

    monkeypatch.setattr(webhooks.inbox, "stats", reading)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert loops == [None]
    assert sent[0]["status"] == 200
    assert samples(sent[1]["body"].decode())['envoyou_inbox_events{name="default",status="received"}'] == 1


def test_a_database_that_fails_leaves_the_other_metrics(webhooks, registry, monkeypatch, caplog):
    deliver(webhooks, sample_event(), timestamp=NOW)
    monkeypatch.setattr(webhooks.inbox, "stats", lambda: 1 / 0)
    found = scrape(prometheus.wsgi_app(webhooks, registry=registry))
    assert 'envoyou_webhook_deliveries_total{outcome="accepted",reason=""}' in found
    assert 'envoyou_disk_free_bytes{name="default"}' in found
    assert not any(name.startswith("envoyou_inbox_events") for name in found)
    assert "gauges of default cannot be read: ZeroDivisionError" in caplog.text


def test_an_exporter_of_its_own_listens_on_a_port(webhooks, registry):
    with prometheus.serve(webhooks, port=0, registry=registry) as port:
        assert 'envoyou_workers_alive{name="default"} 0.0' in read(f"http://127.0.0.1:{port}/metrics")


def test_a_worker_serves_the_metrics(tmp_path):
    (tmp_path / "hooks.py").write_text(
        "from envoyou_core import Webhooks\n"
        f"webhooks = Webhooks(secret='{SECRET}', inbox='sqlite:///{tmp_path}/inbox.db')\n"
        "webhooks.on('*')(print)\n"
    )
    command = [sys.executable, "-c", "from envoyou_core.cli import main; main()", "--app", "hooks:webhooks", "worker"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    worker = subprocess.Popen(
        [*command, "--metrics-port", "0"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        for line in worker.stderr:
            if served := re.search(r"metrics are served at (http://127.0.0.1:\d+/metrics)", line):
                address = served[1]
            if "started (process)" in line:
                break
        deadline = time.monotonic() + 30
        while 'envoyou_workers_alive{name="default"} 1.0' not in (found := read(address)):
            # The worker is listed with its first claim.
            assert time.monotonic() < deadline, found
        port = address.split(":")[2].partition("/")[0]
        taken = subprocess.run([*command, "--metrics-port", port], cwd=tmp_path, capture_output=True, text=True)
        assert taken.returncode == 1
        assert f"cannot serve metrics on 127.0.0.1, port {port}: Address already in use" in taken.stderr
    finally:
        worker.terminate()
        worker.communicate(timeout=30)


def test_the_setting_instruments_with_the_default_registry(monkeypatch):
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus, "REGISTRY", registry)
    webhooks = Webhooks.from_env(
        {"ENVOYOU_WEBHOOK_SECRET": SECRET, "ENVOYOU_INSTRUMENT": "prometheus", "ENVOYOU_INBOX": "memory:"},
        handoff="manual",
    )
    deliver(webhooks, sample_event())
    assert counted(registry, "envoyou_webhook_deliveries") == {("accepted", ""): 1}


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (["statsd"], "instrument must be some of prometheus, opentelemetry, sentry, got 'statsd'"),
        ("prometheus", "instrument must be a list of names, got the text 'prometheus'"),
    ],
)
def test_an_unknown_library_is_refused(names, error):
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        Webhooks(secret=SECRET, inbox="memory:", instrument=names)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "envoyou_core.observability.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'envoyou-webhooks[prometheus]'")):
        Webhooks(secret=SECRET, inbox="memory:", instrument=["prometheus"])
