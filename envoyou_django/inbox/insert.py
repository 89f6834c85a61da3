"""The insert that tells new events from duplicates."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connections

from envoyou_django.models import ProcessedEvent

__all__ = ["insert_new", "supports"]

MAX_STATEMENT_SIZE = 1_048_576
"""Bytes of bodies in one statement, unless a single body is larger. By default MariaDB accepts packets of 16 MB."""

Key = tuple[str, str]
"""The tenant and the id of an event."""


def supports(connection: Any) -> bool:
    """Whether the database supports INSERT ... RETURNING. MySQL does not; Django treats MariaDB as MySQL, too."""
    if connection.vendor == "mysql":
        return bool(connection.mysql_is_mariadb)
    return connection.vendor in {"sqlite", "postgresql"}


def insert_new(rows: Sequence[Mapping[str, Any]], using: str) -> set[Key]:
    """Insert those of `rows` whose key does not exist.

    The unique constraint decides, within the statement. All other violations are errors. INSERT IGNORE is not used,
    because it silently changes or skips invalid values.

    Args:
        rows: values by the names of the model's fields; all rows of one inbox, with the same names and distinct keys.
        using: the database's alias, on which a transaction is open.

    Returns:
        The keys of the inserted rows.
    """
    # Some databases also return the rows that existed before, with the token of their own insert.
    token = uuid.uuid4().hex
    new: set[Key] = set()
    for batch in _batches(rows, using):
        returned = _insert([{**row, "lease_token": token} for row in batch], using)
        new |= {(tenant, event_id) for tenant, event_id, row_token in returned if row_token == token}
    return new


def _batches(rows: Sequence[Mapping[str, Any]], using: str) -> Iterator[list[Mapping[str, Any]]]:
    """Split the rows into batches, each of which fits into one statement."""
    max_parameters = connections[using].features.max_query_params
    max_rows = len(rows) if max_parameters is None else max_parameters // (len(rows[0]) + 1)
    batch: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["body"])
        if batch and (len(batch) == max_rows or size > MAX_STATEMENT_SIZE):
            yield batch
            batch, size = [], len(row["body"])
        batch.append(row)
    yield batch


def _insert(rows: Sequence[Mapping[str, Any]], using: str) -> Sequence[tuple[str, str, str | None]]:
    connection = connections[using]
    options = ProcessedEvent._meta  # noqa: SLF001 - a documented API of Django
    fields = [options.get_field(name) for name in rows[0]]
    placeholders = f"({', '.join(['%s'] * len(fields))})"
    statement = " ".join(
        [
            f"INSERT INTO {_quote(connection, options.db_table)}",
            f"({_quote(connection, *(field.column for field in fields))})",
            f"VALUES {', '.join([placeholders] * len(rows))}",
            _conflict_clause(connection),
            f"RETURNING {_quote(connection, 'tenant', 'event_id', 'lease_token')}",
        ]
    )
    parameters = [field.get_db_prep_save(row[field.name], connection) for row in rows for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        returned: Sequence[tuple[str, str, str | None]] = cursor.fetchall()
        return returned


def _conflict_clause(connection: Any) -> str:
    if connection.vendor == "mysql":
        column = _quote(connection, "event_id")
        return f"ON DUPLICATE KEY UPDATE {column} = {column}"
    return f"ON CONFLICT ({_quote(connection, 'name', 'event_id', 'tenant')}) DO NOTHING"


def _quote(connection: Any, *names: str) -> str:
    return ", ".join(connection.ops.quote_name(name) for name in names)
