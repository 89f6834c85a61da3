"""The databases of the tests' Django project: empty ones, in files and on servers of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps as installed_apps
from django.core.management import call_command
from django.db import connections


class Router:
    """Sends the inbox to one database, and lets everything else live where Django puts it."""

    inbox = "default"

    def db_for_write(self, model: type, **hints: Any) -> str | None:
        return Router.inbox if model._meta.app_label == "envoyou_django" else None

    def db_for_read(self, model: type, **hints: Any) -> str | None:
        # What the inbox reads must not depend on it: it may be a replica's.
        return None


@contextmanager
def inbox_on(alias: str) -> Iterator[None]:
    """Have the inbox on the database `alias` for as long as the block lasts."""
    before = Router.inbox
    _put_inbox_on(alias)
    try:
        yield
    finally:
        _put_inbox_on(before)


def _put_inbox_on(alias: str) -> None:
    Router.inbox = alias
    for each in connections:
        # What is in the way of a view that must have committed before it answers.
        connections.settings[each]["ATOMIC_REQUESTS"] = each == alias


def empty(alias: str) -> None:
    """Delete whatever an inbox has stored there."""
    for model in installed_apps.get_app_config("envoyou_django").get_models():
        model.objects.using(alias).all().delete()


@contextmanager
def sqlite_database(alias: str, path: Path, *apps: str) -> Iterator[None]:
    """Point `alias` to a new SQLite file, with the tables of `apps`, or of all."""
    with _database(alias, {"NAME": str(path)}, *apps):
        yield


@contextmanager
def postgres_database(alias: str, url: str, *apps: str) -> Iterator[None]:
    """Point `alias` to a PostgreSQL database, with the tables of `apps`, or of all."""
    parts = urlsplit(url)
    values = {
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or dict(pair.split("=") for pair in parts.query.split("&"))["host"],
        "PORT": str(parts.port or ""),
    }
    with _database(alias, values, *apps):
        yield


@contextmanager
def mariadb_database(alias: str, url: str, *apps: str) -> Iterator[None]:
    """Point `alias` to a MariaDB database, with the tables of `apps`, or of all."""
    parts = urlsplit(url)
    values = {
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }
    with _database(alias, values, *apps):
        yield


@contextmanager
def _database(alias: str, values: dict[str, Any], *apps: str) -> Iterator[None]:
    connections[alias].close()
    # Every thread makes its connections from this one dict.
    settings = connections.settings[alias]
    before = dict(settings)
    settings.update(values)
    try:
        for app in apps or (None,):
            call_command("migrate", *filter(None, [app]), database=alias, verbosity=0, run_syncdb=app is None)
        yield
    finally:
        connections[alias].close()
        settings.clear()
        settings.update(before)
