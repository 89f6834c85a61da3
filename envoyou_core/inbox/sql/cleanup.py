"""SQL that deletes events, payloads and watermarks in batches, each in a transaction of the caller.

The batches are small, so that acceptance never waits long for one.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from envoyou_core.inbox import transitions
from envoyou_core.inbox.history import decode_history
from envoyou_core.inbox.records import FINISHED, Status
from envoyou_core.inbox.rows import event_of, object_key_in
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import inbox_table, watermarks_table

__all__ = [
    "BATCH",
    "HAD_EFFECT",
    "IS_ERASABLE",
    "fill_object_keys",
    "prune",
    "prune_watermarks",
    "request_erasure",
    "scrub",
]

BATCH = 500
"""The number of rows in one batch."""

_t = inbox_table.c

HAD_EFFECT = or_(_t.status == Status.PROCESSED.value, _t.applied == 1)
"""The condition of `transitions.had_effect`. Older releases left `applied` NULL."""

IS_ERASABLE = and_(_t.to_erase == 1, _t.status.in_(sorted(FINISHED)))
"""The condition of events that were to be erased and are finished."""

_IS_ROW = _t.key == bindparam("row_key")
_SET_OBJECT = update(inbox_table).where(_IS_ROW, _t.object_key.is_(None)).values(object_key=bindparam("new_object_key"))
_SCRUBBED = ("body", "last_error", "history", "headers", "scrubbed_at")
_SCRUB = (
    update(inbox_table)
    .where(_IS_ROW)
    .values({column: bindparam(f"new_{column}") for column in _SCRUBBED} | {"to_erase": None})
)


def fill_object_keys(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Fill in the object of a batch of events that an older release stored; returns the size of the batch."""
    unknown = select(_t.key, _t.body).where(_t.object_key.is_(None), condition).limit(BATCH)
    batch = [{"row_key": row.key, "new_object_key": object_key_in(row.body)} for row in connection.execute(unknown)]
    if batch:
        connection.execute(_SET_OBJECT, batch)
    return len(batch)


def scrub(connection: Connection, condition: ColumnElement[bool], now: datetime) -> int:
    """Delete the payloads and error texts of a batch of events; returns the size of the batch.

    The object of each event must be known already; see `fill_object_keys`.
    """
    columns = (_t.key, _t.event_id, _t.type, _t.created, _t.webhook_id, _t.body, _t.history)
    unscrubbed = select(*columns).where(condition, _t.scrubbed_at.is_(None)).limit(BATCH)
    batch = []
    for row in connection.execute(unscrubbed.with_for_update()):
        changes = encode(transitions.scrub(event_of(row)[0], decode_history(row.history), now))
        batch.append({"row_key": row.key, **{f"new_{column}": changes[column] for column in _SCRUBBED}})
    if batch:
        connection.execute(_SCRUB, batch)
    return len(batch)


def request_erasure(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Mark events whose payload is to be deleted; returns how many were not marked yet.

    The finished ones must be scrubbed afterwards, by `IS_ERASABLE`. This statement waits for an event that is being
    settled, so its status must be read after it.
    """
    unmarked = and_(condition, _t.scrubbed_at.is_(None), _t.to_erase.is_(None))
    return connection.execute(update(inbox_table).where(unmarked).values(to_erase=1)).rowcount


def prune(connection: Connection, name: str, condition: ColumnElement[bool]) -> int:
    """Delete a batch of events of an inbox and store the watermarks of their objects; returns the size of the batch."""
    columns = (_t.key, _t.tenant, _t.object_key, _t.created, case((HAD_EFFECT, 1), else_=0).label("had_effect"))
    rows = connection.execute(select(*columns).where(condition).limit(BATCH).with_for_update()).all()
    applied = [(row.tenant, row.object_key, row.created) for row in rows if row.had_effect]
    _raise_watermarks(connection, name, transitions.watermarks(applied))
    if rows:
        connection.execute(delete(inbox_table).where(_t.key.in_([row.key for row in rows])))
    return len(rows)


def _raise_watermarks(connection: Connection, name: str, watermarks: dict[tuple[str, str], int]) -> None:
    if not watermarks:
        return
    rows = [
        {"name": name, "tenant": tenant, "object_key": object_key, "created": created}
        for (tenant, object_key), created in watermarks.items()
    ]
    w = watermarks_table.c
    dialect = dialect_of(connection)
    if dialect == "mariadb":
        upsert = mysql.insert(watermarks_table)
        connection.execute(
            upsert.on_duplicate_key_update(created=func.greatest(w.created, upsert.inserted.created)), rows
        )
        return
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(watermarks_table)
    greater = case((insert.excluded.created > w.created, insert.excluded.created), else_=w.created)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[w.name, w.tenant, w.object_key], set_={"created": greater}), rows
    )


def prune_watermarks(connection: Connection, name: str, before: float, *, dry_run: bool = False) -> int:
    """Delete the watermarks of events that were created before an epoch time, or only count them; returns how many."""
    w = watermarks_table.c
    old = and_(w.name == name, w.created < before)
    if dry_run:
        return connection.scalar(select(func.count()).select_from(watermarks_table).where(old)) or 0
    return connection.execute(delete(watermarks_table).where(old)).rowcount
