"""A Django project under the server of `runserver`, with every middleware installed that gets in a webhook's way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from envoyou_core import Handlers
from envoyou_core.settings import SETTING_NAMES
from envoyou_django import webhooks
from tests.contract.clients import Served
from tests.contract.clients.servers import HOST, serving
from tests.django.databases import inbox_on, sqlite_database


class DjangoClient:
    name = "django"

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with project(handlers, settings) as database, runserver(WSGIHandler()) as port:
            yield Served(HOST, port, webhooks, database=database, reads_chunked=False)


@contextmanager
def project(handlers: Handlers, settings: Mapping[str, Any], **of_django: Any) -> Iterator[Path]:
    """The project with a database of its own and these settings of `Webhooks`; yields the database's file."""
    ours = {_setting(keyword): value for keyword, value in settings.items() if keyword != "inbox"}
    with (
        database_access(),
        tempfile.TemporaryDirectory() as folder,
        sqlite_database("contract", database := Path(folder, "project.db"), "envoyou_django"),
        inbox_on("contract"),
        override_settings(ENVOYOU=ours, **of_django),
    ):
        webhooks.include(handlers)
        yield database


def _setting(keyword: str) -> str:
    name = "WEBHOOK_SECRET" if keyword == "secret" else keyword.upper()
    assert name in SETTING_NAMES
    return name


def database_access() -> AbstractContextManager[None]:
    """Let every thread use the databases: where pytest-django is installed, it keeps tests from that without a mark."""
    blocker = getattr(BaseDatabaseWrapper.ensure_connection, "__self__", None)
    return nullcontext() if blocker is None else blocker.unblock()


class SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@contextmanager
def runserver(application: Callable[..., Any]) -> Iterator[int]:
    server = ThreadedWSGIServer((HOST, 0), SilentHandler)
    server.set_app(application)
    with serving(server) as port:
        yield port


client = DjangoClient()
