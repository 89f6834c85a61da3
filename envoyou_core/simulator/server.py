"""Serves the platform's API over HTTP: an ASGI application, run by uvicorn."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from envoyou_core.errors import ConfigurationError
from envoyou_core.simulator.api import ApiRequest, ApiResponse

__all__ = ["LOOPBACK", "ApiServer", "listen"]

LOOPBACK = "127.0.0.1"
MAX_BODY_SIZE = 1_048_576
"""Bytes."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ApiApplication:
    """An ASGI application.

    Args:
        handle: answers a request; it must not block.
    """

    def __init__(self, handle: Callable[[ApiRequest], ApiResponse]) -> None:
        self._handle = handle

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        body = await _read(receive)
        if body is None:
            await _send(send, ApiResponse(413, {"error": "payload_too_large"}, {"Connection": "close"}))
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = ApiRequest(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body)
        await _send(send, self._handle(request))


async def _read(receive: Receive) -> bytes | None:
    """Return the body of a request, or `None` if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_SIZE:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _send(send: Send, response: ApiResponse) -> None:
    body = b"" if response.document is None else json.dumps(response.document).encode()
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    if body:
        headers.append((b"content-type", b"application/json"))
    if response.status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class ApiServer(uvicorn.Server):
    """A server, to be run with `serve`.

    Args:
        handle: answers a request; it must not block.
    """

    def __init__(self, handle: Callable[[ApiRequest], ApiResponse]) -> None:
        super().__init__(
            uvicorn.Config(
                ApiApplication(handle),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and set `ready`."""
        await super().startup(sockets)
        self.ready.set()


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the loopback address; port 0 takes a free one.

    Raises:
        ConfigurationError: the port cannot be used.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        # The text of the exception repeats the address.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(f"cannot listen on port {port} of {LOOPBACK}: {reason}") from None
