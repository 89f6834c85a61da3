"""SQL that keeps, reads and deletes rejected deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery, keep, rejected_of, surplus
from envoyou_core.inbox.rows import instant, moment
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import rejected_table

__all__ = ["count", "delete_matching", "keep_all", "matching", "newest"]

_r = rejected_table.c


def keep_all(connection: Connection, name: str, rejections: Sequence[NewRejection]) -> int:
    """Keep the deliveries whose body is not kept yet, and delete the oldest if there are too many.

    Returns:
        The number of deleted deliveries.
    """
    for rejection in rejections:
        _insert(connection, {"name": name, **_encode(keep(rejection))})
    sizes = connection.execute(select(_r.key, _r.size).where(_r.name == name).order_by(_r.key.desc()))
    excess = surplus((row.key, row.size) for row in sizes)
    return delete_matching(connection, _r.key.in_(excess)) if excess else 0


def matching(
    name: str, *, key: int | None = None, object_id: str | None = None, tenant: str | None = None
) -> ColumnElement[bool]:
    """Build the condition for the rejected deliveries of an inbox that have all the given values.

    Args:
        name: the name of the inbox.
        key: the primary key.
        object_id: the object's id as the column holds it; see `object_key`.
        tenant: the tenant.
    """
    conditions = [_r.name == name]
    for column, value in ((_r.key, key), (_r.object_key, object_id), (_r.tenant, tenant)):
        if value is not None:
            conditions.append(column == value)
    return and_(*conditions)


def newest(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[RejectedDelivery]:
    """Read up to `limit` rejected deliveries, newest first."""
    rows = connection.execute(select(rejected_table).where(condition).order_by(_r.key.desc()).limit(limit))
    return [rejected_of(row, key=row.key, moment=moment) for row in rows]


def count(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Count the matching deliveries."""
    return connection.scalar(select(func.count()).select_from(rejected_table).where(condition)) or 0


def delete_matching(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Delete the matching deliveries; returns how many."""
    return connection.execute(delete(rejected_table).where(condition)).rowcount


def _insert(connection: Connection, row: dict[str, Any]) -> None:
    dialect = dialect_of(connection)
    if dialect == "mariadb":
        connection.execute(mysql.insert(rejected_table).on_duplicate_key_update(key=_r.key), row)
        return
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(rejected_table)
    connection.execute(insert.on_conflict_do_nothing(index_elements=[_r.name, _r.tenant, _r.digest]), row)


def _encode(columns: dict[str, Any]) -> dict[str, Any]:
    return {**columns, "received_at": instant(columns["received_at"])}
