"""Requests that schemathesis generates from the OpenAPI document, unsigned and signed, sent to a real server."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import contextmanager

import jsonschema
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from envoyou_core import sign
from envoyou_fastapi import create_router
from tests.contract.clients.servers import HOST, uvicorn_server
from tests.fastapi.conftest import PATH, SECRET

pytestmark = pytest.mark.slow

EXAMPLES = 100

bounded = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def served(make_webhooks):
    """Serve the router; yield the server's address and the document that describes it."""

    @contextmanager
    def serve(**settings):
        app = FastAPI()
        app.include_router(create_router(make_webhooks(handoff="manual", **settings)), prefix=PATH)
        document = app.openapi()
        # It is for responses of servers and middleware in front of the endpoint. There are none here, and the
        # endpoint's own responses must be described by status.
        assert document["paths"][PATH]["post"]["responses"].pop("default")
        with uvicorn_server(app) as port:
            yield f"http://{HOST}:{port}", document

    return serve


def strategy_of(document):
    import schemathesis
    from schemathesis import GenerationMode

    operation = schemathesis.openapi.from_dict(document)[PATH]["POST"]
    return st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))


def checks():
    from schemathesis import checks

    return [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]


def test_unsigned_requests_are_answered_as_described(served):
    import requests

    seen = Counter()
    with served() as (address, document), requests.Session() as session:
        session.trust_env = False

        @bounded
        @given(case=strategy_of(document))
        def check(case):
            response = case.call(base_url=address, session=session)
            case.validate_response(response, checks=checks())
            seen[response.status_code] += 1

        check()
    assert seen.keys() <= {401, 415}
    assert seen[401] > EXAMPLES / 3


def test_signed_requests_are_accepted_if_and_only_if_they_match_the_schema(served):
    import requests

    seen = Counter()

    def signed(request):
        """Sign the generated body. Headers that could contradict the body are omitted."""
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        for name in ("Webhook-ID", "Event-Type", "Nonce"):
            request.headers.pop(f"X-EnvoyOU-{name}", None)
        timestamp = str(int(time.time()))
        request.headers["X-EnvoyOU-Timestamp"] = timestamp
        request.headers["X-EnvoyOU-Signature"] = sign(body, secret=SECRET, timestamp=timestamp)
        request.headers["Content-Type"] = "application/json"
        return request

    with served(required_headers=()) as (address, document), requests.Session() as session:
        session.trust_env = False
        schema = document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["schema"]
        events = jsonschema.Draft202012Validator({**schema, "components": document["components"]})

        @bounded
        @given(case=strategy_of(document))
        def check(case):
            response = case.call(base_url=address, session=session, auth=signed)
            case.validate_response(response, checks=checks())
            seen[response.status_code] += 1
            assert response.status_code == (200 if is_event(events, response.request.body) else 400)

        check()
    assert seen.keys() == {200, 400}
    assert min(seen.values()) > EXAMPLES / 10


def is_event(events, body):
    try:
        # For JSON Schema, 1.0 is an integer; it cannot require the spelling of one.
        document = json.loads(body or b"", parse_float=str)
    except ValueError:
        return False
    return events.is_valid(document)
