"""The insert that decides what is new and what is a duplicate."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connections

from envoyou_django.models import ProcessedEvent

__all__ = ["insert_new", "supports"]

LARGEST_STATEMENT = 1_048_576
"""Bytes of bodies in one statement, unless one alone is larger: MariaDB takes 16 MB at a time as it is set up."""

Key = tuple[str, str]
"""A tenant and an event's id."""


def supports(connection: Any) -> bool:
    """Whether the database has INSERT ... RETURNING; MySQL, which Django takes for MariaDB's kind, has not."""
    if connection.vendor == "mysql":
        return bool(connection.mysql_is_mariadb)
    return connection.vendor in {"sqlite", "postgresql"}


def insert_new(rows: Sequence[Mapping[str, Any]], using: str) -> set[Key]:
    """Insert those of `rows`, of one inbox, whose key is not there yet.

    The unique key decides, within the statement. What a database refuses for another reason is an error: never INSERT
    IGNORE, which mends values silently, or leaves them out.

    Args:
        rows: values by the names of the model's fields, the same names in each; no key comes twice.
        using: the database's alias; a transaction is open on it.

    Returns:
        Which of them were inserted.
    """
    # Of those that were there as well, some databases return the token of whoever inserted them.
    token = uuid.uuid4().hex
    new: set[Key] = set()
    for some in _statements(rows, using):
        returned = _insert([{**row, "lease_token": token} for row in some], using)
        new |= {(tenant, event_id) for tenant, event_id, its_token in returned if its_token == token}
    return new


def _statements(rows: Sequence[Mapping[str, Any]], using: str) -> Iterator[list[Mapping[str, Any]]]:
    """The rows, so many at a time as one statement can hold."""
    parameters = connections[using].features.max_query_params
    most = len(rows) if parameters is None else parameters // (len(rows[0]) + 1)
    some: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["body"])
        if some and (len(some) == most or size > LARGEST_STATEMENT):
            yield some
            some, size = [], len(row["body"])
        some.append(row)
    yield some


def _insert(rows: Sequence[Mapping[str, Any]], using: str) -> Sequence[tuple[str, str, str | None]]:
    connection = connections[using]
    options = ProcessedEvent._meta  # noqa: SLF001 - public, as Django documents it
    fields = [options.get_field(name) for name in rows[0]]
    placeholders = f"({', '.join(['%s'] * len(fields))})"
    statement = " ".join(
        [
            f"INSERT INTO {_names(connection, options.db_table)}",
            f"({_names(connection, *(field.column for field in fields))})",
            f"VALUES {', '.join([placeholders] * len(rows))}",
            _unless_there(connection),
            f"RETURNING {_names(connection, 'tenant', 'event_id', 'lease_token')}",
        ]
    )
    parameters = [field.get_db_prep_save(row[field.name], connection) for row in rows for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        found: Sequence[tuple[str, str, str | None]] = cursor.fetchall()
        return found


def _unless_there(connection: Any) -> str:
    if connection.vendor == "mysql":
        there = _names(connection, "event_id")
        return f"ON DUPLICATE KEY UPDATE {there} = {there}"
    return f"ON CONFLICT ({_names(connection, 'name', 'event_id', 'tenant')}) DO NOTHING"


def _names(connection: Any, *names: str) -> str:
    return ", ".join(connection.ops.quote_name(name) for name in names)
