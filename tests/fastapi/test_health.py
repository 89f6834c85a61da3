"""Health probes in FastAPI and in Starlette."""

import pytest
from starlette.applications import Starlette

from envoyou_fastapi.starlette import create_health_routes
from tests.fastapi.conftest import TestClient


def with_starlette(webhooks):
    return Starlette(routes=create_health_routes(webhooks, "/health/"))


def with_fastapi(webhooks):
    fastapi, envoyou_fastapi = pytest.importorskip("fastapi"), pytest.importorskip("envoyou_fastapi")
    app = fastapi.FastAPI()
    app.include_router(envoyou_fastapi.create_health_router(webhooks), prefix="/health")
    assert not app.openapi()["paths"]
    return app


@pytest.mark.parametrize("make", [with_starlette, with_fastapi])
def test_the_probes_of_routes(make, manual):
    app = make(manual)
    client = TestClient(app)
    assert app.url_path_for("envoyou_ready") == "/health/ready"
    assert (client.get("/health/live").status_code, client.get("/health/live").json()) == (200, {"status": "ok"})
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "inbox": "ok", "spool": "none"})
    assert ready.headers["Cache-Control"] == "no-store"
    worker = client.get("/health/worker")
    assert (worker.status_code, worker.json()["status"]) == (503, "unavailable")
    assert client.get("/health/secrets").status_code == 404
    assert client.post("/health/live").status_code == 405
