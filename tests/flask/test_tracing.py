"""Traces beside the instrumentation of Flask."""

from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.trace import SpanKind

from envoyou_core.observability import opentelemetry
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import create_blueprint
from tests.flask.conftest import PATH, SECRET
from tests.spans import recorded_spans


def test_the_acceptance_is_below_the_span_of_flask(manual):
    with recorded_spans() as (provider, spans):
        opentelemetry.instrument(manual, tracer_provider=provider)
        app = Flask(__name__)
        app.register_blueprint(create_blueprint(manual), url_prefix=PATH)
        FlaskInstrumentor().instrument_app(app, tracer_provider=provider)
        delivery = sign_delivery(sample_event(), secret=SECRET)
        assert app.test_client().post(PATH, data=delivery.body, headers=delivery.headers).status_code == 200
        [request], [accepted] = spans(SpanKind.SERVER), spans(SpanKind.PRODUCER)
        assert request.attributes["http.route"].startswith(PATH)
        assert accepted.parent.span_id == request.context.span_id
        FlaskInstrumentor().uninstrument_app(app)
