"""SQL that reads events: records, counts, the next due time and the newest applied event."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from envoyou_core.event import object_key
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.records import COUNTED_IN_PART, MAX_AWAITED, InboxRecord, Status
from envoyou_core.inbox.rows import moment, record_of
from envoyou_core.inbox.sql.claims import IS_WAITING, matches_type, waiting_for
from envoyou_core.inbox.sql.cleanup import HAD_EFFECT
from envoyou_core.inbox.sql.schema import inbox_table, watermarks_table
from envoyou_core.patterns import check_selection

__all__ = [
    "count",
    "count_by_status",
    "count_waiting",
    "has_waiting",
    "matching",
    "newest_applied",
    "next_due_at",
    "records",
    "requeuable",
]

MAX_NUMBER = 2**63 - 1
"""The largest number in a column. SQLite may hold text instead of a number, which is greater than every number."""

_t = inbox_table.c
_NEXT_DUE_AT = select(func.min(_t.due_at)).where(
    _t.name == bindparam("name"), _t.due_at.is_not(None), _t.due_at <= MAX_NUMBER
)
_NEXT_DUE_AT_AFTER = _NEXT_DUE_AT.where(_t.due_at > bindparam("after"))


def matching(
    name: str,
    *,
    statuses: frozenset[Status] | None = None,
    event_id: str | None = None,
    type: str | None = None,
    tenant: str | None = None,
    object_id: str | None = None,
) -> ColumnElement[bool]:
    """Build the condition for the events of an inbox that have all the given values, and a type of the pattern `type`.

    Raises:
        ValueError: the pattern is invalid.
    """
    check_selection(type)
    conditions = [_t.name == name]
    if statuses is not None:
        conditions.append(_t.status.in_(sorted(statuses)))
    key = None if object_id is None else object_key(object_id)
    if type is not None:
        conditions.append(matches_type(_t.type, (type,)))
    for column, value in ((_t.event_id, event_id), (_t.tenant, tenant), (_t.object_key, key)):
        if value is not None:
            conditions.append(column == value)
    return and_(*conditions)


def requeuable(statuses: frozenset[Status], *, with_waiting: bool) -> ColumnElement[bool]:
    """Build the condition for the events that `requeue` changes.

    Args:
        statuses: the statuses that are requeued.
        with_waiting: whether events that wait for a handler are, in any status.
    """
    has_status = _t.status.in_(sorted(statuses))
    return or_(has_status, IS_WAITING) if with_waiting else has_status


def records(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[InboxRecord]:
    """Read up to `limit` records, newest first."""
    rows = connection.execute(select(inbox_table).where(condition).order_by(_t.key.desc()).limit(limit)).all()
    return [record_of(row, moment=moment) for row in rows]


def count(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Count the events that match."""
    return connection.scalar(select(func.count()).select_from(inbox_table).where(condition)) or 0


def count_by_status(connection: Connection, name: str, limit: int | None) -> dict[str, int]:
    """Count the events in each status; the statuses of `COUNTED_IN_PART` are counted up to `limit`."""
    limited = () if limit is None else COUNTED_IN_PART
    unlimited = [status.value for status in Status if status not in limited]
    by_status = select(_t.status, func.count().label("number")).where(_t.name == name, _t.status.in_(unlimited))
    counts = {row.status: row.number for row in connection.execute(by_status.group_by(_t.status))}
    for status in limited:
        # In the order of the index, because a scan of the table may pass millions of rows of another status first.
        in_index_order = select(_t.settled_at).where(_t.name == name, _t.status == status.value).order_by(_t.settled_at)
        first = in_index_order.limit(limit).subquery()
        counts[status.value] = connection.scalar(select(func.count()).select_from(first)) or 0
    return counts


def count_waiting(connection: Connection, name: str) -> dict[str, int]:
    """Count the events that wait for a handler, by the handler."""
    waiting = select(_t.waits_for, func.count().label("number")).where(_t.name == name, IS_WAITING)
    rows = connection.execute(waiting.group_by(_t.waits_for).order_by(_t.waits_for).limit(MAX_AWAITED))
    return {row.waits_for: row.number for row in rows}


def has_waiting(connection: Connection, name: str, handlers: HandlerSet | None) -> bool:
    """Whether an event waits for one of these handlers, or for any."""
    return connection.scalar(_first_waiting(name, handlers)) is not None


# Cached, because a worker asks every second.
@lru_cache(maxsize=64)
def _first_waiting(name: str, handlers: HandlerSet | None) -> Select[tuple[int]]:
    waiting = and_(_t.name == name, IS_WAITING) if handlers is None else waiting_for(name, handlers)
    return select(_t.key).where(waiting).limit(1)


def next_due_at(connection: Connection, name: str, *, after: int | None = None) -> int | None:
    """Read when the next event is due, in microseconds; of those that are due after a moment, if it is given."""
    due_at: int | None = (
        connection.scalar(_NEXT_DUE_AT, {"name": name})
        if after is None
        else connection.scalar(_NEXT_DUE_AT_AFTER, {"name": name, "after": after})
    )
    return due_at


def newest_applied(connection: Connection, name: str, tenant: str, object_id: str) -> int | None:
    """Read when the newest event about an object that had an effect was created, pruned or not.

    Events of an older release count only after `cleanup.fill_object_keys`, which the retention of every worker runs.
    """
    events = select(func.max(_t.created)).where(
        _t.name == name,
        _t.object_key == object_id,
        _t.tenant == tenant,
        _t.created <= MAX_NUMBER,
        HAD_EFFECT,
    )
    w = watermarks_table.c
    pruned = select(w.created).where(w.name == name, w.object_key == object_id, w.tenant == tenant)
    # In this order: an event that is pruned meanwhile is seen as one or the other.
    times = (connection.scalar(events), connection.scalar(pruned))
    return max((created for created in times if created is not None), default=None)
