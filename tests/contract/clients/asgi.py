"""The core's ASGI entry, wrapping an application that only has a lifespan, under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from envoyou_core import Handlers, Webhooks
from envoyou_core.asgi import webhooks_entry
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, uvicorn_server


class AsgiClient:
    name = "asgi"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        with uvicorn_server(webhooks_entry(not_found, webhooks, path=PATH)) as port:
            yield Served(HOST, port, webhooks)
        webhooks.inbox.close()


async def not_found(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})


client = AsgiClient()
