"""A test client that delivers events as EnvoyOU does, and runs their handlers before it returns."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgiref.sync import sync_to_async
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

__all__ = ["WebhookClient", "run_on_commit_callbacks"]


UNAVAILABLE = 503


class WebhookClient:
    """Posts signed events to the project's own URL, through all of its middleware, and runs their handlers.

    Handlers of all due events run in the calling thread and on the test's connection, so inside the transaction of a
    `TestCase`. Callbacks of `transaction.on_commit` run as well. The event is the attribute `event` of the response.

    Args:
        client: Django's test client; a new one by default.
        async_client: the test client of the async methods; a new one by default.
        url: the URL to post to; by default the project's endpoint.
        run_handlers: whether to run handlers. If not, events wait in the inbox for `webhooks.drain()`.
        raise_handler_errors: whether to raise a handler's exception in the test. If not, the event fails as it would in
            production.
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
        """Deliver a new event of `type` and run its handlers.

        Args:
            type: the event's type.
            object: its `data.object`; by default a sample for the type.
            event: `id`, `created` or `webhook_id`, as in `sample_event`.

        Returns:
            Django's response.

        Raises:
            Exception: the exception of a handler, if `raise_handler_errors` is set.
        """
        return self.send(_sample(type, object, event))

    def send(self, event: Event, *, secret: Secret | None = None) -> Any:
        """Deliver `event` and run its handlers.

        Args:
            event: the event; to deliver it again is a redelivery.
            secret: the secret to sign it with; by default the one in the settings.

        Returns:
            Django's response.

        Raises:
            Exception: the exception of a handler, if `raise_handler_errors` is set; or that of the database, if the
                test has none.
        """
        with run_on_commit_callbacks():
            response = self.deliver(_signed(event, secret))
            if self._should_run_handlers(response):
                with self._raise_failures(event):
                    project_webhooks.drain()
        response.event = event
        return response

    async def apost(self, type: str, object: Mapping[str, Any] | None = None, **event: Any) -> Any:
        """Deliver a new event and run its handlers, like `post`; see `asend`."""
        return await self.asend(_sample(type, object, event))

    async def asend(self, event: Event, *, secret: Secret | None = None) -> Any:
        """Deliver `event` and run its handlers, like `send`, except that a `TestCase` runs no `on_commit` callbacks."""
        response = await self.adeliver(_signed(event, secret))
        if self._should_run_handlers(response):
            with self._raise_failures(event):
                await project_webhooks.adrain()
        response.event = event
        return response

    def deliver(self, delivery: Delivery) -> Any:
        """Post a signed request as it is, and run no handlers.

        Returns:
            Django's response.

        Raises:
            Exception: that of the database, if the test has none.
        """
        response = self.client.post(self.address, **_request(delivery))
        if response.status_code == UNAVAILABLE:
            _check_database()
        return response

    async def adeliver(self, delivery: Delivery) -> Any:
        """Post a signed request, like `deliver`."""
        response = await self.async_client.post(self.address, **_request(delivery))
        if response.status_code == UNAVAILABLE:
            await sync_to_async(_check_database)()
        return response

    @property
    def address(self) -> str:
        """The path to post to.

        Raises:
            ConfigurationError: no path was given, and the project has no URL for webhooks.
        """
        if self.url is not None:
            return self.url
        candidates = endpoints()
        if not candidates:
            raise ConfigurationError("the project has no URL for webhooks: include envoyou_django.urls, or give a URL")
        return candidates[0].path

    def _should_run_handlers(self, response: Any) -> bool:
        return self.run_handlers and bool(response.status_code == 200)

    @contextmanager
    def _raise_failures(self, event: Event) -> Iterator[None]:
        failures = _failures_of(project_webhooks.setup())
        failures.clear()
        yield
        for failure in failures:
            if self.raise_handler_errors and failure.event_id == event.id:
                raise failure.error


_failures: weakref.WeakKeyDictionary[Webhooks, list[HandlerFailed]] = weakref.WeakKeyDictionary()


def _failures_of(webhooks: Webhooks) -> list[HandlerFailed]:
    """The list of failed handlers, to which failures are added until it is cleared."""
    if webhooks not in _failures:
        failures: list[HandlerFailed] = []

        def listen(notice: Notice) -> None:
            if isinstance(notice, HandlerFailed):
                failures.append(notice)

        webhooks.subscribe(listen)
        _failures[webhooks] = failures
    return _failures[webhooks]


def _check_database() -> None:
    """Raise the reason if events cannot be stored because the test has no database, or the database no tables."""
    with connections[router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))].cursor():
        project_webhooks.inbox.open()


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
def run_on_commit_callbacks() -> Iterator[None]:
    """Run the `on_commit` callbacks at the end of the block, because a `TestCase` never commits."""
    alias = router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))
    if not connections[alias].in_atomic_block:
        yield
        return
    with TestCase.captureOnCommitCallbacks(using=alias, execute=True):
        yield
