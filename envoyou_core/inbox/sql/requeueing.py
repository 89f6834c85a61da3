"""SQL that requeues events in batches, each in a transaction of the caller."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from envoyou_core.inbox import transitions
from envoyou_core.inbox.rows import readable_owed, readable_progress
from envoyou_core.inbox.sql.cleanup import BATCH
from envoyou_core.inbox.sql.columns import encode
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["batches", "count", "requeue"]

_t = inbox_table.c


def batches(connection: Connection, condition: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    """Divide the events that match into batches; returns the condition for each.

    Each event is in one batch only, so that an event that fails again meanwhile is not requeued twice.
    """
    keys = connection.scalars(select(_t.key).where(condition).order_by(_t.key)).all()
    return (condition & _t.key.in_(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))


def requeue(
    connection: Connection, condition: ColumnElement[bool], now: datetime, drop_handlers: Collection[str] = ()
) -> int:
    """Requeue the events that match, except those whose payload was deleted; returns how many there were.

    With `drop_handlers`, only the events that owe one of these are requeued, and do not owe it any more. Rows that
    change in the same way share a statement.
    """
    alike: dict[tuple[object, object], list[int]] = {}
    for row in connection.execute(_matching(condition).order_by(_t.key).with_for_update()):
        alike.setdefault((row.progress, row.owed), []).append(row.key)
    requeued = 0
    for (progress, owed), keys in alike.items():
        changes = transitions.requeue(readable_progress(progress), readable_owed(owed), now, drop_handlers)
        if changes:
            connection.execute(update(inbox_table).where(_t.key.in_(keys)).values(**encode(changes)))
            requeued += len(keys)
    return requeued


def count(connection: Connection, condition: ColumnElement[bool], now: datetime, drop_handlers: Collection[str]) -> int:
    """Return how many events `requeue` would requeue."""
    if not drop_handlers:
        return connection.scalar(select(func.count()).where(condition, _t.scrubbed_at.is_(None))) or 0
    return sum(
        1
        for row in connection.execute(_matching(condition))
        if transitions.requeue(readable_progress(row.progress), readable_owed(row.owed), now, drop_handlers)
    )


def _matching(condition: ColumnElement[bool]) -> Select[Any]:
    return select(_t.key, _t.progress, _t.owed).where(condition, _t.scrubbed_at.is_(None))
