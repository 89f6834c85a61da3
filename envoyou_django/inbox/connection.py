"""The state of Django's connections, as far as it decides how an event is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.db import Error, InterfaceError, OperationalError, connections

from envoyou_django import connections as connection_age

__all__ = [
    "close_old_connections",
    "in_event_loop",
    "is_in_memory",
    "is_outage",
    "query_elsewhere",
    "replace_broken",
    "responds",
]


def is_outage(error: Exception) -> bool:
    """Whether the database cannot store anything now, as opposed to rejecting one event."""
    return isinstance(error, OperationalError | InterfaceError | RuntimeError)


def is_in_memory(alias: str) -> bool:
    """Whether the database is SQLite in memory, which connections cannot share without locking each other out.

    The settings decide, because a connection must not be used on an event loop.
    """
    settings = connections.settings[alias]
    name = str(settings["NAME"])
    return settings["ENGINE"].endswith("sqlite3") and (":memory:" in name or "mode=memory" in name)


def in_event_loop() -> bool:
    """Whether the calling thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def replace_broken(connection: Any) -> None:
    """Close a connection that is broken or past its maximum age; the next query opens another."""
    # With a maximum age of 0 the connection is closed when the queue is empty, rather than between two commits.
    if connection.settings_dict["CONN_MAX_AGE"] != 0:
        connection.close_if_unusable_or_obsolete()
    if connection.connection is not None and not connection.is_usable():
        connection.close()


def responds(alias: str) -> bool:
    """Whether a new connection to the database works. In a transaction, such as that of a test, none is made."""
    if connections[alias].in_atomic_block or is_in_memory(alias):
        return True
    try:
        query_elsewhere(alias, "SELECT 1")
    except Exception:
        return False
    return True


def query_elsewhere(alias: str, query: str, parameters: Sequence[object] = ()) -> Any:
    """Execute a query on a new connection; returns the first row, or `None`."""
    connection = connections.create_connection(alias)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchone()
    finally:
        connection.close()


def close_old_connections() -> None:
    """Close connections that are past their maximum age; errors are ignored, because the next query shows them."""
    with suppress(Error):
        connection_age.close_old_connections()
