"""The transaction in which a handler runs and its success is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import connections, transaction

from envoyou_core import Event
from envoyou_core.adapter import (
    TRANSACTION_LIMIT,
    HandlerTransactionQueue,
    RedactedLogger,
    Slot,
    private_texts,
    time_limit,
    traceback_of,
)
from envoyou_core.errors import SessionStateError
from envoyou_django.inbox.pools import connection_budget
from envoyou_django.inbox.sessions import renew_changed, replace_connection
from envoyou_django.models import ClaimLock

__all__ = ["handler_transaction"]

log = RedactedLogger("envoyou.django")

_queue = HandlerTransactionQueue()


@contextmanager
def handler_transaction(alias: str, event: Event) -> Iterator[None]:
    """Run the block in a transaction on the database `alias`, or in a savepoint if one is open, as in a test.

    Callbacks of `transaction.on_commit` run after the commit. An exception in one of them is only logged, because the
    handler's work is committed and must not be repeated.

    Args:
        alias: the alias of the database.
        event: the handled event; its payload is redacted in the log.

    Raises:
        TransactionTimeoutError: on SQLite, the transaction exceeded its time limit and was rolled back.
    """
    connection = connections[alias]
    if connection.in_atomic_block:
        with transaction.atomic(using=alias):
            yield
        return
    with connection_budget(alias).slot():
        yield from _transaction(alias, event)


def _transaction(alias: str, event: Event) -> Iterator[None]:
    # Without this the handler's first statement would fail, or use what an earlier handler has set.
    renew_changed(alias)
    connection = connections[alias]
    committed: list[str] = []
    try:
        with _slot(connection) as slot, transaction.atomic(using=alias):
            transaction.on_commit(lambda: committed.append(alias), using=alias)
            with nullcontext() if slot is None else _write_lock(connection, slot):
                yield
    except SessionStateError:
        replace_connection(alias)
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if not committed:
            raise
        traceback = traceback_of(error, private=private_texts(event))
        log.log(
            logging.ERROR,
            "an on_commit callback failed in a handler for %s; the handler's own work is committed",
            event.id,
            traceback=traceback,
        )


def _slot(connection: Any) -> AbstractContextManager[Slot | None]:
    return _queue.slot() if connection.vendor == "sqlite" else nullcontext()


def _write_lock(connection: Any, slot: Slot) -> AbstractContextManager[None]:
    # Writing first takes SQLite's only write lock, or waits for it. A transaction that reads first and writes later
    # fails at once if another connection has written in between, and this one writes at its end.
    ClaimLock.objects.using(connection.alias).filter(pk=0).update(name="")
    slot.lock_taken()
    # Release the slot before the handler's own on_commit callbacks run, which may be slow.
    transaction.on_commit(slot.release, using=connection.alias)
    return time_limit(connection.connection, TRANSACTION_LIMIT, slot.release)
