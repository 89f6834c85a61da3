"""Database connections: their age outside requests, and views that commit by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import connections, transaction

__all__ = ["close_old_connections", "fresh_connections", "outside_transactions"]

View = TypeVar("View", bound=Callable[..., Any])


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


def outside_transactions(view: View) -> View:
    """Exempt `view` from `ATOMIC_REQUESTS` on every database, so that what it commits is on disk before it returns."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
