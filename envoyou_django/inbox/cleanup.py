"""What events are about, and how their payloads go: changes of rows, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Coalesce

from envoyou_core import Event
from envoyou_core.adapter import decode_history, encode_history, object_key_in, scrubbed_body, without_failures
from envoyou_core.inbox import Attempt

__all__ = ["SCRUBBED_BY", "fill_object_keys", "key_of", "scrub", "scrubbed", "update_each"]

BATCH = 100
"""Rows changed in one transaction, so that acceptance never waits long behind it, and read with their bodies."""


SCRUBBED_BY = ("event_id", "type", "created", "webhook_id", "body", "history")
"""The columns from which `scrubbed` makes what is left of a row."""


def update_each(rows: Any, values: Callable[[Any], dict[str, Any]]) -> int:
    """Change all `rows`, batch by batch; returns how many.

    Args:
        rows: a queryset on one database.
        values: what to change of a row; it must take it out of `rows`.
    """
    changed = 0
    while batch := list(rows[:BATCH]):
        with transaction.atomic(using=rows.db):
            # By their keys, as in every transaction that changes several: no two can then wait for each other.
            for row in sorted(batch, key=lambda row: row.pk):
                # Asked once more: something may have happened to it meanwhile.
                changed += rows.filter(pk=row.pk).update(**values(row))
    return changed


def key_of(event: Event) -> str:
    """What the table keeps as the object of `event`."""
    return event.object_id or ""


def fill_object_keys(rows: Any) -> None:
    """Look up what those of `rows` are about that an earlier release has stored."""
    update_each(
        rows.filter(object_key__isnull=True).only("body"),
        lambda row: {"object_key": object_key_in(row.body)},
    )


def scrub(rows: Any, now: datetime) -> int:
    """Delete the payloads of those of `rows` that have one; returns how many."""
    return update_each(
        rows.filter(scrubbed_at__isnull=True).only(*SCRUBBED_BY),
        lambda row: scrubbed(row.event, decode_history(row.history), now),
    )


def scrubbed(event: Event, history: tuple[Attempt, ...], now: datetime) -> dict[str, Any]:
    """What is changed of a row whose payload is deleted."""
    return {
        "body": scrubbed_body(event),
        # Nobody can look it up any more.
        "object_key": Coalesce("object_key", Value(key_of(event))),
        "last_error": None,
        "history": encode_history(without_failures(history)),
        "scrubbed_at": now,
        "erase_requested_at": None,
    }
