"""The insert that tells new events from those that exist: one statement for many rows, with the same text each time.

The unique key decides, within the statement. All other violations are errors. INSERT IGNORE is not used, because it
silently changes or skips invalid values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from envoyou_core.inbox.group_commit import MAX_BATCH

__all__ = ["columns_of", "insert_batches", "insert_statement", "values_of"]

MAX_STATEMENT_SIZE: Final = 1_048_576
"""Bytes of bodies in one statement, unless a single body is larger. By default MariaDB accepts packets of 16 MB."""

_KEY: Final = ("name", "event_id", "tenant")
_RETURNED: Final = ("tenant", "event_id", "lease_token")


def insert_batches(rows: Sequence[Mapping[str, Any]], max_rows: int) -> Iterator[list[Mapping[str, Any]]]:
    """Split rows into batches, each of which fits into one statement.

    Args:
        rows: have a `body`.
        max_rows: the largest number of rows in one statement.
    """
    batch: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(row["body"])
        if batch and (len(batch) == max_rows or size > MAX_STATEMENT_SIZE):
            yield batch
            batch, size = [], len(row["body"])
        batch.append(row)
    yield batch


def columns_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns that at least one of the rows has; the others have NULL there.

    A column that few events need would make each insert slower.

    Args:
        rows: differ in `traceparent` only, which is the last of their columns.
    """
    longest: Mapping[str, Any] = max(rows, key=len)
    return tuple(longest)


def values_of(row: Mapping[str, Any], columns: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the values of a row for `columns`, which begin with the columns of the row."""
    # Faster than a look-up for each column.
    values = tuple(row.values())
    return values if len(values) == len(columns) else values + (None,) * (len(columns) - len(values))


@lru_cache(2 * MAX_BATCH)
def insert_statement(
    table: str,
    columns: tuple[str, ...],
    count: int,
    *,
    placeholder: str,
    mariadb: bool = False,
    returning: bool = True,
) -> str:
    """Write the statement. It returns the tenant, the event's id and the lease token of the inserted rows.

    On MariaDB it also returns the rows that existed, with their own tokens. So new rows need a token of this insert.

    Args:
        table: the name of the table.
        columns: those that have values; names that are safe in a statement.
        count: the number of rows.
        placeholder: of a value.
        mariadb: whether it is for MariaDB, rather than for SQLite or PostgreSQL.
        returning: whether it returns something.
    """
    quote = "`" if mariadb else '"'

    def quoted(names: tuple[str, ...]) -> str:
        return ", ".join(f"{quote}{name}{quote}" for name in names)

    row = f"({', '.join([placeholder] * len(columns))})"
    conflict = (
        "ON DUPLICATE KEY UPDATE `event_id` = `event_id`" if mariadb else f"ON CONFLICT ({quoted(_KEY)}) DO NOTHING"
    )
    return (
        f"INSERT INTO {quoted((table,))} ({quoted(columns)}) VALUES {', '.join([row] * count)} {conflict}"  # noqa: S608
        f"{f' RETURNING {quoted(_RETURNED)}' if returning else ''}"
    )
