"""SQL for what is looked up, deleted or forgotten in batches, each in a transaction that is given.

Batches are small, so that acceptance never waits long behind one.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from envoyou_core.inbox.history import decode_history, encode_history, without_failures
from envoyou_core.inbox.records import FINISHED, Status
from envoyou_core.inbox.rows import event_of, object_key_in
from envoyou_core.inbox.scrubbing import scrubbed_body
from envoyou_core.inbox.sql.schema import inbox_table, watermarks_table

__all__ = ["BATCH", "HAD_AN_EFFECT", "erase", "look_up_objects", "prune", "scrub"]

BATCH = 500
"""Rows."""

_t = inbox_table.c

HAD_AN_EFFECT = or_(_t.status == Status.PROCESSED.value, _t.applied == 1)
"""A program of the earlier release does not tell by `applied`."""

_IS_KEY = _t.key == bindparam("its_key")
_SET_OBJECT = update(inbox_table).where(_IS_KEY, _t.object_key.is_(None)).values(object_key=bindparam("its_object"))
_SCRUB = (
    update(inbox_table)
    .where(_IS_KEY)
    .values(
        body=bindparam("left_body"),
        history=bindparam("left_history"),
        last_error=None,
        scrubbed_at=bindparam("now"),
        to_erase=None,
    )
)


def look_up_objects(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Note for a batch of events, which a program of the earlier release stored, what they are about."""
    unknown = select(_t.key, _t.body).where(_t.object_key.is_(None), condition).limit(BATCH)
    found = [{"its_key": row.key, "its_object": object_key_in(row.body)} for row in connection.execute(unknown)]
    if found:
        connection.execute(_SET_OBJECT, found)
    return len(found)


def scrub(connection: Connection, condition: ColumnElement[bool], at: int) -> int:
    """Delete the payloads of a batch of events, and what errors said; `at` is in microseconds."""
    columns = (_t.key, _t.event_id, _t.type, _t.created, _t.webhook_id, _t.body, _t.history)
    wanted = select(*columns).where(condition, _t.scrubbed_at.is_(None)).limit(BATCH)
    found = [
        {
            "its_key": row.key,
            "left_body": scrubbed_body(event_of(row)[0]),
            "left_history": encode_history(without_failures(decode_history(row.history))),
            "now": at,
        }
        for row in connection.execute(wanted.with_for_update())
    ]
    if found:
        connection.execute(_SCRUB, found)
    return len(found)


def erase(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Mark the events whose payloads are to go; those that are finished are to be scrubbed next."""
    # Whether they are finished is asked afterwards: one that is being settled now is waited for here.
    unmarked = and_(condition, _t.scrubbed_at.is_(None), _t.to_erase.is_(None))
    return connection.execute(update(inbox_table).where(unmarked).values(to_erase=1)).rowcount


IS_ERASABLE = and_(_t.to_erase == 1, _t.status.in_(sorted(FINISHED)))


def prune(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Delete a batch of events, and keep of each object how new the newest was that had an effect."""
    columns = (_t.key, _t.name, _t.tenant, _t.object_key, _t.created, case((HAD_AN_EFFECT, 1), else_=0).label("counts"))
    rows = connection.execute(select(*columns).where(condition).limit(BATCH).with_for_update()).all()
    newest: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row.counts and row.object_key and isinstance(row.created, int):
            marked = (row.name, row.tenant, row.object_key)
            newest[marked] = max(row.created, newest.get(marked, row.created))
    if newest:
        _mark(connection, newest)
    if rows:
        connection.execute(delete(inbox_table).where(_t.key.in_([row.key for row in rows])))
    return len(rows)


def _mark(connection: Connection, newest: dict[tuple[str, str, str], int]) -> None:
    # In one order: two that prune at once would wait for each other.
    rows = [
        {"name": name, "tenant": tenant, "object_key": object_key, "created": created}
        for (name, tenant, object_key), created in sorted(newest.items())
    ]
    m = watermarks_table.c
    if connection.dialect.name in {"mariadb", "mysql"}:
        upsert = mysql.insert(watermarks_table)
        statement = upsert.on_duplicate_key_update(created=func.greatest(m.created, upsert.inserted.created))
        connection.execute(statement, rows)
        return
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(watermarks_table)
    greater = case((insert.excluded.created > m.created, insert.excluded.created), else_=m.created)
    unless_greater = insert.on_conflict_do_update(
        index_elements=[m.name, m.tenant, m.object_key], set_={"created": greater}
    )
    connection.execute(unless_greater, rows)
