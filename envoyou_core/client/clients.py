"""The clients that users hold: settings, an HTTP client, and the calls."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from envoyou_core.client.operations import Operation
from envoyou_core.client.policy import ClientSettings, Transport, exchange, settings_of
from envoyou_core.client.raw import RawResponse
from envoyou_core.client.transports import AsyncTransport, BlockingTransport, new_async_http_client, new_http_client
from envoyou_core.client.webhooks import AsyncRawWebhooksApi, AsyncWebhooksApi, RawWebhooksApi, WebhooksApi
from envoyou_core.forks import call_in_forked_children
from envoyou_core.steps import arun, run

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncEnvoyouClient", "AsyncRawResponses", "EnvoyouClient", "RawResponses"]

R = TypeVar("R")
AnyClient = TypeVar("AnyClient", bound="EnvoyouClient | AsyncEnvoyouClient")
HttpClient = TypeVar("HttpClient", bound="httpx2.Client | httpx2.AsyncClient")

DEFAULT_TIMEOUT = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class RawResponses:
    """The calls of an `EnvoyouClient`, which return the responses.

    Attributes:
        webhooks: the calls about webhooks.
    """

    webhooks: RawWebhooksApi


@dataclass(frozen=True, slots=True)
class AsyncRawResponses:
    """The calls of an `AsyncEnvoyouClient`, which return the responses.

    Attributes:
        webhooks: the calls about webhooks.
    """

    webhooks: AsyncRawWebhooksApi


@dataclass(frozen=True, slots=True)
class _Caller:
    settings: ClientSettings
    transport: Transport

    def perform(self, operation: Operation[R]) -> R:
        return self.perform_raw(operation).parse()

    def perform_raw(self, operation: Operation[R]) -> RawResponse[R]:
        return RawResponse(operation, run(exchange(operation, self.settings, self.transport)))


@dataclass(frozen=True, slots=True)
class _AsyncCaller:
    settings: ClientSettings
    transport: Transport

    async def perform(self, operation: Operation[R]) -> R:
        return (await self.perform_raw(operation)).parse()

    async def perform_raw(self, operation: Operation[R]) -> RawResponse[R]:
        return RawResponse(operation, await arun(exchange(operation, self.settings, self.transport)))


class _Connections(Generic[HttpClient]):
    """The HTTP client of a client: a given one, or one of its own, which is made anew in a forked child."""

    def __init__(self, given: HttpClient | None, make: Callable[[], HttpClient]) -> None:
        self._make = make
        self.is_own = given is None
        self.http = make() if given is None else given
        if self.is_own:
            call_in_forked_children(self._renew)

    def get(self) -> HttpClient:
        return self.http

    def _renew(self) -> None:
        # Two processes that share a connection would read each other's responses.
        if not self.http.is_closed:
            self.http = self._make()


class EnvoyouClient:
    """A client of EnvoyOU's management API. Requires the extra `client`.

    It is a context manager, and closes its HTTP client at the end. Threads may share it.

    Args:
        api_key: the API key; by default `ENVOYOU_API_KEY` of the environment.
        base_url: the URL of the API; by default `ENVOYOU_BASE_URL` of the environment, else
            `https://api.envoyou.com/v1`. Without `https` only for this machine, because the key is sent there.
        timeout: seconds to wait for a connection and for each part of a response, and for a whole response.
        max_retries: how often a call is repeated after a failure that may pass: 429, and connection errors and 5xx
            unless a webhook may have been created. What the response says in `Retry-After` is waited for, up to 60
            seconds; otherwise up to 0.5 seconds, doubled each time.
        http_client: the HTTP client to use, with proxies or certificates of your own. It is not closed.
        sleep: waits so many seconds; for tests.
        clock: returns the time in seconds since the epoch; for tests.

    Raises:
        ConfigurationError: the key is missing, a setting is invalid, or httpx2 is not installed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        http_client: httpx2.Client | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = settings_of(api_key, base_url, timeout, max_retries, os.environ)
        self._connections = _Connections(http_client, new_http_client)
        self._closes = self._connections.is_own
        self._caller = _Caller(settings, BlockingTransport(self._connections.get, sleep, clock))

    @property
    def webhooks(self) -> WebhooksApi:
        """The calls about webhooks: `create`, `get`, `list`, `update` and `delete`."""
        return WebhooksApi(self._caller)

    @property
    def with_raw_response(self) -> RawResponses:
        """The same calls. They return a `RawResponse` with status, headers and body."""
        return RawResponses(RawWebhooksApi(self._caller))

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """Return a client with other settings. It shares the HTTP client of this one, and does not close it.

        Raises:
            ConfigurationError: a setting is invalid.
        """
        return _copied(self, settings=_changed(self._caller.settings, timeout, max_retries))

    def close(self) -> None:
        """Close the HTTP client, unless it was given or is shared."""
        if self._closes:
            self._connections.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._caller.settings.base_url!r})"


class AsyncEnvoyouClient:
    """A client of EnvoyOU's management API for `async` code. See `EnvoyouClient`, whose parameters it has.

    It is an async context manager. Use it in one event loop.

    Raises:
        ConfigurationError: the key is missing, a setting is invalid, or httpx2 is not installed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = settings_of(api_key, base_url, timeout, max_retries, os.environ)
        self._connections = _Connections(http_client, new_async_http_client)
        self._closes = self._connections.is_own
        self._caller = _AsyncCaller(settings, AsyncTransport(self._connections.get, sleep or _sleep, clock))

    @property
    def webhooks(self) -> AsyncWebhooksApi:
        """The calls about webhooks: `create`, `get`, `list`, `update` and `delete`."""
        return AsyncWebhooksApi(self._caller)

    @property
    def with_raw_response(self) -> AsyncRawResponses:
        """The same calls. They return a `RawResponse` with status, headers and body."""
        return AsyncRawResponses(AsyncRawWebhooksApi(self._caller))

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """Return a client with other settings. It shares the HTTP client of this one, and does not close it.

        Raises:
            ConfigurationError: a setting is invalid.
        """
        return _copied(self, settings=_changed(self._caller.settings, timeout, max_retries))

    async def close(self) -> None:
        """Close the HTTP client, unless it was given or is shared."""
        if self._closes:
            await self._connections.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._caller.settings.base_url!r})"


def _copied(client: AnyClient, settings: ClientSettings) -> AnyClient:
    other = copy.copy(client)
    vars(other).update(_caller=replace(client._caller, settings=settings), _closes=False)  # noqa: SLF001
    return other


def _changed(settings: ClientSettings, timeout: float | None, max_retries: int | None) -> ClientSettings:
    given = {"timeout": timeout, "max_retries": max_retries}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changes)


async def _sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)
