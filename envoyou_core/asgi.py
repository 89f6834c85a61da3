"""ASGI: an application that receives webhooks, and a wrapper that adds it to any other application.

The routes for FastAPI and Starlette use it too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from functools import lru_cache
from typing import Any, Final

from envoyou_core.endpoints import mark_endpoint
from envoyou_core.errors import UnreadableBodyError, WebhookError, describe
from envoyou_core.health.http import probe_in
from envoyou_core.health.reports import Probe
from envoyou_core.http import RequestLimits, WebhookRequest, WebhookResponse, content_length, path_variants
from envoyou_core.unreadable_bodies import DisconnectedError, as_body_error
from envoyou_core.webhooks import Webhooks
from envoyou_core.wsgi import DRAIN_LIMIT

__all__ = ["HealthEndpoint", "WebhookEndpoint", "health_app", "webhooks_entry"]

MAX_KNOWN_HEADERS: Final = 64
"""How many headers of responses are kept as they are sent. There is one for each kind of answer."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def webhooks_entry(app: Application, webhooks: Webhooks, *, path: str = "/webhooks/envoyou") -> Application:
    """Wrap `app` so that webhooks are received at `path`; all other requests are passed on to `app`.

    Requests to `path`, with or without a final slash, bypass the routes and the middleware of `app`. The worker starts
    and stops with the lifespan, also if `app` has none, such as Django. If the server runs no lifespan, the worker
    starts with the first request to any path. See the guide, "Setting Up Webhooks".

    Args:
        app: the application to wrap.
        webhooks: the webhooks to receive.
        path: relative to where `app` is mounted, beginning with a slash.

    Raises:
        ConfigurationError: `path` does not begin with a slash, or a setting of `webhooks` is invalid.
    """
    endpoint = WebhookEndpoint(webhooks)
    paths = path_variants(path)
    # If `webhooks` is created lazily, a wrong setting must fail at start-up, not at the first event.
    _ = webhooks.name

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(app, webhooks, scope, receive, send)
            return
        webhooks.ensure_worker()
        if scope["type"] == "http" and _relative_path(scope) in paths:
            await endpoint(scope, receive, send)
        else:
            await app(scope, receive, send)

    mark_endpoint(application, lambda: webhooks, path=path)
    return application


async def _run_lifespan(app: Application, webhooks: Webhooks, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of `app`; start the worker after its start-up and stop the worker before its shutdown."""
    supported = False
    async with AsyncExitStack() as worker:

        async def stop_worker_and_receive() -> Message:
            nonlocal supported
            supported = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await worker.aclose()
            return message

        async def start_worker_and_send(message: Message) -> None:
            nonlocal supported
            supported = True
            if message["type"] == "lifespan.startup.complete":
                await worker.enter_async_context(webhooks.lifespan())
            await send(message)

        try:
            await app(scope, stop_worker_and_receive, start_worker_and_send)
        except Exception:
            if supported:
                raise
    if not supported:
        # The application has refused the scope, as Django does, or has ignored it.
        await _run_lifespan_without_app(webhooks, receive, send)


async def _run_lifespan_without_app(webhooks: Webhooks, receive: Receive, send: Send) -> None:
    async with AsyncExitStack() as worker:
        await receive()
        try:
            await worker.enter_async_context(webhooks.lifespan())
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": describe(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _relative_path(scope: Scope) -> str:
    """Return the request's path relative to where the application is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class WebhookEndpoint:
    """An ASGI application that receives webhooks, for one path.

    Args:
        webhooks: the webhooks to receive.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        mark_endpoint(self, lambda: webhooks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        webhooks = self._webhooks
        try:
            body = await read_body(webhooks.request_limits, scope, receive)
        except WebhookError as error:
            response = webhooks.refuse(error, request_of(scope))
        else:
            response = await webhooks.areceive(request_of(scope, body))
        await _send(response, scope, send)


class HealthEndpoint:
    """An ASGI application that answers one health probe, for one path.

    Args:
        webhooks: the webhooks whose health it is.
        probe: `live`, `ready` or `worker`; by default the last part of the path.

    Raises:
        ValueError: there is no such probe.
    """

    def __init__(self, webhooks: Webhooks, probe: str | None = None) -> None:
        self._webhooks = webhooks
        self._probe = None if probe is None else Probe(probe).value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        probe = self._probe or probe_in(scope["path"])
        await _send(await self._webhooks.probes.arespond(scope["method"], probe), scope, send)


def health_app(webhooks: Webhooks) -> Application:
    """Return an ASGI application with the health probes at `/live`, `/ready` and `/worker`, to be mounted.

    They answer 200 or 503, with a small JSON object.

    Args:
        webhooks: the webhooks whose health it is.
    """
    return HealthEndpoint(webhooks)


async def _send(response: WebhookResponse, scope: Scope, send: Send) -> None:
    # A list of its own for each response, because middleware may add headers to it.
    headers = list(_asgi_headers(response.headers, len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})


@lru_cache(MAX_KNOWN_HEADERS)
def _asgi_headers(headers: tuple[tuple[str, str], ...], size: int) -> tuple[tuple[bytes, bytes], ...]:
    encoded = ((name.lower().encode(), value.encode()) for name, value in headers)
    return (*encoded, (b"content-length", str(size).encode()))


def request_of(scope: Scope, body: bytes = b"") -> WebhookRequest:
    """Create a `WebhookRequest` from an ASGI scope and the body, if it has been read."""
    root, path = scope.get("root_path", "").rstrip("/"), scope.get("path", "")
    # Servers differ in whether the path includes the root path.
    if root and not f"{path}/".startswith(f"{root}/"):
        path = root + path
    peer = scope.get("client")
    return WebhookRequest.from_asgi(
        scope["method"], scope["headers"], body, path=path or None, peer=str(peer[0]) if peer else None
    )


async def read_body(limits: RequestLimits, scope: Scope, receive: Receive) -> bytes:
    """Check an ASGI request and read its body.

    Args:
        limits: what the request must satisfy before its body is read.
        scope: the request's ASGI scope.
        receive: the request's ASGI `receive`.

    Raises:
        WebhookError: 400, 405, 413, 415 or 499; up to `DRAIN_LIMIT` bytes of the refused body have been read and
            discarded.
    """
    content_type = declared = expectation = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            declared = value
        elif name == b"expect":
            expectation = value
    length = content_length(declared) or 0
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        limits.check(scope["method"], content_type, length)
        while more:
            chunk, more = await _next(receive)
            chunks.append(chunk)
            size += len(chunk)
            if size > limits.max_body_size:
                raise limits.too_large()
    except (DisconnectedError, UnreadableBodyError):
        # The rest of the body cannot be read either.
        raise
    except WebhookError:
        # Reading the body makes a sender start that waits for `100 Continue`. But the server may have sent that by
        # itself, and a sender that is cut off does not see the response. So only a body that is too large to be
        # discarded is left unread.
        if more and (chunks or not expectation or length <= DRAIN_LIMIT):
            await _drain(receive)
        raise
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _drain(receive: Receive) -> None:
    size, more = 0, True
    # The original refusal stands if this fails.
    with suppress(WebhookError):
        while more and size < DRAIN_LIMIT:
            chunk, more = await _next(receive)
            size += len(chunk)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a request's body, and whether there is more."""
    try:
        message = await receive()
    except Exception as error:
        raise as_body_error(error) from None
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message.get("body", b""), message.get("more_body", False)
