"""Checks of the inbox's database."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import connections, router

from envoyou_core.adapter import RESERVED, WorkerSettings
from envoyou_django import conf
from envoyou_django.inbox.insert import supports
from envoyou_django.inbox.pools import max_connections

__all__ = [
    "check_connection_pool",
    "check_server",
    "check_sqlite",
    "check_sqlite_in_development",
    "inbox_alias",
]

WAL_MARK: Final = b"\x02\x02"
"""Bytes 19 and 20 of a SQLite file in WAL mode."""


def inbox_alias() -> str:
    """Return the alias of the inbox's database."""
    alias: str = router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))
    return alias


def check_sqlite() -> Iterator[checks.CheckMessage]:
    """Check that a SQLite database is configured for concurrent writers; with DEBUG, only `--deploy` does."""
    if not settings.DEBUG:
        yield from _check_sqlite()


def check_sqlite_in_development() -> Iterator[checks.CheckMessage]:
    """Check with DEBUG what `check_sqlite` checks without it."""
    if settings.DEBUG:
        yield from _check_sqlite()


def _check_sqlite() -> Iterator[checks.CheckMessage]:
    connection = connections[inbox_alias()]
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return
    options = connection.settings_dict.get("OPTIONS", {})
    if not _enables_wal(options) and not _is_in_wal_mode(Path(connection.settings_dict["NAME"])):
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} is not in WAL mode, so readers block the acceptance of "
            "events.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL".',
            id="envoyou.W004",
        )
    if str(options.get("transaction_mode")).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} does not use immediate transactions: a transaction that "
            "reads before it writes fails if another one writes in between.",
            hint=f'Set DATABASES["{connection.alias}"]["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
            id="envoyou.W005",
        )
    elif connection.settings_dict["ATOMIC_REQUESTS"]:
        yield checks.Warning(
            f"The inbox's SQLite database {connection.alias!r} uses ATOMIC_REQUESTS: every request holds the only "
            "write lock, even if it only reads, and deliveries get 503 meanwhile.",
            hint="Remove ATOMIC_REQUESTS and decorate the views that need a transaction with transaction.atomic.",
            id="envoyou.W012",
        )


def check_server(databases: Collection[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check that the database can detect duplicates.

    It runs only with `--database`, because only a connection tells the kind of server.
    """
    alias = inbox_alias()
    if alias not in (databases or ()) or supports(connections[alias]):
        return []
    return [
        checks.Error(
            f"The inbox's database {alias!r} does not support INSERT ... RETURNING, so new deliveries cannot be "
            "distinguished from duplicates.",
            hint="Use SQLite, PostgreSQL or MariaDB for the inbox; see DATABASE_ROUTERS.",
            id="envoyou.E005",
        )
    ]


def _enables_wal(options: Any) -> bool:
    return "journal_mode=wal" in "".join(str(options.get("init_command")).lower().split())


def _is_in_wal_mode(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(20)[18:] == WAL_MARK
    except OSError:
        return False


def check_connection_pool() -> Iterator[checks.CheckMessage]:
    """Check that handlers leave connections of a pool to acceptance and to settlements."""
    alias = inbox_alias()
    total, concurrency = (
        max_connections(alias),
        conf.webhooks_keywords().get("concurrency", WorkerSettings().concurrency),
    )
    if total is None:
        return
    if total < 2:
        yield checks.Error(
            f"The connection pool of the inbox's database {alias!r} has a single connection: while a handler holds it, "
            "deliveries cannot be stored.",
            hint=f'Raise DATABASES["{alias}"]["OPTIONS"]["pool"]["max_size"] to {concurrency + RESERVED} or more.',
            id="envoyou.E006",
        )
    elif total < concurrency + RESERVED:
        yield checks.Warning(
            f"The connection pool of the inbox's database {alias!r} has at most {total} connections: no more than "
            f"{max(1, total - RESERVED)} handlers of a process run in a transaction at once, instead of {concurrency}.",
            hint=f'Raise DATABASES["{alias}"]["OPTIONS"]["pool"]["max_size"] to {concurrency + RESERVED} or more '
            f"({concurrency} for CONCURRENCY, {RESERVED} for acceptance and settlements), plus those that your own "
            "requests use at once.",
            id="envoyou.W014",
        )
