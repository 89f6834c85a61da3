"""A small layer over the test clients of Flask, Werkzeug and Starlette, and over the clients of httpx2."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import nullcontext
from functools import partial
from typing import Any

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.testing import Delivery
from envoyou_core.testing.clients import DeliveryClient

__all__ = ["AsyncHttpClient", "FlaskClient", "HttpClient", "client_for"]


class FlaskClient(DeliveryClient):
    """Posts with the test client of Flask or Werkzeug.

    Args:
        client: the test client.
        application: the Flask app in whose context handlers run; `None` for any other WSGI application.
    """

    def __init__(self, client: Any, application: Any = None) -> None:
        self._client = client
        self._application = application

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        return self._client.post(path, data=delivery.body, headers=delivery.headers)

    def drain(self, webhooks: Webhooks, *, raise_errors: bool) -> int:
        """See `DeliveryClient.drain`. Of several apps that share the webhooks, this client's is the current one."""
        with nullcontext() if self._application is None else self._application.app_context():
            return super().drain(webhooks, raise_errors=raise_errors)


class HttpClient(DeliveryClient):
    """Posts with Starlette's `TestClient`, or a client of httpx2.

    Args:
        client: the client. If it has a portal, async handlers run on the application's event loop.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        # The platform does not follow redirects.
        return self._client.post(path, content=delivery.body, headers=delivery.headers, follow_redirects=False)

    def drain(self, webhooks: Webhooks, *, raise_errors: bool) -> int:
        """See `DeliveryClient.drain`."""
        portal = getattr(self._client, "portal", None)
        if portal is None:
            return super().drain(webhooks, raise_errors=raise_errors)
        settled: int = portal.call(partial(webhooks.adrain, raise_errors=raise_errors))
        return settled

    async def adrain(self, webhooks: Webhooks, *, raise_errors: bool) -> int:
        """See `DeliveryClient.adrain`. With a portal, the handlers run on the application's event loop."""
        if getattr(self._client, "portal", None) is None:
            return await super().adrain(webhooks, raise_errors=raise_errors)
        return await asyncio.to_thread(self.drain, webhooks, raise_errors=raise_errors)


class AsyncHttpClient(HttpClient):
    """Posts with an async client of httpx2."""

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        raise ConfigurationError("the client is async: use `await envoyou_adeliver(...)`")

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.apost`."""
        return await self._client.post(path, content=delivery.body, headers=delivery.headers, follow_redirects=False)


def client_for(client: Any) -> DeliveryClient | None:
    """Return the layer over a test client; `None` if it is something else."""
    if not callable(post := getattr(client, "post", None)):
        return None
    if inspect.iscoroutinefunction(post):
        return AsyncHttpClient(client) if "content" in inspect.signature(post).parameters else None
    if "content" in inspect.signature(post).parameters:
        return HttpClient(client)
    if hasattr(client, "application") and hasattr(client, "open"):
        application = client.application
        return FlaskClient(client, application if hasattr(application, "app_context") else None)
    return None
