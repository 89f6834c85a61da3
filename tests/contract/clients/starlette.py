"""A Starlette application under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette

from envoyou_core import Handlers, Webhooks
from envoyou_fastapi.starlette import create_routes, lifespan
from tests.contract.clients import PATH, Served
from tests.contract.clients.servers import HOST, uvicorn_server


class StarletteClient:
    name = "starlette"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = Starlette(routes=create_routes(webhooks, PATH), lifespan=lifespan(webhooks))
        with uvicorn_server(app) as port:
            yield Served(HOST, port, webhooks)
        webhooks.inbox.close()


client = StarletteClient()
