"""Traces beside the instrumentation of FastAPI."""

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import SpanKind
from starlette.testclient import TestClient

from envoyou_core.observability import opentelemetry
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_fastapi import create_router
from tests.fastapi.conftest import PATH, SECRET
from tests.spans import recorded_spans


def test_the_acceptance_is_below_the_span_of_fastapi(make_webhooks):
    webhooks = make_webhooks(handoff="manual")
    with recorded_spans() as (provider, spans):
        opentelemetry.instrument(webhooks, tracer_provider=provider)
        app = FastAPI()
        app.include_router(create_router(webhooks), prefix=PATH)
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        delivery = sign_delivery(sample_event(), secret=SECRET)
        with TestClient(app) as client:
            assert client.post(PATH, content=delivery.body, headers=delivery.headers).status_code == 200
        [request], [accepted] = spans(SpanKind.SERVER), spans(SpanKind.PRODUCER)
        assert accepted.parent.span_id == request.context.span_id
