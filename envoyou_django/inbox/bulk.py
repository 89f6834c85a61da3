"""Changes of any number of events in batches: requeueing them, marking them dead, making them due.

Each batch is a short transaction of its own, with one statement for all rows that change in the same way. So acceptance
never waits long, and an interruption undoes nothing that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connections
from django.db.models import F, Max, Q, Value
from django.db.models.functions import Coalesce

from envoyou_core.adapter import decode_history, readable_owed, readable_progress, transitions
from envoyou_core.inbox import Status
from envoyou_django.inbox.cleanup import scrubbed
from envoyou_django.inbox.columns import encode
from envoyou_django.inbox.commits import own_transaction

__all__ = ["MAKE_DUE", "MARK_DEAD", "Batch", "Operation", "change_in_batches", "count_changed", "requeueing"]

BATCH: Final = 500
"""Rows changed in one transaction, so that new deliveries never wait long for its locks."""

LISTED: Final = 10_000
"""Keys read at a time."""

NAMED: Final = ("event_id", "type")
"""The columns that show which event it is."""

Rows = Any
Row = Any


@dataclass(frozen=True, slots=True)
class Operation:
    """A change that many events can have.

    Attributes:
        eligible: selects the rows that it changes at a time.
        changes: returns the new values of a row at a time, encoded; none if the row stays as it is.
        columns: the columns that `changes` reads.
    """

    eligible: Callable[[Rows, datetime], Rows]
    changes: Callable[[Row, datetime], dict[str, Any]]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows that one transaction has changed.

    Attributes:
        rows: the rows as they were before, with their keys, ids and types.
        last_key: the largest key that was considered.
    """

    rows: Sequence[Row]
    last_key: int


def change_in_batches(
    rows: Rows,
    operation: Operation,
    now: datetime,
    *,
    after: int = 0,
    record: Callable[[Sequence[Row]], object] | None = None,
) -> Iterator[Batch]:
    """Change those of `rows` that an operation applies to, in the order of their keys, each once.

    The next batch is changed when the iterator is advanced. Rows that are added meanwhile are left out.

    Args:
        rows: a queryset of events on the database for writing.
        operation: the change.
        now: the time of the change.
        after: only rows with greater keys.
        record: called with the changed rows in the transaction of each batch.
    """
    every_row = rows.model.objects.using(rows.db)
    newest = every_row.aggregate(newest=Max("pk"))["newest"] or 0
    eligible = operation.eligible(rows, now).filter(pk__lte=newest).order_by("pk")
    while listed := list(eligible.filter(pk__gt=after).values_list("pk", "status")[:LISTED]):
        for start in range(0, len(listed), BATCH):
            statuses = dict(listed[start : start + BATCH])
            after = max(statuses)
            with own_transaction(rows.db):
                changed = _change(operation.eligible(every_row.filter(pk__in=statuses), now), statuses, operation, now)
                if record is not None and changed:
                    record(changed)
            yield Batch(changed, after)


def _change(rows: Rows, statuses: dict[int, str], operation: Operation, now: datetime) -> list[Row]:
    """Change the rows whose status is still as listed; returns them as they were before."""
    if not connections[rows.db].features.has_select_for_update:
        # On SQLite any write takes the only write lock. It must come first: a transaction that reads first and writes
        # later fails at once if another writer came between.
        rows.model.objects.using(rows.db).filter(pk=0).update(status=F("status"))
    # Locked in the order of the keys, as in every transaction that changes several rows. Others could deadlock.
    locked = rows.order_by("pk").select_for_update().only("status", *NAMED, *operation.columns)
    changed = []
    alike: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for row in locked:
        if row.status == statuses[row.pk] and (values := operation.changes(row, now)):
            changed.append(row)
            alike.setdefault(repr(values), (values, []))[1].append(row.pk)
    for values, keys in alike.values():
        rows.model.objects.using(rows.db).filter(pk__in=keys).update(**values)
    return changed


def count_changed(rows: Rows, operation: Operation, now: datetime) -> int:
    """Return how many of `rows` an operation would change."""
    return sum(1 for row in operation.eligible(rows, now).only(*operation.columns) if operation.changes(row, now))


def requeueing(drop_handlers: Collection[str] = ()) -> Operation:
    """Return the operation that returns events to `received`, with all their attempts.

    Args:
        drop_handlers: handlers that will not run for the events. Only events that owe one of them are requeued.
    """

    def eligible(rows: Rows, now: datetime) -> Rows:
        selected = (rows.requeuable() | rows.awaiting()).filter(scrubbed_at__isnull=True)
        # An ignored event owes nothing, and there may be millions of them.
        return selected.exclude(status=Status.IGNORED) if drop_handlers else selected

    def changes(row: Row, now: datetime) -> dict[str, Any]:
        progress, owed = readable_progress(row.progress), readable_owed(row.owed)
        return encode(transitions.requeue(progress, owed, now, drop_handlers))

    return Operation(eligible, changes, columns=("progress", "owed"))


def _marked_dead(row: Row, now: datetime) -> dict[str, Any]:
    dead = {
        "status": Status.DEAD.value,
        "due_at": None,
        "lease_token": None,
        "settled_at": now,
        "last_error": Coalesce("last_error", Value("marked dead by hand")),
    }
    if not row.has_erase_request:
        return dead
    # Settling an event deletes its payload if that was requested. The payload is read here: few events have a request.
    return dead | scrubbed(row.event, decode_history(row.history), now)


MARK_DEAD: Final = Operation(
    # The time is not read, because a database may hold one that Python cannot represent.
    eligible=lambda rows, now: rows.unheld(now).annotate(has_erase_request=Q(erase_requested_at__isnull=False)),
    changes=_marked_dead,
)
"""Ends unfinished events that no worker holds. A worker whose lease has expired can no longer settle them."""

MAKE_DUE: Final = Operation(
    eligible=lambda rows, now: rows.waiting().filter(due_at__gt=now), changes=lambda _, now: {"due_at": now}
)
"""Lets events that wait for a later attempt have it now."""
