"""Deletion of finished events, whose watermarks stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import Model, QuerySet

from envoyou_core.adapter import readable_progress, transitions
from envoyou_django.inbox.cleanup import fill_object_keys
from envoyou_django.models import ObjectMark, ProcessedEvent, ProcessedEventQuerySet

__all__ = ["had_effect", "lock_or_create", "prune", "prune_watermarks"]

PRUNE_BATCH = 500
"""Rows deleted in one transaction, so that acceptance never waits long for it."""


def had_effect(row: ProcessedEvent) -> bool:
    """See `transitions.had_effect`."""
    return transitions.had_effect(row.status, readable_progress(row.progress) or {})


def prune(rows: ProcessedEventQuerySet, watermarks: QuerySet, name: str) -> int:
    """Delete rows in batches and keep the watermarks of their objects; returns the number of deleted rows.

    Args:
        rows: events of one inbox.
        watermarks: the watermarks of the inbox.
        name: the name of the inbox.
    """
    fill_object_keys(rows)
    pruned = 0
    while batch := list(rows.only("tenant", "object_key", "created", "status", "progress")[:PRUNE_BATCH]):
        with transaction.atomic(using=rows.db):
            # The condition is checked again, because an event may have been requeued meanwhile. Its effect counts in
            # any case.
            pruned += rows.filter(pk__in=[row.pk for row in batch]).delete()[0]
            _raise_watermarks(watermarks, name, (row for row in batch if had_effect(row)))
    return pruned


def _raise_watermarks(watermarks: QuerySet, name: str, applied: Iterable[ProcessedEvent]) -> None:
    newest = transitions.watermarks((row.tenant, row.object_key, row.created) for row in applied)
    if not newest:
        return
    rows = [
        ObjectMark(name=name, tenant=tenant, object_key=object_key, created=created)
        for (tenant, object_key), created in newest.items()
    ]
    # An existing watermark keeps its value until it is known which of the two is newer.
    lock_or_create(rows, watermarks.db, "name", "tenant", "object_key")
    for row in rows:
        older = watermarks.filter(tenant=row.tenant, object_key=row.object_key, created__lt=row.created)
        older.update(created=row.created)


def lock_or_create(rows: Sequence[Model], alias: str, *key: str) -> None:
    """Lock the rows with these keys, and create those that do not exist, in one statement.

    Several statements, which look, insert and look again, could deadlock.
    """
    with_target = connections[alias].features.supports_update_conflicts_with_target
    manager: Any = type(rows[0])._default_manager  # noqa: SLF001 - public, as Django documents it
    manager.using(alias).bulk_create(
        rows, update_conflicts=True, update_fields=key[-1:], unique_fields=key if with_target else None
    )


def prune_watermarks(watermarks: QuerySet, before: float) -> int:
    """Delete the watermarks of events that were created before an epoch time; returns how many."""
    old = watermarks.filter(created__lt=before)
    pruned = 0
    while keys := list(old.values_list("pk", flat=True)[:PRUNE_BATCH]):
        pruned += old.filter(pk__in=keys).delete()[0]
    return pruned
