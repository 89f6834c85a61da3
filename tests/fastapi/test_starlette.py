"""Starlette's own routes and lifespan."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from queue import Queue

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from envoyou_core.observability import WorkerStarted, WorkerStopped
from envoyou_fastapi.starlette import create_routes, lifespan
from tests.fastapi.conftest import PATH, PATIENCE, TestClient, deliver


@pytest.mark.parametrize("given", [PATH, f"{PATH}/"])
@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_the_path_is_answered_with_and_without_a_final_slash_and_without_a_redirect(manual, given, path):
    client = TestClient(Starlette(routes=create_routes(manual, given)))
    assert deliver(client, path=path).status_code == 200
    assert deliver(client, path="/webhooks").status_code == 404


def test_the_path_has_a_default_and_a_name(manual):
    app = Starlette(routes=create_routes(manual))
    assert app.url_path_for("envoyou") == "/webhooks/envoyou"
    assert deliver(TestClient(app), path="/webhooks/envoyou").status_code == 200


def test_routes_may_be_mounted(manual):
    client = TestClient(Starlette(routes=[Mount("/hooks", routes=create_routes(manual, "/envoyou"))]))
    assert deliver(client, path="/hooks/envoyou").status_code == 200
    assert deliver(client, path="/hooks/envoyou/").status_code == 200


def test_the_root_is_a_path(manual):
    client = TestClient(Starlette(routes=create_routes(manual, "/")))
    assert deliver(client, path="/").status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PROPFIND"])
def test_the_core_answers_every_method(manual, method):
    response = TestClient(Starlette(routes=create_routes(manual))).request(method, PATH)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


async def running_loop(request):
    return PlainTextResponse(str(id(asyncio.get_running_loop())))


def test_handlers_run_on_the_loop_of_the_application_during_its_lifespan(webhooks):
    ran_on, told = Queue(), []
    webhooks.subscribe(lambda notice: told.append(type(notice)))

    @webhooks.on("*")
    async def handle(event):
        ran_on.put(str(id(asyncio.get_running_loop())))

    app = Starlette(routes=[*create_routes(webhooks), Route("/loop", running_loop)], lifespan=lifespan(webhooks))
    with TestClient(app) as client:
        assert told == [WorkerStarted]
        assert deliver(client).status_code == 200
        assert ran_on.get(timeout=PATIENCE) == client.get("/loop").text
    assert told[-1] is WorkerStopped


def test_a_custom_lifespan_can_include_ours(webhooks):
    webhooks.on("*")(print)
    told = []
    webhooks.subscribe(lambda notice: told.append(type(notice)))

    @asynccontextmanager
    async def own(app):
        async with webhooks.lifespan():
            yield

    with TestClient(Starlette(routes=create_routes(webhooks), lifespan=own)):
        pass
    assert told == [WorkerStarted, WorkerStopped]


def test_a_lifespan_that_is_entered_twice_has_one_worker(webhooks):
    webhooks.on("*")(print)
    told = []
    webhooks.subscribe(lambda notice: told.append(type(notice)))

    @asynccontextmanager
    async def own(app):
        async with lifespan(webhooks)(app), lifespan(webhooks)(app):
            yield

    with TestClient(Starlette(routes=create_routes(webhooks), lifespan=own)):
        assert told == [WorkerStarted]
    assert told == [WorkerStarted, WorkerStopped]


def test_without_a_lifespan_the_first_event_starts_the_worker(webhooks):
    ran_on = Queue()

    @webhooks.on("*")
    async def handle(event):
        ran_on.put(str(id(asyncio.get_running_loop())))

    with TestClient(Starlette(routes=[*create_routes(webhooks), Route("/loop", running_loop)])) as client:
        assert deliver(client).status_code == 200
        assert ran_on.get(timeout=PATIENCE) == client.get("/loop").text
