"""How deliveries of a test reach the application, and where its handlers run: a small layer over test clients."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

from envoyou_core.errors import ConfigurationError
from envoyou_core.http import WebhookRequest
from envoyou_core.testing.deliveries import Delivery
from envoyou_core.webhooks import Webhooks

__all__ = ["AsyncHttpClient", "DeliveryClient", "DirectClient", "FlaskClient", "HttpClient", "client_for"]

_T = TypeVar("_T")


class DeliveryClient:
    """Posts deliveries and runs handlers as the application does. Subclasses know a framework's test client."""

    def post(self, path: str, delivery: Delivery) -> Any:
        """Post one delivery and return the response.

        Raises:
            ConfigurationError: the client is async.
        """
        raise NotImplementedError

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """Post one delivery in an async test."""
        return await asyncio.to_thread(self.post, path, delivery)

    def drain(self, webhooks: Webhooks, *, raise_errors: bool) -> int:
        """Run the handlers that are due."""
        return webhooks.drain(raise_errors=raise_errors)

    async def adrain(self, webhooks: Webhooks, *, raise_errors: bool) -> int:
        """Run the handlers that are due, on the running event loop."""
        return await webhooks.adrain(raise_errors=raise_errors)

    def around(self) -> AbstractContextManager[object]:
        """Return a context around a delivery and its handlers."""
        return nullcontext()

    def status_of(self, response: Any) -> int:
        """Return the status of a response."""
        return int(response.status_code)

    async def asign(self, sign: Callable[[], _T]) -> _T:
        """Call a function that signs in an async test. It may call the application's secret callable."""
        return await asyncio.to_thread(sign)

    def close(self) -> None:
        """Release what the client holds, at the end of the test."""


class DirectClient(DeliveryClient):
    """Passes deliveries to a `Webhooks` object, without a framework.

    Args:
        webhooks: the object.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        return self._webhooks.receive(_request(path, delivery))

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.apost`."""
        return await self._webhooks.areceive(_request(path, delivery))

    def status_of(self, response: Any) -> int:
        """See `DeliveryClient.status_of`."""
        return int(response.status)


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


def _request(path: str, delivery: Delivery) -> WebhookRequest:
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body, path=path)
