"""Lets an operator and a health probe inspect the inbox's database: a write that is rolled back, and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import connections, transaction

from envoyou_django.inbox.commits import committed
from envoyou_django.inbox.connection import is_in_memory
from envoyou_django.inbox.insert import insert_new

__all__ = ["database_file", "dialect", "read_row", "try_insert"]


def dialect(alias: str) -> str:
    """Return the kind of a database: `sqlite`, `postgresql` or `mariadb`."""
    vendor: str = connections[alias].vendor
    return "mariadb" if vendor == "mysql" else vendor


def database_file(alias: str) -> Path | None:
    """Return the SQLite file; `None` for a server, or a database in memory."""
    if dialect(alias) != "sqlite" or is_in_memory(alias):
        return None
    return Path(connections[alias].settings_dict["NAME"]).absolute()


def read_row(alias: str, statement: str) -> tuple[object, ...]:
    """Return the first row of a query; empty if there is none."""
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchone() or ())


def try_insert(alias: str, row: Mapping[str, Any]) -> None:
    """Insert a row as an acceptance does, and roll it back."""
    with committed(alias):
        insert_new([dict(row)], alias)
        transaction.set_rollback(True, using=alias)
