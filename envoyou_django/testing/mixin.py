"""A mix-in for Django's test cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envoyou_core import Event
from envoyou_core.adapter import Secret
from envoyou_django.testing.client import WebhookClient

__all__ = ["WebhookTestMixin"]


class WebhookTestMixin:
    """For `TestCase` and `TransactionTestCase`: posts signed events, whose handlers run before it goes on.

    Attributes:
        webhook_url: where webhooks are received; by default where the project's URLs lead.
        run_handlers: whether they run.
        raise_handler_errors: whether what a handler raises is raised in the test.
    """

    webhook_url: ClassVar[str | None] = None
    run_handlers: ClassVar[bool] = True
    raise_handler_errors: ClassVar[bool] = True

    client: Any
    async_client: Any

    def post_event(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """See `WebhookClient.post`."""
        return self._webhook_client.post(type, object, **event)

    def send_event(self, event: Event, *, secret: Secret | None = None) -> Any:
        """See `WebhookClient.send`."""
        return self._webhook_client.send(event, secret=secret)

    async def apost_event(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """See `WebhookClient.apost`."""
        return await self._webhook_client.apost(type, object, **event)

    async def asend_event(self, event: Event, *, secret: Secret | None = None) -> Any:
        """See `WebhookClient.asend`."""
        return await self._webhook_client.asend(event, secret=secret)

    @property
    def _webhook_client(self) -> WebhookClient:
        return WebhookClient(
            self.client,
            self.async_client,
            url=self.webhook_url,
            run_handlers=self.run_handlers,
            raise_handler_errors=self.raise_handler_errors,
        )
