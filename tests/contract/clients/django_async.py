"""The same Django project under uvicorn, with the async view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.handlers.asgi import ASGIHandler

from envoyou_core import Handlers
from envoyou_django import webhooks
from tests.contract.clients import Built, Served
from tests.contract.clients.django import project
from tests.contract.clients.servers import HOST, uvicorn_server


class DjangoAsyncClient:
    name = "django_async"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        with project(handlers, settings, ROOT_URLCONF="tests.django.async_urls"):
            yield Built(ASGIHandler(), webhooks)

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, uvicorn_server(built.app, lifespan="auto") as port:
            yield Served(HOST, port, built.webhooks, takes_all_first=True)


client = DjangoAsyncClient()
