"""The calls of `client.webhooks`, blocking and async. `operations` and `policy` decide what each call does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import ParamSpec, Protocol, TypeVar, cast

from envoyou_core.client import operations
from envoyou_core.client.operations import Operation
from envoyou_core.client.pages import AsyncWebhookPage, WebhookPage
from envoyou_core.client.raw import RawResponse
from envoyou_core.client.results import OMITTED, DeletedWebhook, DeliveryRetryPolicy, Omitted, Webhook

__all__ = ["AsyncCaller", "AsyncRawWebhooksApi", "AsyncWebhooksApi", "Caller", "RawWebhooksApi", "WebhooksApi"]

P = ParamSpec("P")
R = TypeVar("R")


class _Perform(Protocol):
    def __call__(self, operation: Operation[R]) -> R: ...


class _AsyncPerform(Protocol):
    async def __call__(self, operation: Operation[R]) -> R: ...


class Caller(Protocol):
    """Performs operations, and returns the result or the response."""

    def perform(self, operation: Operation[R]) -> R:
        """Perform an operation and return its result."""

    def perform_raw(self, operation: Operation[R]) -> RawResponse[R]:
        """Perform an operation and return the response."""


class AsyncCaller(Protocol):
    """Performs operations, and returns the result or the response."""

    async def perform(self, operation: Operation[R]) -> R:
        """Perform an operation and return its result."""

    async def perform_raw(self, operation: Operation[R]) -> RawResponse[R]:
        """Perform an operation and return the response."""


class WebhooksApi:
    """The calls about webhooks. See the guide, "Register Webhook URL" and "Webhook Management".

    Each call raises an `ApiError` if it fails, and `ValueError` if an argument cannot be sent.
    """

    def __init__(self, caller: Caller, *, is_raw: bool = False) -> None:
        self._caller = caller
        # Raw calls return responses. `RawWebhooksApi` declares their types.
        self._perform = cast("_Perform", caller.perform_raw) if is_raw else caller.perform

    @property
    def with_raw_response(self) -> RawWebhooksApi:
        """The same calls, which return the response instead of the result."""
        return RawWebhooksApi(self._caller)

    def create(
        self,
        *,
        url: str,
        events: Sequence[str],
        secret: str | Omitted | None = OMITTED,
        active: bool | Omitted = OMITTED,
        retry_policy: DeliveryRetryPolicy | Omitted | None = OMITTED,
        headers: Mapping[str, str] | Omitted | None = OMITTED,
    ) -> Webhook:
        """Register a webhook. See the guide, "Register Webhook URL".

        Args:
            url: the URL that receives the deliveries.
            events: the types of event to deliver.
            secret: the signing secret.
            active: whether events are delivered.
            retry_policy: how deliveries are repeated.
            headers: custom headers of each delivery.

        Raises:
            OutcomeUnknownError: the webhook may have been created or not. The call was not repeated.
            ApiError: the call has failed.
            ValueError: an argument cannot be sent.
        """
        return self._perform(
            operations.create(
                url=url, events=events, secret=secret, active=active, retry_policy=retry_policy, headers=headers
            )
        )

    def get(self, webhook_id: str) -> Webhook:
        """Return one webhook.

        Raises:
            NotFoundError: there is no such webhook.
            ApiError: the call has failed.
        """
        return self._perform(operations.get(webhook_id))

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> WebhookPage:
        """Return the first page of the webhooks; iterating over it goes on to all pages. See "List Webhooks".

        Args:
            limit: the maximum number of webhooks of a page.
            cursor: begin where another page ended: at its `next_cursor`.

        Raises:
            ApiError: the call has failed.
        """
        return self._perform(_page_operation(self._caller, limit, cursor))

    def update(
        self,
        webhook_id: str,
        *,
        url: str | Omitted = OMITTED,
        events: Sequence[str] | Omitted = OMITTED,
        secret: str | Omitted | None = OMITTED,
        active: bool | Omitted = OMITTED,
        retry_policy: DeliveryRetryPolicy | Omitted | None = OMITTED,
        headers: Mapping[str, str] | Omitted | None = OMITTED,
    ) -> Webhook:
        """Change the settings that are given, and no others. `None` is sent as null. See "Update Webhook".

        Raises:
            NotFoundError: there is no such webhook.
            ApiError: the call has failed.
            ValueError: nothing is given, or an argument cannot be sent.
        """
        return self._perform(
            operations.update(
                webhook_id,
                url=url,
                events=events,
                secret=secret,
                active=active,
                retry_policy=retry_policy,
                headers=headers,
            )
        )

    def delete(self, webhook_id: str) -> DeletedWebhook:
        """Delete a webhook. See "Delete Webhook".

        Raises:
            NotFoundError: there is no such webhook.
            ApiError: the call has failed.
        """
        return self._perform(operations.delete(webhook_id))


class AsyncWebhooksApi:
    """The calls about webhooks, async. See `WebhooksApi`."""

    def __init__(self, caller: AsyncCaller, *, is_raw: bool = False) -> None:
        self._caller = caller
        self._perform = cast("_AsyncPerform", caller.perform_raw) if is_raw else caller.perform

    @property
    def with_raw_response(self) -> AsyncRawWebhooksApi:
        """The same calls, which return the response instead of the result."""
        return AsyncRawWebhooksApi(self._caller)

    async def create(
        self,
        *,
        url: str,
        events: Sequence[str],
        secret: str | Omitted | None = OMITTED,
        active: bool | Omitted = OMITTED,
        retry_policy: DeliveryRetryPolicy | Omitted | None = OMITTED,
        headers: Mapping[str, str] | Omitted | None = OMITTED,
    ) -> Webhook:
        """Register a webhook. See `WebhooksApi.create`."""
        return await self._perform(
            operations.create(
                url=url, events=events, secret=secret, active=active, retry_policy=retry_policy, headers=headers
            )
        )

    async def get(self, webhook_id: str) -> Webhook:
        """Return one webhook. See `WebhooksApi.get`."""
        return await self._perform(operations.get(webhook_id))

    async def list(self, *, limit: int | None = None, cursor: str | None = None) -> AsyncWebhookPage:
        """Return the first page of the webhooks; `async for` goes on to all pages. See `WebhooksApi.list`."""
        return await self._perform(_async_page_operation(self._caller, limit, cursor))

    async def update(
        self,
        webhook_id: str,
        *,
        url: str | Omitted = OMITTED,
        events: Sequence[str] | Omitted = OMITTED,
        secret: str | Omitted | None = OMITTED,
        active: bool | Omitted = OMITTED,
        retry_policy: DeliveryRetryPolicy | Omitted | None = OMITTED,
        headers: Mapping[str, str] | Omitted | None = OMITTED,
    ) -> Webhook:
        """Change the settings that are given, and no others. See `WebhooksApi.update`."""
        return await self._perform(
            operations.update(
                webhook_id,
                url=url,
                events=events,
                secret=secret,
                active=active,
                retry_policy=retry_policy,
                headers=headers,
            )
        )

    async def delete(self, webhook_id: str) -> DeletedWebhook:
        """Delete a webhook. See `WebhooksApi.delete`."""
        return await self._perform(operations.delete(webhook_id))


class RawWebhooksApi:
    """The calls of `WebhooksApi`, with the same parameters. Each one returns a `RawResponse`."""

    def __init__(self, caller: Caller) -> None:
        calls = WebhooksApi(caller, is_raw=True)
        self.create = _raw(calls.create)
        self.get = _raw(calls.get)
        self.list = _raw(calls.list)
        self.update = _raw(calls.update)
        self.delete = _raw(calls.delete)


class AsyncRawWebhooksApi:
    """The calls of `AsyncWebhooksApi`, with the same parameters. Each one returns a `RawResponse`."""

    def __init__(self, caller: AsyncCaller) -> None:
        calls = AsyncWebhooksApi(caller, is_raw=True)
        self.create = _async_raw(calls.create)
        self.get = _async_raw(calls.get)
        self.list = _async_raw(calls.list)
        self.update = _async_raw(calls.update)
        self.delete = _async_raw(calls.delete)


def _raw(call: Callable[P, R]) -> Callable[P, RawResponse[R]]:
    return cast("Callable[P, RawResponse[R]]", call)


def _async_raw(call: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[RawResponse[R]]]:
    return cast("Callable[P, Awaitable[RawResponse[R]]]", call)


def _page_operation(caller: Caller, limit: int | None, cursor: str | None) -> Operation[WebhookPage]:
    def fetch(next_cursor: str) -> WebhookPage:
        return caller.perform(_page_operation(caller, limit, next_cursor))

    return operations.list_page(limit, cursor, partial(WebhookPage, fetch=fetch))


def _async_page_operation(caller: AsyncCaller, limit: int | None, cursor: str | None) -> Operation[AsyncWebhookPage]:
    async def fetch(next_cursor: str) -> AsyncWebhookPage:
        return await caller.perform(_async_page_operation(caller, limit, next_cursor))

    return operations.list_page(limit, cursor, partial(AsyncWebhookPage, fetch=fetch))
