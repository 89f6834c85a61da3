"""The session of a thread's connection to PostgreSQL: whether a handler has changed it, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, ProgrammingError, connections

from envoyou_core.adapter import (
    SESSION_STATE,
    describe_changes,
    named_differ,
    named_state,
    note_statement,
    unseen_event,
)
from envoyou_core.errors import SessionStateError
from envoyou_django.inbox.connection import query_elsewhere

__all__ = ["explain_missing", "may_be_changed", "renew_changed", "replace_connection", "unseen"]

State = tuple[str, str]
"""The values of `SESSION_STATE` and `named_state`."""

_usual: dict[str, State] = {}
"""For each alias, the state of a connection before its first handler."""

_queries: dict[str, str] = {}
"""For each alias, the query that read the usual state. It changes with the settings that handlers name."""


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
    query = f"SELECT {SESSION_STATE}, {named_state()}"
    state = _state(connection, query)
    if alias not in _usual or _queries.get(alias) != query:
        # The session of an open connection may have been changed already.
        _usual[alias] = state if is_new else query_elsewhere(alias, query)
        _queries[alias] = query
    if _differ(_usual[alias], state):
        replace_connection(alias)
        # If a new connection differs as well, this is the usual state from now on.
        _usual[alias] = _read(connections[alias], query)
    _watch(connections[alias])


def _differ(usual: State, state: State) -> bool:
    return usual[0] != state[0] or (usual[1] != state[1] and named_differ(usual[1], state[1]))


def _state(connection: Any, query: str) -> State:
    if connection.connection is not None:
        try:
            return _read(connection, query)
        except DatabaseError:
            # The server has closed the connection.
            connection.close()
    return _read(connection, query)


def _read(connection: Any, query: str) -> State:
    with connection.cursor() as cursor:
        cursor.execute(query)
        state, named = cursor.fetchone()
        return state, named


def _watch(connection: Any) -> None:
    """Remember the settings that the statements on a connection name, for the next query of the state."""
    if _note not in connection.execute_wrappers:
        # First: a block with a wrapper of its own removes the last one at its end.
        connection.execute_wrappers.insert(0, _note)


def _note(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    note_statement(sql, params)
    return execute(sql, params, many, context)


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
        changes = describe_changes(usual[0], _read(connection, f"SELECT {SESSION_STATE}, {named_state()}")[0])
    return unseen_event(table, changes)
