"""Traces beside the instrumentation of Django."""

import pytest
from django.test import Client, override_settings
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.trace import SpanKind

from envoyou_core.observability import opentelemetry
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.spans import recorded_spans

SECRET = "whsec_of_the_traces"


@pytest.mark.django_db
def test_the_acceptance_is_below_the_span_of_django():
    with recorded_spans() as (provider, spans), override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        DjangoInstrumentor().instrument(tracer_provider=provider)
        try:
            opentelemetry.instrument(webhooks, tracer_provider=provider)
            delivery = sign_delivery(sample_event(), secret=SECRET)
            response = Client().post(
                "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
            )
        finally:
            DjangoInstrumentor().uninstrument()
        assert response.status_code == 200
        [request], [accepted] = spans(SpanKind.SERVER), spans(SpanKind.PRODUCER)
        assert accepted.parent.span_id == request.context.span_id
