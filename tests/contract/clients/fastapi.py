"""A FastAPI application under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from envoyou_core import Handlers, Webhooks
from envoyou_fastapi import create_router
from tests.contract.clients import PATH, Built, Served
from tests.contract.clients.servers import HOST, uvicorn_server


class FastAPIClient:
    name = "fastapi"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        webhooks = Webhooks(**settings)
        webhooks.include(handlers)
        app = FastAPI()
        app.include_router(create_router(webhooks), prefix=PATH)
        yield Built(app, webhooks)
        webhooks.inbox.close()

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, uvicorn_server(built.app) as port:
            yield Served(HOST, port, built.webhooks)


client = FastAPIClient()
