"""SQL that lists processes and stores their handler sets."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, exists, func, or_, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.lease_tokens import HOLDER_LENGTH
from envoyou_core.inbox.processes import KEPT_FOR, SETS_KEPT_FOR, Process, ProcessKind, ProcessRegistration
from envoyou_core.inbox.rows import instant, moment
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import handler_sets_table, inbox_table, processes_table

__all__ = ["prune_processes", "read_processes", "read_sets", "write"]

_t = inbox_table.c
_s = handler_sets_table.c
_p = processes_table.c


def write(connection: Connection, name: str, registration: ProcessRegistration) -> None:
    """Store handler sets, and list processes as seen.

    The sets come first, and both in the order of their ids. Two transactions that write them in opposite orders could
    deadlock.
    """
    if not registration:
        return
    seen_at = instant(registration.at)
    _upsert(
        connection,
        handler_sets_table,
        [
            {"name": name, "id": handlers.id, "handlers": handlers.encode(), "seen_at": seen_at}
            for handlers in sorted(registration.sets, key=lambda handlers: handlers.id)
        ],
    )
    _upsert(
        connection,
        processes_table,
        [_row(name, process, seen_at) for process in sorted(registration.processes, key=lambda process: process.id)],
    )


def _row(name: str, process: Process, seen_at: int) -> dict[str, Any]:
    values = asdict(process)
    del values["handlers"]
    return values | {
        "name": name,
        "kind": process.kind.value,
        "handler_set": process.handlers.id,
        "started_at": instant(process.started_at),
        "seen_at": seen_at,
    }


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    dialect = dialect_of(connection)
    changing = [column for column in ("kind", "handler_set", "seen_at") if column in table.c]
    if dialect == "mariadb":
        upsert = mysql.insert(table)
        connection.execute(upsert.on_duplicate_key_update({name: upsert.inserted[name] for name in changing}), rows)
        return
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    new = {name: insert.excluded[name] for name in changing}
    connection.execute(insert.on_conflict_do_update(index_elements=[table.c.name, table.c.id], set_=new), rows)


def read_sets(connection: Connection, name: str, ids: Collection[str]) -> dict[str, HandlerSet]:
    """Read handler sets by their ids. One that is not stored, or cannot be read, is left out."""
    found: dict[str, HandlerSet] = {}
    for row in connection.execute(select(_s.id, _s.handlers).where(_s.name == name, _s.id.in_(sorted(ids)))):
        with suppress(ValueError):
            found[row.id] = HandlerSet.decode(row.handlers)
    return found


def read_processes(connection: Connection, name: str, holders: Collection[str] | None = None) -> list[Process]:
    """Read the processes, the last seen first; only those with one of the `holders` in their lease tokens, if given."""
    in_order = select(processes_table).where(_p.name == name).order_by(_p.seen_at.desc(), _p.id)
    if holders is not None:
        in_order = in_order.where(func.substr(_p.id, 1, HOLDER_LENGTH).in_(sorted(holders)))
    rows = connection.execute(in_order).all()
    sets = read_sets(connection, name, {row.handler_set for row in rows})
    return [_process(row, sets) for row in rows if row.kind in set(ProcessKind) and row.handler_set in sets]


def _process(row: Any, sets: dict[str, HandlerSet]) -> Process:
    return Process(
        id=row.id,
        kind=ProcessKind(row.kind),
        handlers=sets[row.handler_set],
        host=row.host,
        pid=row.pid,
        version=row.version,
        started_at=moment(row.started_at),
        seen_at=moment(row.seen_at),
        boot_id=row.boot_id,
        pid_namespace=row.pid_namespace,
        pid_started=row.pid_started,
    )


def prune_processes(connection: Connection, name: str, now: datetime) -> int:
    """Delete processes that were last seen long ago, and handler sets that nothing refers to; returns the processes."""
    is_gone = and_(_p.name == name, _p.seen_at < instant(now - KEPT_FOR))
    pruned = connection.execute(delete(processes_table).where(is_gone)).rowcount
    by_process = exists().where(_p.name == name, _p.handler_set == _s.id)
    # Finished events do not need their sets: those that may be requeued have stored what they owe.
    by_event = exists().where(
        _t.name == name, _t.due_at.is_not(None), or_(_t.accepted_set == _s.id, _t.claimed_set == _s.id)
    )
    is_unused = and_(_s.name == name, _s.seen_at < instant(now - SETS_KEPT_FOR), ~by_process, ~by_event)
    connection.execute(delete(handler_sets_table).where(is_unused))
    return pruned
