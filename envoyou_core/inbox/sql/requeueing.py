"""SQL that requeues events in batches, each in a transaction of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select, update

from envoyou_core.inbox import transitions
from envoyou_core.inbox.rows import readable_owed, readable_progress
from envoyou_core.inbox.sql.cleanup import BATCH
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["batches", "requeue"]

_t = inbox_table.c


def batches(connection: Connection, condition: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    """Divide the events that match into batches; returns the condition for each.

    Each event is in one batch only, so that an event that fails again meanwhile is not requeued twice.
    """
    keys = connection.scalars(select(_t.key).where(condition).order_by(_t.key)).all()
    return (condition & _t.key.in_(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))


def requeue(connection: Connection, condition: ColumnElement[bool], now: datetime) -> int:
    """Requeue the events that match, except those whose payload was deleted; returns how many there were.

    Rows that change in the same way share a statement.
    """
    matching = select(_t.key, _t.progress, _t.owed).where(condition, _t.scrubbed_at.is_(None)).order_by(_t.key)
    alike: dict[tuple[object, object], list[int]] = {}
    for row in connection.execute(matching.with_for_update()):
        alike.setdefault((row.progress, row.owed), []).append(row.key)
    for (progress, owed), keys in alike.items():
        changes = transitions.requeue(readable_progress(progress), readable_owed(owed), now)
        connection.execute(update(inbox_table).where(_t.key.in_(keys)).values(**encode(changes)))
    return sum(map(len, alike.values()))
