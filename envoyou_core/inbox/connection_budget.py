"""How many handlers of a process may hold a connection, so that acceptance and settling keep theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children

__all__ = ["CONNECTION_LIMITS", "RESERVED", "ConnectionBudget", "share_of_limit", "shortage"]

RESERVED: Final = 4
"""The connections that handlers leave free, if the pool has so many: for acceptance, claims, settlements and leases."""

ACCEPTANCE: Final = 2
"""The connections that a process without a worker needs: for acceptance, and for what it reads now and then."""

CONNECTION_LIMITS: Final[Mapping[str, str]] = {
    # A superuser is not limited. The limit is that of the role that logged in. LEAST ignores NULL.
    "postgresql": (
        "SELECT LEAST(NULLIF(r.rolconnlimit, -1), NULLIF(d.datconnlimit, -1)) FROM pg_roles r, pg_database d "
        "WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = current_database()"
    ),
    "mysql": "SELECT NULLIF(@@max_user_connections, 0)",
}
"""A query, by dialect, for the number of connections that the role and the database admit; no row or NULL for any."""


def share_of_limit(limit: int, *, workers: int, others: int) -> int:
    """Return how many connections a worker may open if the server admits `limit` in all: at least two.

    Args:
        limit: what the role or the database admits.
        workers: how many live processes run a worker, this one included.
        others: how many further live processes use the inbox.

    Examples:
        >>> share_of_limit(20, workers=3, others=1)
        6
    """
    return max(2, (limit - ACCEPTANCE * others) // max(1, workers))


class ConnectionBudget:
    """Bounds the transactions of handlers.

    Args:
        total: how many connections the pool can have; `None` if it is not bounded.

    Attributes:
        total: how many connections the process may open; `None` if that is not bounded.
        handlers: how many transactions of handlers may be open at once; `None` if they are not bounded.

    Raises:
        ConfigurationError: the pool has one connection. A handler that held it would let acceptance wait.
    """

    def __init__(self, total: int | None) -> None:
        if total is not None and total < 2:
            raise ConfigurationError(f"the connection pool of the inbox must have at least 2 connections, got {total}")
        self._pool = total
        self._set_total(total)
        call_in_forked_children(self._renew)

    def limit_to(self, share: int | None) -> None:
        """Bound the process to `share` connections as well, if the server limits them.

        Handlers that hold a connection now are not counted.
        """
        bounds = [bound for bound in (self._pool, share) if bound is not None]
        total = min(bounds, default=None)
        if total != self.total:
            self._set_total(total)

    def _set_total(self, total: int | None) -> None:
        self.total = total
        self.handlers = None if total is None else max(1, total - RESERVED)
        self._renew()

    def _renew(self) -> None:
        # The threads that held the connections do not exist in a forked child.
        self._free = None if self.handlers is None else threading.BoundedSemaphore(self.handlers)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until a handler may open a transaction."""
        # It may be replaced meanwhile.
        free = self._free
        if free is None:
            yield
            return
        with free:
            yield


def shortage(total: int) -> str:
    """Describe for the log that no connection is free."""
    return f"all {total} connections of its pool are in use"
