"""Database connections outside requests, where Django does not close broken and old ones by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

__all__ = ["close_old_connections", "fresh_connections"]


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Close this thread's old connections before and after a block, as Django does for a request."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def close_old_connections() -> None:
    """Close this thread's connections that are broken or past their age, except within a transaction.

    `django.db.close_old_connections` would close a connection with an open transaction, such as that of a test case.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
