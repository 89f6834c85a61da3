"""ASGI: an application that receives webhooks, without a framework. The FastAPI and Starlette routes lead here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from envoyou_core.errors import PayloadTooLargeError, WebhookError
from envoyou_core.http import WebhookRequest, WebhookResponse
from envoyou_core.webhooks import Webhooks
from envoyou_core.wsgi import DRAIN_LIMIT

__all__ = ["WebhookEndpoint"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _DisconnectedError(Exception):
    """The sender went away before its request was complete."""


class WebhookEndpoint:
    """A raw ASGI application for one path: nothing stands between the server and the core.

    Args:
        webhooks: who receives.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        try:
            response = await self._respond(scope, receive)
        except _DisconnectedError:
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, scope: MutableMapping[str, Any], receive: Receive) -> WebhookResponse:
        webhooks = self._webhooks
        content_type = length = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = value
        body = _Body(receive, webhooks.max_body_size)
        try:
            webhooks.check_shape(scope["method"], content_type, int(length) if length.isdigit() else 0)
            read = await body.read()
        except WebhookError as error:
            await body.throw_away()
            return webhooks.refuse(error)
        return await webhooks.areceive(WebhookRequest.from_asgi(scope["method"], scope["headers"], read))


class _Body:
    """A request's body, in the messages that the server passes on."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._more = True

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
        while self._more and size < DRAIN_LIMIT:
            size += len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        self._more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk
