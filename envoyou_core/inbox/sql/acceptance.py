"""SQL that stores accepted events, in which the unique key decides which of them are new."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from envoyou_core.inbox import transitions
from envoyou_core.inbox.records import Added, NewEvent
from envoyou_core.inbox.rows import body_bytes
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.requeueing import requeue
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["Key", "insert_new", "new_rows", "resolve"]

Key = tuple[str, str]
"""A tenant and an event's id."""

_t = inbox_table.c


def new_rows(name: str, entries: Sequence[NewEvent], now: datetime) -> list[dict[str, Any]]:
    """Build the rows to insert: for each key the first of its entries, in the order of the keys.

    Two processes that insert the same events in opposite orders would wait for each other.
    """
    first = {_key(entry): entry for entry in reversed(entries)}
    return [{"name": name, **encode(transitions.accept(first[key], now))} for key in sorted(first)]


def insert_new(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[Key]:
    """Insert the rows whose key does not exist yet; returns the keys of these."""
    dialect = dialect_of(connection)
    if dialect == "mariadb":
        # The statement also returns the rows that existed, which do not have this token. INSERT IGNORE is not an
        # option, because it changes invalid values instead of rejecting them.
        token = uuid.uuid4().hex
        upsert = mysql.insert(inbox_table)
        statement = upsert.on_duplicate_key_update(key=_t.key).returning(_t.tenant, _t.event_id, _t.lease_token)
        returned = connection.execute(statement, [{**row, "lease_token": token} for row in rows])
        return {(row.tenant, row.event_id) for row in returned if row.lease_token == token}
    # SQLite and PostgreSQL have the same ON CONFLICT.
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(inbox_table)
    unless_exists = insert.on_conflict_do_nothing(index_elements=[_t.name, _t.event_id, _t.tenant])
    inserted = connection.execute(unless_exists.returning(_t.tenant, _t.event_id), rows)
    return {(row.tenant, row.event_id) for row in inserted}


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
