"""The test kit of a Django project."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, router

from envoyou_core import ConfigurationError
from envoyou_core.testing import Delivery
from envoyou_core.testing.clients import DeliveryClient
from envoyou_core.testing.kit import WebhooksKit
from envoyou_django.models import ProcessedEvent
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
    return WebhooksKit(
        project_webhooks.setup, DjangoClient(client, has_transaction=_is_in_transaction()), client.address
    )


class DjangoClient(DeliveryClient):
    """Posts with Django's test clients, through all of the project's middleware.

    Args:
        client: the project's test client.
        has_transaction: whether the test runs in a transaction.
    """

    def __init__(self, client: WebhookClient, *, has_transaction: bool) -> None:
        self._client = client
        self._has_transaction = has_transaction

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        return self._client.deliver(delivery)

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.apost`.

        Raises:
            ConfigurationError: the test has a transaction, which the threads of an async application do not share.
        """
        if self._has_transaction and not await sync_to_async(_is_in_transaction)():
            raise ConfigurationError(
                "an async test needs the mark @pytest.mark.django_db(transaction=True): the application's threads have "
                "connections of their own, on which the transaction of the test is not open"
            )
        return await self._client.adeliver(delivery)

    async def asign(self, sign: Callable[[], _T]) -> _T:
        """See `DeliveryClient.asign`. In the thread in which Django keeps its connections."""
        return await sync_to_async(sign)()

    def around(self) -> AbstractContextManager[object]:
        """Run the `on_commit` callbacks, because the transaction of a test never commits."""
        return run_on_commit_callbacks()


def _is_in_transaction() -> bool:
    return bool(connections[router.db_for_write(ProcessedEvent)].in_atomic_block)
