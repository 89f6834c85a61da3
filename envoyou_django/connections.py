"""Database connections: their age outside requests, and views that commit by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import OperationalError, connections, transaction

__all__ = ["close_old_connections", "ensure_connection", "fresh_connections", "outside_transactions"]

SCARCE_FOR: Final = 60.0
"""Seconds for which no thread keeps a connection after the server has refused one."""

View = TypeVar("View", bound=Callable[..., Any])

_refused_at: float | None = None
"""When the server has refused a connection of this process, by the monotonic clock."""


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Close this thread's old connections before and after a block, as Django does for a request."""
    close_old_connections()
    try:
        yield
    except OperationalError:
        if any(connection.connection is None for connection in connections.all(initialized_only=True)):
            _note_refusal()
        raise
    finally:
        close_old_connections()


def close_old_connections() -> None:
    """Close this thread's connections that are broken or past their age, except within a transaction.

    If the server has refused a connection lately, close all: those that idle threads keep are missing elsewhere.
    `django.db.close_old_connections` would close a connection with an open transaction, such as that of a test case.
    """
    are_scarce = _refused_at is not None and time.monotonic() - _refused_at < SCARCE_FOR
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue
        if are_scarce:
            connection.close()
        else:
            connection.close_if_unusable_or_obsolete()


def ensure_connection(connection: Any) -> None:
    """Connect, and note if the server refuses that."""
    try:
        connection.ensure_connection()
    except OperationalError:
        _note_refusal()
        raise


def _note_refusal() -> None:
    global _refused_at
    _refused_at = time.monotonic()


def outside_transactions(view: View) -> View:
    """Exempt `view` from `ATOMIC_REQUESTS` on every database, so that what it commits is on disk before it returns."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
