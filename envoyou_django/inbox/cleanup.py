"""Changes of many rows in batches: filling in objects and deleting payloads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Value
from django.db.models.functions import Coalesce

from envoyou_core import Event
from envoyou_core.adapter import decode_history, object_key_in, transitions
from envoyou_core.inbox import Attempt
from envoyou_django.inbox.columns import encode
from envoyou_django.inbox.commits import own_transaction

__all__ = ["SCRUBBED_BY", "fill_object_keys", "scrub", "scrubbed", "update_each"]

BATCH = 100
"""Rows changed in one transaction, so that acceptance never waits long behind it, and read with their bodies."""


SCRUBBED_BY = ("event_id", "type", "created", "webhook_id", "body", "history")
"""The columns that `scrubbed` reads."""


def update_each(rows: Any, values: Callable[[Any], dict[str, Any]]) -> int:
    """Change all `rows`, batch by batch; returns how many.

    Args:
        rows: a queryset on one database.
        values: returns the changes to a row, after which it must not be in `rows` any more.
    """
    changed = 0
    while batch := list(rows[:BATCH]):
        with own_transaction(rows.db):
            # In the order of the keys, as in every transaction that changes several rows. Others could deadlock.
            for row in sorted(batch, key=lambda row: row.pk):
                # The condition is checked again, because the row may have changed meanwhile.
                changed += rows.filter(pk=row.pk).update(**values(row))
    return changed


def fill_object_keys(rows: Any) -> None:
    """Fill in the objects of rows that an older release stored without them."""
    missing = rows.filter(object_key__isnull=True)
    table = connections[rows.db].ops.quote_name(rows.model._meta.db_table)  # noqa: SLF001 - documented
    # Without the ORM, which takes most of the time: a table of an earlier release may have millions of rows.
    statement = f"UPDATE {table} SET object_key = %s WHERE id = %s AND object_key IS NULL"  # noqa: S608 - no values
    while batch := list(missing.order_by("pk").values_list("pk", "body")[:BATCH]):
        with own_transaction(rows.db), connections[rows.db].cursor() as cursor:
            cursor.executemany(statement, [(object_key_in(bytes(body)), pk) for pk, body in batch])


def scrub(rows: Any, now: datetime) -> int:
    """Delete the payloads of the rows that still have one; returns how many."""
    return update_each(
        rows.filter(scrubbed_at__isnull=True).only(*SCRUBBED_BY),
        lambda row: scrubbed(row.event, decode_history(row.history), now),
    )


def scrubbed(event: Event, history: tuple[Attempt, ...], now: datetime) -> dict[str, Any]:
    """Build the changes to a row whose payload is deleted."""
    changes = transitions.scrub(event, history, now)
    # An object that is stored already is kept: it is NULL only in rows of an older release.
    object_key = Coalesce("object_key", Value(changes["object_key"]))
    return {**encode(changes), "object_key": object_key, "erase_requested_at": None}
