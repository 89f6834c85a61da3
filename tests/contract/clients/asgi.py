"""The core's own ASGI application, bare, under uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from envoyou_core import Handlers, Webhooks
from envoyou_core.asgi import WebhookEndpoint
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, uvicorn_server


class AsgiClient:
    name = "asgi"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        with uvicorn_server(_application(webhooks)) as port:
            yield Served(HOST, port, webhooks)
        webhooks.inbox.close()


def _application(webhooks: Webhooks) -> Callable[..., Awaitable[None]]:
    endpoint = WebhookEndpoint(webhooks)

    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with webhooks.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"].removesuffix("/") == PATH:
            await endpoint(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})

    return application


client = AsgiClient()
