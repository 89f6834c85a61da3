"""The databases of the tests' Django project: empty ones, in files and on servers of the tests' own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from django.apps import apps as installed_apps
from django.core.management import call_command
from django.db import connections

T = TypeVar("T")

# Migrations take longer than most tests, and always end in the same tables.
_migrated_files: dict[tuple[str, ...], bytes] = {}
"""From apps to an SQLite file with their tables."""
_migrated_databases: set[tuple[str, ...]] = set()
"""The databases of servers, each followed by the apps whose tables it has."""


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
    if file := _migrated_files.get(apps):
        path.write_bytes(file)
    with _database(alias, {"NAME": str(path)}):
        if not file:
            _migrate(alias, apps)
            connections[alias].close()
            _migrated_files[apps] = path.read_bytes()
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
    with _server_database(alias, values, apps):
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
        "OPTIONS": {**connections.settings[alias].get("OPTIONS", {}), **dict(parse_qsl(parts.query))},
    }
    with _server_database(alias, values, apps):
        yield


@contextmanager
def _server_database(alias: str, values: dict[str, Any], apps: tuple[str, ...]) -> Iterator[None]:
    with _database(alias, values):
        if (values["NAME"], *apps) not in _migrated_databases:
            _migrate(alias, apps)
            _migrated_databases.add((values["NAME"], *apps))
        yield


def _migrate(alias: str, apps: tuple[str, ...]) -> None:
    for app in apps or (None,):
        call_command("migrate", *filter(None, [app]), database=alias, verbosity=0, run_syncdb=app is None)


@contextmanager
def _database(alias: str, values: dict[str, Any]) -> Iterator[None]:
    connections[alias].close()
    # Every thread makes its connections from this one dict.
    settings = connections.settings[alias]
    before = dict(settings)
    settings.update(values)
    try:
        yield
    finally:
        connections[alias].close()
        settings.clear()
        settings.update(before)


def in_a_thread(pool: ThreadPoolExecutor, function: Callable[[], T]) -> Future[T]:
    """Call it with connections of its own."""

    def call() -> T:
        try:
            return function()
        finally:
            connections.close_all()

    return pool.submit(call)


def wait_until_locked(alias: str, call: Future[Any], patience: float = 20) -> None:
    """Wait until `call`, which another connection to a server's database has begun, waits for a lock, or is done."""
    deadline = time.monotonic() + patience
    while not call.done() and not _connections_that_wait(alias):
        assert time.monotonic() < deadline
        # MariaDB says the same again until nobody on the server has asked for a tenth of a second: at regular times,
        # two test processes could keep the news from each other for ever.
        time.sleep(random.uniform(0.11, 0.5))


def _connections_that_wait(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute(
                # What a connection waits for may belong to no database; the connection holds something that does.
                "SELECT count(DISTINCT waiting.pid) FROM pg_locks AS waiting JOIN pg_locks AS held USING (pid)"
                " JOIN pg_database ON pg_database.oid = held.database"
                " WHERE datname = current_database() AND NOT waiting.granted"
            )
        else:
            cursor.execute(
                "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist"
                " ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()"
            )
        return cursor.fetchone()[0]
