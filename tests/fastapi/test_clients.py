"""Clients that disconnect or are slow, at a real server, behind middleware that applications use."""

from __future__ import annotations

import gzip
import json
import logging
import socket
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_fastapi import create_router, verified_event
from envoyou_fastapi.starlette import create_routes, lifespan
from tests.contract import wire
from tests.contract.clients.servers import HOST, uvicorn_server
from tests.fastapi.conftest import PATH, SECRET

CHECKED = "/checked"
ORIGIN = "https://example.com"


class Stamps(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        response = await call_next(request)
        response.headers["X-Stamp"] = "the app's"
        return response


class ReadsTheBody(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        await request.body()
        return await call_next(request)


MIDDLEWARE = [
    Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_methods=["POST"]),
    Middleware(GZipMiddleware, minimum_size=1),
    Middleware(Stamps),
]


def fastapi_app(webhooks, middleware):
    app = FastAPI(middleware=middleware)
    app.include_router(create_router(webhooks), prefix=PATH)

    @app.post(CHECKED)
    async def checked(event: Annotated[Event, Depends(verified_event(webhooks))]) -> str:
        return event.id

    return app


def starlette_app(webhooks, middleware):
    return Starlette(routes=create_routes(webhooks, PATH), middleware=middleware, lifespan=lifespan(webhooks))


@pytest.fixture(params=[fastapi_app, starlette_app], ids=["fastapi", "starlette"])
def make_app(request):
    return request.param


@pytest.fixture
def serve(make_webhooks, make_app, caplog):
    """Serve the application behind `middleware`, and check that no error is logged meanwhile."""
    webhooks = make_webhooks(handoff="manual", max_body_size=5000)

    def serving(middleware=MIDDLEWARE):
        return uvicorn_server(make_app(webhooks, middleware))

    serving.webhooks = webhooks
    yield serving
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


def request_head(delivery, path=PATH, **headers):
    sent = {
        "Host": HOST,
        "Connection": "close",
        "Content-Length": str(len(delivery.body)),
        **delivery.headers,
        **headers,
    }
    return wire.head("POST", path, wire.pairs(sent))


def signed(event=None):
    return sign_delivery(event or sample_event(), secret=SECRET)


def send(port, delivery, **changes):
    return wire.exchange((HOST, port), [request_head(delivery, **changes), delivery.body])


@pytest.mark.parametrize("middleware", [MIDDLEWARE, [*MIDDLEWARE, Middleware(ReadsTheBody)]], ids=["", "that reads"])
def test_middleware_does_not_change_the_outcome(serve, middleware):
    asked = {"Accept-Encoding": "gzip", "Origin": ORIGIN}
    delivery, forged = signed(), signed()
    forged.headers["X-EnvoyOU-Signature"] = f"v1,{64 * '0'}"
    large = signed(sample_event(object={"id": "user_1", "name": 5000 * "n"}))
    with serve(middleware) as port:
        answers = [send(port, sent, **asked) for sent in (delivery, delivery, forged, large)]
    assert [answer.status for answer in answers] == [200, 200, 401, 413]
    documents = [json.loads(gzip.decompress(answer.body)) for answer in answers]
    assert documents[:2] == [{"received": True}, {"received": True, "duplicate": True}]
    assert [document["error"] for document in documents[2:]] == ["unauthorized", "payload_too_large"]
    for answer in answers:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["X-Stamp"] == "the app's"
    assert serve.webhooks.inbox.get(json.loads(delivery.body)["id"]).event.body == delivery.body
    assert serve.webhooks.inbox.stats().total == 1


def test_a_preflight_request_is_answered(serve):
    asked = {"Host": HOST, "Connection": "close", "Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    with serve() as port:
        answer = wire.exchange((HOST, port), [wire.head("OPTIONS", PATH, wire.pairs(asked))])
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)


def paths(make_app):
    return [PATH, CHECKED] if make_app is fastapi_app else [PATH]


@pytest.mark.parametrize("middleware", [[], MIDDLEWARE], ids=["bare", "behind middleware"])
def test_a_client_that_disconnects_before_the_end_leaves_nothing(serve, make_app, middleware):
    delivery = signed()
    with serve(middleware) as port:
        for path in paths(make_app):
            with socket.create_connection((HOST, port)) as connection:
                connection.sendall(request_head(delivery, path) + delivery.body[:-1])
                connection.shutdown(socket.SHUT_WR)
                # By then the server has noticed the disconnect.
                while connection.recv(1000):
                    pass
        assert serve.webhooks.inbox.stats().total == 0
        assert send(port, delivery).status == 200


def test_the_event_of_a_client_that_does_not_wait_is_stored(serve, until):
    delivery = signed()
    with serve() as port:
        with socket.create_connection((HOST, port)) as connection:
            connection.sendall(request_head(delivery) + delivery.body)
        until(lambda: serve.webhooks.inbox.stats().total == 1)
        answer = send(port, delivery)
    assert json.loads(answer.body) == {"received": True, "duplicate": True}


def test_a_slow_client_does_not_delay_others(serve):
    slow, quick = signed(), signed()
    with serve() as port, socket.create_connection((HOST, port), timeout=wire.PATIENCE) as connection:
        connection.sendall(request_head(slow))
        for start in range(0, len(slow.body), 50):
            connection.sendall(slow.body[start : start + 50])
            assert send(port, quick).status == 200
        assert json.loads(wire.read_answer(connection).body) == {"received": True}
    assert serve.webhooks.inbox.get(json.loads(slow.body)["id"]).event.body == slow.body
