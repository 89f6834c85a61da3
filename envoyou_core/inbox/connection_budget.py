"""How many handlers of a process may hold a connection of a pool, so that acceptance and settling keep theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.forks import call_in_forked_children

__all__ = ["RESERVED", "ConnectionBudget", "shortage"]

RESERVED: Final = 4
"""The connections that handlers leave free, if the pool has so many: for acceptance, claims, settlements and leases."""


class ConnectionBudget:
    """Bounds the transactions of handlers.

    Args:
        total: how many connections the pool can have; `None` if it is not bounded.

    Attributes:
        total: the same.
        handlers: how many transactions of handlers may be open at once; `None` if they are not bounded.

    Raises:
        ConfigurationError: the pool has one connection. A handler that held it would let acceptance wait.
    """

    def __init__(self, total: int | None) -> None:
        if total is not None and total < 2:
            raise ConfigurationError(f"the connection pool of the inbox must have at least 2 connections, got {total}")
        self.total = total
        self.handlers = None if total is None else max(1, total - RESERVED)
        self._renew()
        call_in_forked_children(self._renew)

    def _renew(self) -> None:
        # The threads that held the connections do not exist in a forked child.
        self._free = None if self.handlers is None else threading.BoundedSemaphore(self.handlers)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until a handler may open a transaction."""
        if self._free is None:
            yield
            return
        with self._free:
            yield


def shortage(total: int) -> str:
    """Describe for the log that no connection is free."""
    return f"all {total} connections of its pool are in use"
