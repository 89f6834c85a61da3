"""SQL that stores accepted events, in which the unique key decides which of them are new."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, select

from envoyou_core.inbox import transitions
from envoyou_core.inbox.insert_statement import columns_of, insert_batches, insert_statement, values_of
from envoyou_core.inbox.records import Added, NewEvent
from envoyou_core.inbox.rows import body_bytes
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.engines import dialect_of, wrapped
from envoyou_core.inbox.sql.requeueing import requeue
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["Key", "insert_new", "new_rows", "resolve"]

Key = tuple[str, str]
"""A tenant and an event's id."""

PLACEHOLDERS: Final = {"qmark": "?", "format": "%s", "pyformat": "%s"}
"""The placeholder of a value for each style of parameters that a driver may have."""

_t = inbox_table.c


def new_rows(name: str, entries: Sequence[NewEvent], now: datetime) -> list[dict[str, Any]]:
    """Build the rows to insert: for each key the first of its entries, in the order of the keys.

    Two processes that insert the same events in opposite orders would wait for each other.
    """
    first = {_key(entry): entry for entry in reversed(entries)}
    in_common = {"name": name, **encode(transitions.arrive(now))}
    return [in_common | encode(transitions.describe(first[key])) for key in sorted(first)]


def insert_new(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Key]:
    """Insert the rows whose key does not exist yet; returns the keys of these.

    Args:
        connection: has a transaction.
        rows: encoded values; see `columns_of`.
    """
    if dialect_of(connection) == "sqlite":
        return _insert_one_by_one(connection, rows)
    return _insert_together(connection, rows)


def _insert_one_by_one(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Key]:
    """Insert the rows by a statement for each, which SQLite prepares once.

    It would prepare a statement for many rows again for each number of them, and run it more slowly.
    """
    columns = columns_of(rows)
    statement = insert_statement(inbox_table.name, columns, 1, placeholder="?", returning=False)
    new: set[Key] = set()
    values: tuple[Any, ...] = ()
    cursor = connection.connection.cursor()
    try:
        for row in rows:
            values = values_of(row, columns)
            cursor.execute(statement, values)
            if cursor.rowcount:
                new.add((row["tenant"], row["event_id"]))
    except sqlite3.Error as error:
        raise wrapped(error, statement, values, connection) from error
    finally:
        cursor.close()
    return new


def _insert_together(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Key]:
    """Insert the rows by as few statements as possible, because a server takes longer to answer than to insert."""
    dialect = connection.dialect
    on_mariadb = dialect_of(connection) == "mariadb"
    # Elsewhere the new rows have no token.
    token = uuid.uuid4().hex if on_mariadb else None
    columns = columns_of(rows)
    if on_mariadb:
        rows = [{"lease_token": token, **row} for row in rows]
        columns = ("lease_token", *columns)
    new: set[Key] = set()
    for batch in insert_batches(rows, dialect.insertmanyvalues_max_parameters // len(columns)):
        # SQLAlchemy would compile a statement for each batch, which costs more than to execute it.
        statement = insert_statement(
            inbox_table.name, columns, len(batch), mariadb=on_mariadb, placeholder=PLACEHOLDERS[dialect.paramstyle]
        )
        values = tuple(value for row in batch for value in values_of(row, columns))
        returned = connection.exec_driver_sql(statement, values)
        new.update((tenant, event_id) for tenant, event_id, row_token in returned if row_token == token)
    return new


def resolve(
    connection: Connection, name: str, entries: Sequence[NewEvent], new: set[Key], now: datetime
) -> list[Added]:
    """Determine the result of each entry, and requeue the dead events among those that existed.

    Args:
        connection: has the transaction of the insert.
        name: the name of the inbox.
        entries: the entries in the order of their arrival.
        new: the keys that were inserted.
        now: when a requeued event is due.
    """
    if len(new) == len(entries):
        return [Added.NEW] * len(entries)
    results = []
    remaining = set(new)
    for entry in entries:
        key = _key(entry)
        if key in remaining:
            # Only the first of several deliveries in one batch is the new one.
            remaining.remove(key)
            results.append(Added.NEW)
        else:
            results.append(_resolve_existing(connection, name, entry, now))
    return results


def _resolve_existing(connection: Connection, name: str, entry: NewEvent, now: datetime) -> Added:
    same_key = and_(_t.name == name, _t.tenant == entry.tenant, _t.event_id == entry.event.id)
    if requeue(connection, and_(same_key, _t.status == transitions.REARMABLE.value), now):
        return Added.REARMED
    stored = connection.scalar(select(_t.body).where(same_key, _t.scrubbed_at.is_(None)))
    return transitions.compare_redelivery(entry.event.body, None if stored is None else body_bytes(stored))


def _key(entry: NewEvent) -> Key:
    return entry.tenant, entry.event.id
