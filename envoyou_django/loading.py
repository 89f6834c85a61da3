"""Loads rows even if Python cannot represent their times."""

from __future__ import annotations

from typing import Any

from django.db import DataError

from envoyou_django.models import ProcessedEvent, ProcessedEventQuerySet

__all__ = ["load"]

TIMES = ("received_at", "due_at", "settled_at", "scrubbed_at", "erase_requested_at", "waits_since")

UNREADABLE_TIME = object()
"""Replaces a time that Python cannot represent, such as PostgreSQL's `infinity`."""

_ERRORS = (DataError, ValueError, TypeError, OverflowError)


def load(rows: ProcessedEventQuerySet) -> list[ProcessedEvent]:
    """Load `rows`. A time that cannot be converted is replaced by a value that `stored_moment` refuses."""
    try:
        return list(rows)
    except _ERRORS:
        # Django converts either all rows or none.
        loaded = (_load_one(rows, key) for key in rows.values_list("pk", flat=True))
        return [row for row in loaded if row is not None]


def _load_one(rows: ProcessedEventQuerySet, key: Any) -> ProcessedEvent | None:
    one = ProcessedEvent.objects.using(rows.db).filter(pk=key)
    row = one.defer(*TIMES).first()
    if row is not None:
        for name in TIMES:
            try:
                value = one.values_list(name, flat=True).first()
            except _ERRORS:
                value = UNREADABLE_TIME
            setattr(row, name, value)
    return row
