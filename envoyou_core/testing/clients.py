"""How deliveries of a test reach the application, and where its handlers run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from envoyou_core.http import WebhookRequest
from envoyou_core.testing.deliveries import Delivery
from envoyou_core.webhooks import Webhooks

__all__ = ["DeliveryClient", "DirectClient"]

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


def _request(path: str, delivery: Delivery) -> WebhookRequest:
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body, path=path)
