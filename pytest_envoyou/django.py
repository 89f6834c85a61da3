"""The test kit of a Django project."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
from asgiref.sync import sync_to_async

from envoyou_core.testing import Delivery
from envoyou_core.testing.clients import DeliveryClient
from envoyou_core.testing.kit import WebhooksKit
from envoyou_django.project import project_webhooks
from envoyou_django.testing import WebhookClient
from envoyou_django.testing.client import run_on_commit_callbacks

__all__ = ["django_kit"]

_T = TypeVar("_T")


def django_kit(request: pytest.FixtureRequest, path: str | None) -> WebhooksKit:
    """Make the kit of a Django project. The test gets access to the database."""
    # pytest-django's: the handlers run on the test's connection, in its transaction.
    request.getfixturevalue("db")
    client = WebhookClient(
        request.getfixturevalue("client"), request.getfixturevalue("async_client"), url=path, run_handlers=False
    )
    return WebhooksKit(project_webhooks.setup, DjangoClient(client), client.address)


class DjangoClient(DeliveryClient):
    """Posts with Django's test clients, through all of the project's middleware.

    Args:
        client: the project's test client.
    """

    def __init__(self, client: WebhookClient) -> None:
        self._client = client

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        return self._client.deliver(delivery)

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.apost`."""
        return await self._client.adeliver(delivery)

    async def asign(self, sign: Callable[[], _T]) -> _T:
        """See `DeliveryClient.asign`. In the thread in which Django keeps its connections."""
        return await sync_to_async(sign)()

    def around(self) -> AbstractContextManager[object]:
        """Run the `on_commit` callbacks, because the transaction of a test never commits."""
        return run_on_commit_callbacks()
