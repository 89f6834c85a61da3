"""How many connections a process has: by psycopg's pool in Django's `OPTIONS["pool"]`, and by the limit of the role."""

from __future__ import annotations

import threading
from typing import Any, Final

from django.db import connections

from envoyou_core.adapter import CONNECTION_LIMITS, ConnectionBudget, shortage

__all__ = ["connection_budget", "connection_limit", "connection_shortage", "max_connections"]

DEFAULT_SIZE: Final = 4
"""The size of a pool of psycopg without options."""

_budgets: dict[tuple[str, int | None], ConnectionBudget] = {}
_lock = threading.Lock()


def max_connections(alias: str) -> int | None:
    """Return the largest number of connections that the pool of a database can have; `None` without a pool."""
    pool = connections.settings[alias]["OPTIONS"].get("pool")
    if not pool:
        return None
    options: dict[str, Any] = {} if pool is True else pool
    return options.get("max_size") or options.get("min_size", DEFAULT_SIZE)


def connection_budget(alias: str) -> ConnectionBudget:
    """Return the budget of the process for a database.

    Raises:
        ConfigurationError: its pool has a single connection.
    """
    key = alias, max_connections(alias)
    with _lock:
        if key not in _budgets:
            _budgets[key] = ConnectionBudget(key[1])
        return _budgets[key]


def connection_limit(alias: str) -> int | None:
    """Return how many connections the server admits for the role and the database; `None` for any number."""
    query = CONNECTION_LIMITS.get(connections[alias].vendor)
    if query is None:
        return None
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return None if row is None else row[0]


def connection_shortage(alias: str) -> str:
    """Describe that all connections of the pool are in use, for the log; empty if they are not."""
    total = max_connections(alias)
    if total is None:
        return ""
    stats = connections[alias].pool.get_stats()
    in_use = stats["pool_size"] - stats["pool_available"]
    return shortage(total) if in_use >= total or stats["requests_waiting"] else ""
