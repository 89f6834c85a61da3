"""The WSGI entry, wrapping a Django project without our URLs, under the server of `runserver`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.handlers.wsgi import WSGIHandler

from envoyou_core import Handlers
from envoyou_core.wsgi import webhooks_entry
from envoyou_django import webhooks
from tests.contract.clients import PATH, Built, Served
from tests.contract.clients.django import project, runserver
from tests.contract.clients.servers import HOST


class DjangoWsgiEntryClient:
    name = "django_wsgi_entry"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        with project(handlers, settings, ROOT_URLCONF="tests.django.no_urls"):
            yield Built(webhooks_entry(WSGIHandler(), webhooks, path=PATH), webhooks)

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, runserver(built.app) as port:
            yield Served(HOST, port, built.webhooks, reads_chunked=False)


client = DjangoWsgiEntryClient()
