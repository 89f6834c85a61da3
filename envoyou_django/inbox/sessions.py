"""The session of a thread's connection to PostgreSQL: whether a handler has changed it, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, ProgrammingError, connections

from envoyou_core.adapter import SESSION_STATE, describe_changes, unseen_event
from envoyou_core.errors import SessionStateError
from envoyou_django.inbox.connection import query_elsewhere

__all__ = ["explain_missing", "may_be_changed", "renew_changed", "replace_connection", "unseen"]

QUERY = f"SELECT {SESSION_STATE}"

_usual: dict[str, str] = {}
"""For each alias, the state of a connection before its first handler."""


def renew_changed(alias: str) -> None:
    """Replace the thread's connection if an earlier handler has changed its session, or the server has closed it.

    One query finds both. On other databases than PostgreSQL only a closed connection is found.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql":
        if connection.connection is not None and not connection.is_usable():
            connection.close()
        return
    is_new = connection.connection is None
    state = _state(connection)
    if alias not in _usual:
        # The session of an open connection may have been changed already.
        _usual[alias] = state if is_new else query_elsewhere(alias, QUERY)[0]
    if state != _usual[alias]:
        replace_connection(alias)
        # If a new connection differs as well, this is the usual state from now on.
        _usual[alias] = _read(connections[alias])


def _state(connection: Any) -> str:
    if connection.connection is not None:
        try:
            return _read(connection)
        except DatabaseError:
            # The server has closed the connection.
            connection.close()
    return _read(connection)


def _read(connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        (state,) = cursor.fetchone()
        return str(state)


def may_be_changed(alias: str) -> bool:
    """Whether an earlier handler of the thread may have changed the session, and another connection can be used."""
    connection = connections[alias]
    return connection.vendor == "postgresql" and not connection.in_atomic_block


def replace_connection(alias: str) -> None:
    """Close the thread's connection and forget the object, which may have a state of its own, such as a tenant."""
    connection = connections[alias]
    if connection.vendor == "postgresql" and connection.connection is not None:
        # A pool takes back an open connection as it is.
        connection.connection.close()
    connection.close()
    del connections[alias]


@contextmanager
def explain_missing(table: str) -> Iterator[None]:
    """Explain a statement of the inbox that does not find its table or may not use it: the handler is the reason."""
    try:
        yield
    except ProgrammingError as error:
        raise unseen_event(table) from error


def unseen(alias: str, table: str) -> SessionStateError:
    """Return the error of a handler whose connection does not find an event whose lease is held."""
    connection, usual = connections[alias], _usual.get(alias)
    changes = ""
    if connection.vendor == "postgresql" and usual is not None:
        changes = describe_changes(usual, _read(connection))
    return unseen_event(table, changes)
