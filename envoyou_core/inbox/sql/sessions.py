"""The session of a handler's connection to PostgreSQL: what it was before, and whether the handler has changed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Label, literal_column, select
from sqlalchemy.exc import ProgrammingError

from envoyou_core.inbox.sessions import SESSION_STATE, describe_changes, unseen_event
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["STATE", "close_if_changed", "explain_missing", "note_state", "unseen", "usual_state"]

STATE: Label[str] = literal_column(SESSION_STATE).label("session_state")

USUAL = "envoyou_session_state"
"""The key under which a pool's connection keeps the state that it had before its first handler."""


def note_state(connection: Connection) -> None:
    """Read the state of a new connection to PostgreSQL, once, before the transaction of its first handler."""
    if dialect_of(connection) == "postgresql" and USUAL not in connection.info:
        connection.info[USUAL] = connection.scalar(select(STATE))
        # A handler may set the isolation level of its transaction, which must come before any query.
        connection.rollback()


def usual_state(connection: Connection) -> str | None:
    """Return the state that the connection had before its first handler; `None` if it is not to PostgreSQL."""
    state: str | None = connection.info.get(USUAL)
    return state


def close_if_changed(connection: Connection) -> None:
    """Close the connection instead of returning it to the pool, if its state has changed beyond the transaction."""
    state = connection.scalar(select(STATE))
    if state != usual_state(connection):
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
