"""One event is followed by its id, from the attempt of the platform to the line of the handler."""

import logging
import threading
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import prometheus_client
from opentelemetry.trace import SpanKind, format_trace_id

from envoyou_core import Webhooks
from envoyou_core.client import EnvoyouClient
from envoyou_core.observability import HandlerFilter, opentelemetry, prometheus
from envoyou_core.simulator import Platform
from envoyou_core.wsgi import webhooks_entry
from tests.spans import recorded_spans

SECRET = "whsec_of_the_story"
PATIENCE = 60.0


class Silent(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(webhooks):
    app = webhooks_entry(lambda environ, start_response: [], webhooks)
    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/webhooks/envoyou"
        server.shutdown()
        thread.join()


def test_an_event_is_followed_from_the_attempt_of_the_platform(caplog):
    caplog.handler.addFilter(HandlerFilter())
    caplog.set_level(logging.INFO)
    webhooks, registry = (
        Webhooks(secret=SECRET, inbox="memory:", handoff="manual"),
        prometheus_client.CollectorRegistry(),
    )
    prometheus.instrument(webhooks, registry)
    webhooks.on("user.created", name="welcome")(lambda event: logging.getLogger("shop").info("welcome"))
    with recorded_spans() as (provider, spans):
        opentelemetry.instrument(webhooks, tracer_provider=provider)
        with (
            serving(webhooks) as url,
            Platform(timeout=PATIENCE) as platform,
            EnvoyouClient(platform.api_key, platform.base_url) as client,
        ):
            client.webhooks.create(url=url, events=["user.created"], secret=SECRET)
            [event_id] = platform.send("user.created", count=1)
            platform.wait_until_idle(PATIENCE)
            webhooks.drain()
            [attempt] = [it for it in platform.attempts() if it.event_id == event_id]
        [accepted], [handled] = spans(SpanKind.PRODUCER), spans(SpanKind.CONSUMER)
    assert attempt.delivered

    story = [it for it in caplog.records if getattr(it, "event_id", None) == event_id]
    assert [(it.name, getattr(it, "outcome", None), it.handler) for it in story] == [
        ("envoyou", "accepted", None),
        ("shop", None, "welcome"),
        ("envoyou", "processed", None),
    ]
    assert {it.attributes["messaging.message.id"] for it in (accepted, handled)} == {event_id}
    assert [link.context.span_id for link in handled.links] == [accepted.context.span_id]
    # The trace leads from a metric to the event.
    exemplars = {
        sample.labels["handler"]: sample.exemplar.labels["trace_id"]
        for family in registry.collect()
        if family.name == "envoyou_webhook_handler_seconds"
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert exemplars == {"welcome": format_trace_id(accepted.context.trace_id)}
