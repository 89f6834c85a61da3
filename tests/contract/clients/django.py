"""A Django project under the server of `runserver`, with all middleware that could interfere with a webhook."""

from __future__ import annotations

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
from envoyou_django.project import project_webhooks
from tests.contract.clients import Built, Served
from tests.contract.clients.servers import HOST, serving
from tests.django.databases import empty, inbox_on, mariadb_database, postgres_database, sqlite_database


class DjangoClient:
    name = "django"

    @contextmanager
    def build(self, handlers: Handlers, **settings: Any) -> Iterator[Built]:
        with project(handlers, settings):
            yield Built(WSGIHandler(), webhooks)

    @contextmanager
    def serve(self, handlers: Handlers, **settings: Any) -> Iterator[Served]:
        with self.build(handlers, **settings) as built, runserver(built.app) as port:
            yield Served(HOST, port, built.webhooks, reads_chunked=False)


@contextmanager
def project(handlers: Handlers, settings: Mapping[str, Any], **of_django: Any) -> Iterator[None]:
    """Configure the project with these settings of `Webhooks`; `inbox` is the URL of its inbox's database."""
    ours = {_setting(keyword): value for keyword, value in settings.items() if keyword != "inbox"}
    with inbox_at(settings["inbox"]), override_settings(ENVOYOU=ours, **of_django):
        # The handlers of the project's own app do not belong to the contract. The end of the override restores them.
        project_webhooks._registry = Handlers()
        webhooks.include(handlers)
        yield


@contextmanager
def inbox_at(url: str) -> Iterator[None]:
    """Use the database of this SQLAlchemy URL for the project's inbox; on a server, it is emptied first."""
    if url.startswith("sqlite"):
        alias = "contract"
        database = sqlite_database(alias, Path(url.removeprefix("sqlite:///")), "envoyou_django")
    elif url.startswith("postgresql"):
        alias, database = "postgres", postgres_database("postgres", url, "envoyou_django")
    else:
        alias, database = "mariadb", mariadb_database("mariadb", url, "envoyou_django")
    with database_access(), database, inbox_on(alias):
        if alias != "contract":
            empty(alias)
        yield


def _setting(keyword: str) -> str:
    name = "WEBHOOK_SECRET" if keyword == "secret" else keyword.upper()
    assert name in SETTING_NAMES
    return name


def database_access() -> AbstractContextManager[None]:
    """Let every thread use the databases, which pytest-django blocks in tests without its mark."""
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
