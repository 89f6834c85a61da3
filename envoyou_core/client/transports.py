"""Sends requests with httpx2, blocking or async, and turns its errors into those of the client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from envoyou_core.client.errors import ApiConnectionError, ApiError, ApiTimeoutError, InvalidResponseError
from envoyou_core.client.policy import ApiRequest
from envoyou_core.client.responses import Reply
from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.steps import Await, Call

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncTransport", "BlockingTransport", "new_async_http_client", "new_http_client"]

MAX_BODY: Final = 10_000_000
"""Bytes of a response."""


def new_http_client() -> httpx2.Client:
    """Return an HTTP client of its own.

    Raises:
        ConfigurationError: httpx2 is not installed.
    """
    _require_httpx2()
    import httpx2

    return httpx2.Client()


def new_async_http_client() -> httpx2.AsyncClient:
    """Return an async HTTP client of its own.

    Raises:
        ConfigurationError: httpx2 is not installed.
    """
    _require_httpx2()
    import httpx2

    return httpx2.AsyncClient()


class BlockingTransport:
    """See `Transport`.

    Args:
        client: returns the HTTP client.
        sleep: waits so many seconds.
        clock: returns the time in seconds since the epoch.
    """

    def __init__(
        self, client: Callable[[], httpx2.Client], sleep: Callable[[float], object], clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._clock = clock

    def send(self, request: ApiRequest) -> Call:
        """See `Transport`."""
        return Call(partial(self._exchange, request))

    def sleep(self, seconds: float) -> Call:
        """See `Transport`."""
        return Call(partial(self._sleep, seconds))

    def _exchange(self, request: ApiRequest) -> Reply | ApiError:
        import httpx2

        client, body = self._client(), _Body(request.timeout)
        try:
            response = client.send(_built(client, request), stream=True, auth=None, follow_redirects=False)
            try:
                for chunk in response.iter_bytes():
                    body.add(chunk)
            finally:
                response.close()
        except _RefusedBodyError as refused:
            return refused.failure
        except httpx2.HTTPError as error:
            return _failure(error)
        return _reply(response, body, self._clock())


class AsyncTransport:
    """See `Transport`.

    Args:
        client: returns the HTTP client.
        sleep: waits so many seconds.
        clock: returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        client: Callable[[], httpx2.AsyncClient],
        sleep: Callable[[float], Awaitable[object]],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._clock = clock

    def send(self, request: ApiRequest) -> Await:
        """See `Transport`."""
        return Await(partial(self._exchange, request))

    def sleep(self, seconds: float) -> Await:
        """See `Transport`."""
        return Await(partial(self._sleep, seconds))

    async def _exchange(self, request: ApiRequest) -> Reply | ApiError:
        import httpx2

        client, body = self._client(), _Body(request.timeout)
        try:
            response = await client.send(_built(client, request), stream=True, auth=None, follow_redirects=False)
            try:
                async for chunk in response.aiter_bytes():
                    body.add(chunk)
            finally:
                await response.aclose()
        except _RefusedBodyError as refused:
            return refused.failure
        except httpx2.HTTPError as error:
            return _failure(error)
        return _reply(response, body, self._clock())


class _RefusedBodyError(Exception):
    """The body is not read to its end."""

    def __init__(self, failure: ApiError) -> None:
        super().__init__()
        self.failure = failure


class _Body:
    """The body of a response while it comes. A server that sends a little at a time cannot hold the caller for ever."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BODY:
            raise _RefusedBodyError(InvalidResponseError(f"the response has more than {MAX_BODY} bytes"))
        if time.monotonic() > self._deadline:
            raise _RefusedBodyError(ApiTimeoutError("the response was not complete in time", was_sent=True))

    def content(self) -> bytes:
        return b"".join(self._chunks)


def _built(client: httpx2.Client | httpx2.AsyncClient, request: ApiRequest) -> httpx2.Request:
    return client.build_request(
        request.method, request.url, headers=dict(request.headers), content=request.content, timeout=request.timeout
    )


def _reply(response: httpx2.Response, body: _Body, now: float) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, body.content(), now)


def _failure(error: httpx2.HTTPError) -> ApiConnectionError:
    """Describe an error of the HTTP client. It is not chained, because it holds the request and so the API key."""
    import httpx2

    not_sent = (
        httpx2.ConnectError,
        httpx2.ConnectTimeout,
        httpx2.LocalProtocolError,
        httpx2.PoolTimeout,
        httpx2.ProxyError,
        httpx2.UnsupportedProtocol,
    )
    is_timeout = isinstance(error, httpx2.TimeoutException)
    kind = ApiTimeoutError if is_timeout else ApiConnectionError
    was_sent = not isinstance(error, not_sent)
    what = "no complete response from the API" if was_sent else "cannot connect to the API"
    return kind(f"{what}: {describe(error)}", was_sent=was_sent)


def _require_httpx2() -> None:
    try:
        import httpx2  # noqa: F401
    except ImportError:
        raise ConfigurationError("the management client needs httpx2: pip install 'envoyou-webhooks[client]'") from None
