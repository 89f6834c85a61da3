"""The transaction that a handler shares with the record of its work."""

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
from envoyou_django.models import ClaimLock

__all__ = ["handler_transaction"]

log = RedactedLogger("envoyou.django")

_queue = HandlerTransactionQueue()


@contextmanager
def handler_transaction(alias: str, event: Event) -> Iterator[None]:
    """A transaction on the database `alias`: a savepoint where one is open already, as a test's is.

    What the block has asked `transaction.on_commit` for is done after the commit. Its failure is logged and changes
    nothing: the work is committed by then, and must not be done again.

    Args:
        alias: of the database.
        event: the handled event; its payload is removed from the log.

    Raises:
        TransactionTimeoutError: on SQLite, its time was over; it is rolled back.
    """
    connection = connections[alias]
    if connection.in_atomic_block:
        with transaction.atomic(using=alias):
            yield
        return
    if connection.connection is not None and not connection.is_usable():
        # Its server has ended it since. Found out at the first statement, it would be a failure of the handler's.
        connection.close()
    committed: list[str] = []
    try:
        with _slot(connection) as slot, transaction.atomic(using=alias):
            transaction.on_commit(lambda: committed.append(alias), using=alias)
            with nullcontext() if slot is None else _alone(connection, slot):
                yield
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


def _alone(connection: Any, slot: Slot) -> AbstractContextManager[None]:
    # A write to begin with takes SQLite's only lock, or waits for it. A transaction that reads first and writes later
    # fails at once where another writer came between, and this one writes at its end.
    ClaimLock.objects.using(connection.alias).filter(pk=0).update(name="")
    slot.lock_taken()
    # What else is asked for on commit may take its time.
    transaction.on_commit(slot.release, using=connection.alias)
    return time_limit(connection.connection, TRANSACTION_LIMIT, slot.release)
