"""ASGI: an application that receives webhooks, without a framework, and an entry in front of any other application.

The FastAPI and Starlette routes lead here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from envoyou_core.bodies import DisconnectedError, unreadable
from envoyou_core.errors import PayloadTooLargeError, UnreadableBodyError, WebhookError
from envoyou_core.http import WebhookRequest, WebhookResponse, content_length, path_variants
from envoyou_core.webhooks import Webhooks
from envoyou_core.wsgi import DRAIN_LIMIT

__all__ = ["WebhookEndpoint", "webhooks_entry"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def webhooks_entry(app: Application, webhooks: Webhooks, *, path: str = "/webhooks/envoyou") -> Application:
    """An application that receives webhooks at `path` and leaves everything else to `app`.

    What comes to `path`, with or without a final slash, reaches neither the routes nor the middleware of `app`. The
    worker lives within the application's lifespan; where the application has none, it starts with the first request of
    all. See the guide, "Setting Up Webhooks".

    Args:
        app: what is served.
        webhooks: who receives.
        path: as `app` would see it: from where it is mounted, beginning with a slash.

    Raises:
        ConfigurationError: `path` does not begin with a slash, or a setting of `webhooks` cannot work as given.
    """
    endpoint = WebhookEndpoint(webhooks)
    paths = path_variants(path)
    # Where `webhooks` is made on first use, what is wrong with it stops the server rather than its first event.
    _ = webhooks.name

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(app, webhooks, scope, receive, send)
            return
        webhooks.ensure_worker()
        if scope["type"] == "http" and _path_within(scope) in paths:
            await endpoint(scope, receive, send)
        else:
            await app(scope, receive, send)

    return application


async def _live(app: Application, webhooks: Webhooks, scope: Scope, receive: Receive, send: Send) -> None:
    """The lifespan of `app`, after whose start the worker begins and before whose end it ends."""
    async with AsyncExitStack() as worker:

        async def receive_when_it_has_ended() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await worker.aclose()
            return message

        async def send_when_it_has_begun(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await worker.enter_async_context(webhooks.lifespan())
            await send(message)

        await app(scope, receive_when_it_has_ended, send_when_it_has_begun)


def _path_within(scope: Scope) -> str:
    """The request's path from where the application is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class WebhookEndpoint:
    """A raw ASGI application for one path: nothing stands between the server and the core.

    Args:
        webhooks: who receives.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        response = await self._respond(scope, receive)
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})

    async def _respond(self, scope: Scope, receive: Receive) -> WebhookResponse:
        try:
            body = await read_body(self._webhooks, scope, receive)
        except WebhookError as error:
            return self._webhooks.refuse(error, request_of(scope))
        return await self._webhooks.areceive(request_of(scope, body))


def request_of(scope: Scope, body: bytes = b"") -> WebhookRequest:
    """The core's request for an ASGI scope and the body, if it has been read."""
    root, path = scope.get("root_path", "").rstrip("/"), scope.get("path", "")
    # Servers disagree on whether the path includes the root path.
    path = path if f"{path}/".startswith(f"{root}/") else root + path
    peer = scope.get("client")
    return WebhookRequest.from_asgi(
        scope["method"], scope["headers"], body, path=path or None, peer=str(peer[0]) if peer else None
    )


async def read_body(webhooks: Webhooks, scope: Scope, receive: Receive) -> bytes:
    """The body of a request whose shape is right, of `max_body_size` bytes at most.

    Args:
        webhooks: whose bounds they are.
        scope: the request's ASGI scope.
        receive: the request's ASGI messages.

    Raises:
        WebhookError: 400, 405, 413, 415 or 499; up to `DRAIN_LIMIT` bytes of the refused body have been thrown away.
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
    body = _Body(receive, webhooks.max_body_size)
    try:
        webhooks.check_shape(scope["method"], content_type, length)
        return await body.read()
    except (DisconnectedError, UnreadableBodyError):
        # Nothing more can be read.
        raise
    except WebhookError:
        # A sender that asked first would begin if the body were read now. But a server may have told it to by itself,
        # and it would not see why it was cut off: it is left unread only where so much is too much to throw away.
        if body.begun or not expectation or length <= DRAIN_LIMIT:
            await body.throw_away()
        raise


class _Body:
    """A request's body, in the messages that the server passes on."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._more = True
        self.begun = False

    async def read(self) -> bytes:
        chunks = []
        size = 0
        while self._more:
            chunk = await self._next()
            size += len(chunk)
            if size > self._limit:
                raise PayloadTooLargeError(f"the body is larger than {self._limit} bytes")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def throw_away(self) -> None:
        size = 0
        # If that fails, the request is refused for the first reason.
        with suppress(WebhookError):
            while self._more and size < DRAIN_LIMIT:
                size += len(await self._next())

    async def _next(self) -> bytes:
        self.begun = True
        try:
            message = await self._receive()
        except Exception as error:
            raise unreadable(error) from None
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        self._more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk
