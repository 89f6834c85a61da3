"""SQL that requeues events."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select, update

from envoyou_core.inbox import transitions
from envoyou_core.inbox.rows import readable_owed, readable_progress
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["requeue"]

_t = inbox_table.c


def requeue(
    connection: Connection, condition: ColumnElement[bool], now: datetime, drop_handlers: Collection[str] = ()
) -> int:
    """Requeue the events that match, except those whose payload was deleted; returns how many there were.

    With `drop_handlers`, only the events that owe one of these are requeued, and do not owe it any more.
    """
    matching = select(_t.key, _t.progress, _t.owed).where(condition, _t.scrubbed_at.is_(None))
    rows = connection.execute(matching.with_for_update()).all()
    requeued = 0
    for row in rows:
        changes = transitions.requeue(readable_progress(row.progress), readable_owed(row.owed), now, drop_handlers)
        if changes:
            connection.execute(update(inbox_table).where(_t.key == row.key).values(**encode(changes)))
            requeued += 1
    return requeued
