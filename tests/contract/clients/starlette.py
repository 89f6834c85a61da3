"""A Starlette application under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette

from envoyou_core import Handlers, Webhooks
from envoyou_fastapi.starlette import create_routes, lifespan
from tests.contract.clients import PATH, Built, Served
from tests.contract.clients.servers import HOST, uvicorn_server


class StarletteClient:
    name = "starlette"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = Starlette(routes=create_routes(webhooks, PATH), lifespan=lifespan(webhooks))
        yield Built(app, webhooks)
        webhooks.inbox.close()

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, uvicorn_server(built.app) as port:
            yield Served(HOST, port, built.webhooks)


client = StarletteClient()
