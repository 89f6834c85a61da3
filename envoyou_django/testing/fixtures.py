"""Fixtures for pytest-django: `pytest_plugins = ["envoyou_django.testing.fixtures"]` in a `conftest.py`."""

from __future__ import annotations

from typing import Any

import pytest

from envoyou_django.testing.client import WebhookClient

__all__ = ["envoyou_client"]


@pytest.fixture
def envoyou_client(db: None, client: Any, async_client: Any) -> WebhookClient:
    """Post signed events with pytest-django's `client`, and run their handlers."""
    return WebhookClient(client, async_client)
