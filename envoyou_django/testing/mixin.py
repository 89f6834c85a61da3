"""A mixin for Django's test cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envoyou_core import Event
from envoyou_core.adapter import Secret
from envoyou_django.testing.client import WebhookClient

__all__ = ["WebhookTestMixin"]


class WebhookTestMixin:
    """Adds methods to `TestCase` and `TransactionTestCase` that post signed events and run their handlers.

    Attributes:
        webhook_url: the URL to post to; by default the project's endpoint.
        run_handlers: whether to run handlers.
        raise_handler_errors: whether to raise a handler's exception in the test.
    """

    webhook_url: ClassVar[str | None] = None
    run_handlers: ClassVar[bool] = True
    raise_handler_errors: ClassVar[bool] = True

    client: Any
    async_client: Any

    def post_event(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """Deliver a new event and run its handlers, like `WebhookClient.post`."""
        return self._webhook_client.post(type, object, **event)

    def send_event(self, event: Event, *, secret: Secret | None = None) -> Any:
        """Deliver `event` and run its handlers, like `WebhookClient.send`."""
        return self._webhook_client.send(event, secret=secret)

    async def apost_event(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """Deliver a new event and run its handlers, like `WebhookClient.apost`."""
        return await self._webhook_client.apost(type, object, **event)

    async def asend_event(self, event: Event, *, secret: Secret | None = None) -> Any:
        """Deliver `event` and run its handlers, like `WebhookClient.asend`."""
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
