"""The ASGI entry, wrapping a Django project without our URLs, under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.handlers.asgi import ASGIHandler

from envoyou_core import Handlers
from envoyou_core.asgi import webhooks_entry
from envoyou_django import webhooks
from tests.contract.clients import PATH, Built, Served
from tests.contract.clients.django import project
from tests.contract.clients.servers import HOST, uvicorn_server


class DjangoAsgiEntryClient:
    name = "django_asgi_entry"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        with project(handlers, settings, ROOT_URLCONF="tests.django.no_urls"):
            yield Built(webhooks_entry(ASGIHandler(), webhooks, path=PATH), webhooks)

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, uvicorn_server(built.app, lifespan="auto") as port:
            yield Served(HOST, port, built.webhooks)


client = DjangoAsgiEntryClient()
