"""A client that delivers events as EnvoyOU does, and has their handlers run before it returns."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.test import AsyncClient, Client, TestCase

from envoyou_core import ConfigurationError, Event, Webhooks
from envoyou_core.adapter import Secret
from envoyou_core.observability import HandlerFailed, Notice
from envoyou_core.testing import SAMPLE_WEBHOOK_ID, Delivery, sample_event, sign_delivery
from envoyou_django import conf
from envoyou_django.endpoints import endpoints
from envoyou_django.project import project_webhooks

__all__ = ["WebhookClient"]


class WebhookClient:
    """Posts signed events to the project's own URL, through all of its middleware.

    What is due is then done in the calling thread, on the test's own connection, and so inside the transaction of a
    `TestCase`; what a handler leaves to `transaction.on_commit` is done, too. An answer has the event as its `event`.

    Args:
        client: posts; a new one by default.
        async_client: posts for the async methods; a new one by default.
        url: where webhooks are received; by default where the project's URLs lead.
        run_handlers: whether they run. Without, events wait in the inbox for `webhooks.drain()`.
        raise_handler_errors: whether what a handler raises is raised in the test. Without, the event has failed, as it
            would in production.
    """

    def __init__(
        self,
        client: Any = None,
        async_client: Any = None,
        *,
        url: str | None = None,
        run_handlers: bool = True,
        raise_handler_errors: bool = True,
    ) -> None:
        self.client = client or Client()
        self.async_client = async_client or AsyncClient()
        self.url = url
        self.run_handlers = run_handlers
        self.raise_handler_errors = raise_handler_errors

    def post(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """Deliver an event of `type`, and have its handlers run.

        Args:
            type: of the event.
            object: its `data.object`; by default one that suits the type.
            event: `id`, `created` or `webhook_id`, as in `sample_event`.

        Returns:
            Django's response.

        Raises:
            Exception: what a handler has raised.
        """
        return self.send(_sample(type, object, event))

    def send(self, event: Event, *, secret: Secret | None = None) -> Any:
        """Deliver `event`, and have its handlers run.

        Args:
            event: a new one, or one again: a redelivery.
            secret: it is signed with; by default the one in the settings.

        Returns:
            Django's response.

        Raises:
            Exception: what a handler has raised.
        """
        with _on_commit_callbacks_run():
            response = self.client.post(self._address, **_request(_signed(event, secret)))
            if self._is_to_run(response):
                with self._failures_raised(event):
                    project_webhooks.drain()
        response.event = event
        return response

    async def apost(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """See `post`."""
        return await self.asend(_sample(type, object, event))

    async def asend(self, event: Event, *, secret: Secret | None = None) -> Any:
        """See `send`. What a handler leaves to `transaction.on_commit` is left undone by a `TestCase`."""
        response = await self.async_client.post(self._address, **_request(_signed(event, secret)))
        if self._is_to_run(response):
            with self._failures_raised(event):
                await project_webhooks.adrain()
        response.event = event
        return response

    @property
    def _address(self) -> str:
        if self.url is not None:
            return self.url
        found = endpoints()
        if not found:
            raise ConfigurationError(
                "no URL of this project receives webhooks: include envoyou_django.urls, or say which"
            )
        return found[0].path

    def _is_to_run(self, response: Any) -> bool:
        return self.run_handlers and bool(response.status_code == 200)

    @contextmanager
    def _failures_raised(self, event: Event) -> Iterator[None]:
        failures = _failures_of(project_webhooks.setup())
        failures.clear()
        yield
        for failure in failures:
            if self.raise_handler_errors and failure.event_id == event.id:
                raise failure.error


_failures: weakref.WeakKeyDictionary[Webhooks, list[HandlerFailed]] = weakref.WeakKeyDictionary()


def _failures_of(webhooks: Webhooks) -> list[HandlerFailed]:
    """The failures of handlers since they were last cleared."""
    if webhooks not in _failures:
        found: list[HandlerFailed] = []

        def listen(notice: Notice) -> None:
            if isinstance(notice, HandlerFailed):
                found.append(notice)

        webhooks.subscribe(listen)
        _failures[webhooks] = found
    return _failures[webhooks]


def _sample(type: str, object: Mapping[str, Any] | None, event: Mapping[str, Any]) -> Event:
    return sample_event(type, object=object, **{"created": int(conf.clock()()), **event})


def _signed(event: Event, secret: Secret | None) -> Delivery:
    webhook_id = event.webhook_id or SAMPLE_WEBHOOK_ID
    secret = conf.signing_secret(webhook_id) if secret is None else secret
    return sign_delivery(event, secret=secret, timestamp=int(conf.clock()()))


def _request(delivery: Delivery) -> dict[str, Any]:
    headers = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
    return {"data": delivery.body, "content_type": delivery.headers["Content-Type"], "headers": headers}


@contextmanager
def _on_commit_callbacks_run() -> Iterator[None]:
    """Call at the end what waits for a commit that a `TestCase` never makes."""
    alias = router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))
    if not connections[alias].in_atomic_block:
        yield
        return
    with TestCase.captureOnCommitCallbacks(using=alias, execute=True):
        yield
