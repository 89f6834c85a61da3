"""The paths of the router, and the effect of FastAPI's features on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import FastAPIError
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse

import envoyou_fastapi
from envoyou_core.testing import sample_event
from envoyou_fastapi import create_router
from tests.fastapi.conftest import PATH, TestClient, deliver


def make_app(webhooks, prefix=PATH, **options):
    app = FastAPI()
    app.include_router(create_router(webhooks), prefix=prefix, **options)
    return app


@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_the_path_is_answered_with_and_without_a_final_slash_and_without_a_redirect(manual, path):
    assert deliver(TestClient(make_app(manual)), path=path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/webhooks", f"{PATH}/more"])
def test_nothing_else_is_answered(manual, path):
    assert deliver(TestClient(make_app(manual)), path=path).status_code == 404


def test_routers_can_be_nested(manual):
    hooks, api, app = APIRouter(prefix="/hooks"), APIRouter(), FastAPI()
    hooks.include_router(create_router(manual), prefix="/envoyou")
    api.include_router(hooks, prefix="/v1")
    app.include_router(api)
    client, event = TestClient(app), sample_event()
    assert deliver(client, event, path="/v1/hooks/envoyou").json() == {"received": True}
    assert deliver(client, event, path="/v1/hooks/envoyou/").json() == {"received": True, "duplicate": True}


def test_a_router_without_a_prefix_is_refused_at_once(manual):
    with pytest.raises(FastAPIError, match="cannot be both empty"):
        FastAPI().include_router(create_router(manual))


def test_the_route_has_a_name(manual):
    assert make_app(manual).url_path_for("envoyou") == PATH
    app = FastAPI()
    app.include_router(create_router(manual, name="billing"), prefix=PATH)
    assert app.url_path_for("billing") == PATH


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "PROPFIND"])
def test_the_core_answers_every_method(manual, method):
    response = TestClient(make_app(manual)).request(method, PATH)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["error"] == "method_not_allowed"


async def test_a_response_to_head_has_a_length_and_no_body(manual):
    # A client ignores a body in a response to HEAD, so check what the application sends.
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": PATH, "query_string": b"", "headers": []}
    await make_app(manual)(scope, receive, send)
    start, body = sent
    assert (start["status"], body["body"]) == (405, b"")
    assert int(dict(start["headers"])[b"content-length"]) > 0


def test_dependencies_do_not_run_for_it(manual):
    def refuse():
        raise HTTPException(403)

    app = FastAPI(dependencies=[Depends(refuse)])
    app.include_router(create_router(manual), prefix=PATH, dependencies=[Depends(refuse)])
    assert deliver(TestClient(app)).json() == {"received": True}


def test_other_operations_of_the_same_path_keep_their_methods(manual):
    app = make_app(manual)
    app.add_api_route(PATH, lambda: "the app's", methods=["GET"])
    assert TestClient(app).get(PATH).json() == "the app's"
    assert TestClient(app).put(PATH).json()["error"] == "method_not_allowed"


def test_exception_handlers_of_the_app_do_not_change_responses(manual):
    app = make_app(manual)
    for handled in (401, 405, HTTPException, Exception):
        app.add_exception_handler(handled, lambda request, error: PlainTextResponse("the app's", 500))
    client = TestClient(app)
    assert client.get(PATH).json()["error"] == "method_not_allowed"
    assert deliver(client, **{"X-EnvoyOU-Signature": "v1,00"}).json()["error"] == "unauthorized"


class ReadsTheBody(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        body = await request.body()
        response = await call_next(request)
        response.headers["X-Read"] = str(len(body))
        return response


def test_middleware_applies_to_the_router(manual):
    app = make_app(manual)
    app.add_middleware(ReadsTheBody)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(CORSMiddleware, allow_origins=["https://example.com"], allow_methods=["POST"])
    client = TestClient(app)
    event = sample_event()
    response = deliver(client, event, **{"Accept-Encoding": "gzip", "Origin": "https://example.com"})
    assert (response.status_code, response.json()) == (200, {"received": True})
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Access-Control-Allow-Origin"] == "https://example.com"
    assert response.headers["X-Read"] == str(len(event.body))
    assert manual.inbox.get(event.id).event.body == event.body
    assert deliver(client, event).json() == {"received": True, "duplicate": True}


def test_the_openapi_document_describes_the_route(manual):
    paths = make_app(manual).openapi()["paths"]
    assert list(paths) == [PATH]
    assert list(paths[PATH]) == ["post"]
    operation = paths[PATH]["post"]
    assert "requestBody" in operation


def test_the_route_can_be_left_out_of_the_document(manual):
    assert make_app(manual, include_in_schema=False).openapi()["paths"] == {}


def test_the_exports_of_the_package_exist():
    assert {name: callable(getattr(envoyou_fastapi, name)) for name in envoyou_fastapi.__all__} == {
        "create_health_router": True,
        "create_router": True,
        "describe_webhooks": True,
        "verified_event": True,
    }
    with pytest.raises(AttributeError, match="has no attribute 'create_routes'"):
        envoyou_fastapi.create_routes  # noqa: B018


def test_the_routes_for_starlette_do_not_need_fastapi():
    code = "import sys; sys.modules['fastapi'] = None; from envoyou_fastapi.starlette import create_routes, lifespan"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
