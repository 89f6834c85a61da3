"""Tests that send signed deliveries over HTTP, run the handlers and read the pages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_only_for_tests"


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ENVOYOU_HANDOFF", "manual")
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/app.db")
    for name in ("app", "hooks", "database"):
        sys.modules.pop(name, None)
    hooks = importlib.import_module("hooks")
    yield hooks
    hooks.webhooks.inbox.close()


@pytest.fixture
def client(hooks: ModuleType) -> Iterator[TestClient]:
    with TestClient(importlib.import_module("app").app) as client:
        yield client


def deliver(client: TestClient, event: Event, secret: str = SECRET) -> Any:
    delivery = sign_delivery(event, secret=secret)
    return client.post("/webhooks/envoyou", content=delivery.body, headers=delivery.headers)


def work(client: TestClient, hooks: ModuleType, *, raise_errors: bool = True) -> int:
    """Run the due handlers on the application's event loop, and return the number of settled events."""
    assert client.portal is not None, "the application's event loop runs within `with TestClient(...)`"
    settled: int = client.portal.call(partial(hooks.webhooks.adrain, raise_errors=raise_errors))
    return settled


def user(email: str) -> dict[str, Any]:
    return {"id": "user_ada", "email": email, "name": "Ada"}


def test_a_user_is_kept(client: TestClient, hooks: ModuleType) -> None:
    answer = deliver(client, sample_event("user.created", object=user("ada@example.com")))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    assert client.get("/users/user_ada").status_code == 404
    assert work(client, hooks) == 1
    assert client.get("/users/user_ada").json()["email"] == "ada@example.com"


def test_what_is_newest_stays_whatever_the_order(client: TestClient, hooks: ModuleType) -> None:
    deliver(client, sample_event("user.updated", created=200, object=user("new@example.com")))
    deliver(client, sample_event("user.created", created=100, object=user("old@example.com")))
    work(client, hooks)
    assert client.get("/users/user_ada").json()["email"] == "new@example.com"


def test_a_late_update_does_not_bring_a_user_back(client: TestClient, hooks: ModuleType) -> None:
    deliver(client, sample_event("user.deleted", created=200, object=user("")))
    deliver(client, sample_event("user.updated", created=100, object=user("ada@example.com")))
    work(client, hooks)
    assert client.get("/users/user_ada").json()["deleted"] is True


def test_a_forged_delivery_changes_nothing(client: TestClient, hooks: ModuleType) -> None:
    answer = deliver(client, sample_event("user.created", object=user("ada@example.com")), secret="guessed")
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert work(client, hooks) == 0
    assert client.get("/users/user_ada").status_code == 404


@pytest.mark.parametrize("what", ["login", "logout", "failed", "password_reset"])
def test_a_login_is_noted_once(client: TestClient, hooks: ModuleType, what: str) -> None:
    event = sample_event(f"auth.{what}")
    deliver(client, event)
    assert deliver(client, event).json() == {"received": True, "duplicate": True}
    work(client, hooks)
    assert [entry["what"] for entry in client.get("/users/user_123/audit").json()] == [what]


@pytest.mark.parametrize("what", ["maintenance_start", "maintenance_end", "incident"])
def test_a_notice_is_posted(client: TestClient, hooks: ModuleType, what: str) -> None:
    deliver(client, sample_event(f"system.{what}"))
    work(client, hooks)
    assert client.get("/notices/inc_123").json()["what"] == what


def test_an_on_call_service_that_cannot_be_reached_leaves_the_event_to_be_tried_again(
    client: TestClient, hooks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ON_CALL_URL", "http://127.0.0.1:1/")
    event = sample_event("api.quota_exceeded")
    deliver(client, event)
    work(client, hooks, raise_errors=False)
    record = hooks.webhooks.inbox.get(event.id)
    assert (record.status, record.attempts) == ("failed", 1)
    assert "ConnectError" in record.last_error
