"""The insert that tells new events from duplicates."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections

from envoyou_core.adapter import columns_of, insert_batches, insert_statement
from envoyou_django.models import ProcessedEvent

__all__ = ["insert_new", "supports"]

Key = tuple[str, str]
"""The tenant and the id of an event."""

_NONE_YET = object()


def supports(connection: Any) -> bool:
    """Whether the database supports INSERT ... RETURNING. MySQL does not; Django treats MariaDB as MySQL, too."""
    if connection.vendor == "mysql":
        return bool(connection.mysql_is_mariadb)
    return connection.vendor in {"sqlite", "postgresql"}


def insert_new(rows: Sequence[Mapping[str, Any]], using: str) -> set[Key]:
    """Insert those of `rows` whose key does not exist.

    Args:
        rows: values by the names of the model's fields; all rows of one inbox, with distinct keys; see `columns_of`.
        using: the database's alias, on which a transaction is open.

    Returns:
        The keys of the inserted rows.
    """
    # Some databases also return the rows that existed before, with the token of their own insert.
    token = uuid.uuid4().hex
    new: set[Key] = set()
    max_parameters = connections[using].features.max_query_params
    max_rows = len(rows) if max_parameters is None else max_parameters // (len(columns_of(rows)) + 1)
    for batch in insert_batches(rows, max_rows):
        returned = _insert([{"lease_token": token, **row} for row in batch], using)
        new |= {(tenant, event_id) for tenant, event_id, row_token in returned if row_token == token}
    return new


def _insert(rows: Sequence[Mapping[str, Any]], using: str) -> Sequence[tuple[str, str, str | None]]:
    connection = connections[using]
    options = ProcessedEvent._meta  # noqa: SLF001 - a documented API of Django
    fields = [options.get_field(name) for name in columns_of(rows)]
    columns = tuple(field.column for field in fields)
    statement = insert_statement(
        options.db_table, columns, len(rows), mariadb=connection.vendor == "mysql", placeholder="%s"
    )
    prepared = [_prepared(field, [row.get(field.name) for row in rows], connection) for field in fields]
    parameters = [value for row in zip(*prepared, strict=True) for value in row]
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        returned: Sequence[tuple[str, str, str | None]] = cursor.fetchall()
        return returned


def _prepared(field: Any, values: Sequence[object], connection: Any) -> list[object]:
    """Convert the values of one column for the database."""
    converted: list[object] = []
    latest: object = _NONE_YET
    for value in values:
        # All rows of a commit have most values in common, such as the time.
        if value is not latest:
            latest, for_database = value, field.get_db_prep_save(value, connection)
        converted.append(for_database)
    return converted
