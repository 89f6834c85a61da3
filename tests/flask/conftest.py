from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from envoyou_core import Event, Webhooks
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import create_blueprint

SECRET = "whsec_flask"
PATH = "/webhooks/envoyou"

MakeWebhooks = Callable[..., Webhooks]


@pytest.fixture
def make_webhooks(tmp_path) -> Iterator[MakeWebhooks]:
    """Create a `Webhooks` with this test's inbox, which is stopped in the end."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Webhooks:
            webhooks = Webhooks(**{"secret": SECRET, "inbox": f"sqlite:///{tmp_path / 'inbox.db'}", **settings})
            stack.callback(webhooks.inbox.close)
            stack.callback(webhooks.stop)
            return webhooks

        yield make


@pytest.fixture
def manual(make_webhooks: MakeWebhooks) -> Webhooks:
    """Webhooks without a worker."""
    return make_webhooks(handoff="manual")


def make_app(webhooks: Webhooks, name: str = "app", **registration: Any) -> Flask:
    app = Flask(name)
    app.register_blueprint(create_blueprint(webhooks), **{"url_prefix": PATH, **registration})
    return app


def deliver(app: Flask, event: Event | None = None, *, path: str = PATH, **options: Any) -> TestResponse:
    """Send a signed event to the app."""
    delivery = sign_delivery(event or sample_event(), secret=SECRET)
    return app.test_client().post(path, data=delivery.body, headers=delivery.headers, **options)
