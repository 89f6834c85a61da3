"""Tests that deliver signed events over HTTP and read the pages. The handlers run on the application's event loop."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from envoyou_core.testing import AcceptedEvents, Deliver, make_event


@pytest.fixture
def envoyou_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the application, made anew with a database of its own, which also has the inbox."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_only_for_tests")
    # The client starts the application before the test begins: without a worker.
    monkeypatch.setenv("ENVOYOU_HANDOFF", "manual")
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/app.db")
    for name in ("app", "hooks", "database"):
        sys.modules.pop(name, None)
    with TestClient(importlib.import_module("app").app) as client:
        yield client
    importlib.import_module("hooks").webhooks.inbox.close()


@pytest.fixture
def client(envoyou_app: TestClient) -> TestClient:
    return envoyou_app


def test_a_user_is_kept(client: TestClient, envoyou_deliver: Deliver) -> None:
    result = envoyou_deliver("user.created", id="user_ada", email="ada@example.com", run_handlers=False)
    assert (result.status_code, result.response.json()) == (200, {"received": True})
    assert client.get("/users/user_ada").status_code == 404
    assert envoyou_deliver(result.event).processed
    assert client.get("/users/user_ada").json()["email"] == "ada@example.com"


def test_what_is_newest_stays_whatever_the_order(client: TestClient, envoyou_deliver: Deliver) -> None:
    envoyou_deliver("user.updated", created=200, id="user_ada", email="new@example.com")
    envoyou_deliver("user.created", created=100, id="user_ada", email="old@example.com")
    assert client.get("/users/user_ada").json()["email"] == "new@example.com"


def test_a_late_update_does_not_bring_a_user_back(client: TestClient, envoyou_deliver: Deliver) -> None:
    envoyou_deliver("user.deleted", created=200, id="user_ada")
    envoyou_deliver("user.updated", created=100, id="user_ada")
    assert client.get("/users/user_ada").json()["deleted"] is True


def test_a_forged_delivery_changes_nothing(
    client: TestClient, envoyou_deliver: Deliver, envoyou_events: AcceptedEvents
) -> None:
    result = envoyou_deliver("user.created", id="user_ada", secret="guessed")
    assert (result.status_code, result.response.json()["error"]) == (401, "unauthorized")
    assert not envoyou_events
    assert client.get("/users/user_ada").status_code == 404


@pytest.mark.parametrize("what", ["login", "logout", "failed", "password_reset"])
def test_a_login_is_noted_once(client: TestClient, envoyou_deliver: Deliver, what: str) -> None:
    event = make_event(f"auth.{what}")
    assert envoyou_deliver(event).processed
    assert envoyou_deliver(event).response.json() == {"received": True, "duplicate": True}
    assert [entry["what"] for entry in client.get("/users/user_123/audit").json()] == [what]


@pytest.mark.parametrize("what", ["maintenance_start", "maintenance_end", "incident"])
def test_a_notice_is_posted(client: TestClient, envoyou_deliver: Deliver, what: str) -> None:
    assert envoyou_deliver(f"system.{what}").processed
    assert client.get("/notices/inc_123").json()["what"] == what


def test_an_on_call_service_that_cannot_be_reached_leaves_the_event_to_be_tried_again(
    envoyou_deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ON_CALL_URL", "http://127.0.0.1:1/")
    result = envoyou_deliver("api.quota_exceeded", raise_errors=False)
    assert (result.failed, result.attempts) == (True, 1)
    assert result.error is not None
    assert "ConnectError" in result.error
