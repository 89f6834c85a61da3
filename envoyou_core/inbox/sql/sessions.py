"""The session of a handler's connection to PostgreSQL: what it was before, and whether the handler has changed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Label, event, literal_column, select
from sqlalchemy.exc import DBAPIError, ProgrammingError

from envoyou_core.inbox.sessions import (
    SESSION_STATE,
    describe_changes,
    named_differ,
    named_state,
    note_statement,
    unseen_event,
)
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["STATE", "close_if_changed", "explain_missing", "note_state", "unseen", "usual_state", "was_named"]

STATE: Label[str] = literal_column(SESSION_STATE).label("session_state")

USUAL = "envoyou_session_state"
"""The key under which a pool's connection keeps the state that it had before its first handler."""

USUAL_NAMED = "envoyou_named_state"
"""The same, for the settings that handlers had named by then."""

NAMED = "envoyou_named"
"""The key under which a pool's connection keeps whether a handler's statement may have changed its settings."""


def note_state(connection: Connection) -> None:
    """Read the state of a new connection to PostgreSQL, once, before the transaction of its first handler."""
    if dialect_of(connection) != "postgresql":
        return
    info = connection.info
    if USUAL not in info:
        info[USUAL], info[USUAL_NAMED] = _read(connection)
        # A handler may set the isolation level of its transaction, which must come before any query.
        connection.rollback()
    info[NAMED] = False
    _watch(connection)


def _read(connection: Connection) -> tuple[str, str]:
    named: Label[str] = literal_column(named_state()).label("named_state")
    row = connection.execute(select(STATE, named)).one()
    return row.session_state, row.named_state


def _watch(connection: Connection) -> None:
    """Note the settings that the statements on a connection name."""
    driver_connection: Any = connection.connection.driver_connection
    if (make := getattr(driver_connection, "cursor_factory", None)) is None:
        # For other drivers than psycopg. It costs more.
        event.listen(connection, "before_cursor_execute", _note_executed)
    elif not issubclass(make, _Watching):
        driver_connection.cursor_factory = _watching(make)
        driver_connection.envoyou_info = connection.info


def _note_executed(
    connection: Connection, _cursor: object, statement: str, parameters: object, _context: object, _many: bool
) -> None:
    if note_statement(statement, parameters):
        connection.info[NAMED] = True


class _Watching:
    """A cursor of psycopg, sync or async, that notes what its statements name."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if note_statement(query, params):
            self.connection.envoyou_info[NAMED] = True  # type: ignore[attr-defined]
        return super().execute(query, params, **options)  # type: ignore[misc]


@cache
def _watching(cursor: type) -> type:
    return type(cursor.__name__, (_Watching, cursor), {})


def was_named(connection: Connection) -> bool:
    """Whether a statement on the connection may have changed settings since `note_state`."""
    return connection.info.get(NAMED, False) is True


def usual_state(connection: Connection) -> str | None:
    """Return the state that the connection had before its first handler; `None` if it is not to PostgreSQL."""
    state: str | None = connection.info.get(USUAL)
    return state


def close_if_changed(connection: Connection) -> None:
    """Close the connection instead of returning it to the pool, if its state has changed beyond the transaction."""
    try:
        state, named = _read(connection)
    except DBAPIError:
        # A setting that may not be read, or a connection that is lost.
        connection.invalidate()
        return
    if state != usual_state(connection) or named_differ(connection.info[USUAL_NAMED], named):
        connection.invalidate()


@contextmanager
def explain_missing() -> Iterator[None]:
    """Explain a statement of the inbox that does not find its table or may not use it: the handler is the reason."""
    try:
        yield
    except ProgrammingError as error:
        raise unseen_event(inbox_table.name) from error


def unseen(connection: Connection) -> Exception:
    """Return the error of a handler whose connection does not find an event whose lease is held."""
    before = usual_state(connection)
    after = None if before is None else connection.scalar(select(STATE))
    return unseen_event(inbox_table.name, describe_changes(before, after) if before and after else "")
