from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from envoyou_core import Event, Webhooks
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_fastapi"
PATH = "/webhooks/envoyou"
PATIENCE = 20
"""Seconds."""

MakeWebhooks = Callable[..., Webhooks]


@pytest.fixture
def make_webhooks(tmp_path) -> Iterator[MakeWebhooks]:
    """Create a `Webhooks` with this test's inbox."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Webhooks:
            webhooks = Webhooks(**{"secret": SECRET, "inbox": f"sqlite:///{tmp_path / 'inbox.db'}", **settings})
            stack.callback(webhooks.inbox.close)
            return webhooks

        yield make


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def webhooks(make_webhooks: MakeWebhooks) -> Webhooks:
    return make_webhooks()


@pytest.fixture
def manual(make_webhooks: MakeWebhooks) -> Webhooks:
    """Webhooks without a worker."""
    return make_webhooks(handoff="manual")


def deliver(client: TestClient, event: Event | None = None, path: str = PATH, **changes: str) -> httpx2.Response:
    """Send a signed event; `changes` are those of its headers."""
    delivery = sign_delivery(event or sample_event(), secret=SECRET)
    return client.post(path, content=delivery.body, headers=delivery.headers | changes, follow_redirects=False)
