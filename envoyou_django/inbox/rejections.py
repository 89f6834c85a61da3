"""Rejected deliveries in the table of the model `RejectedDelivery`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from envoyou_core.adapter import keep_rejection, rejected_of, surplus
from envoyou_core.inbox import NewRejection
from envoyou_core.inbox import RejectedDelivery as KeptDelivery
from envoyou_django.fields import stored_moment
from envoyou_django.inbox.pruning import lock_or_create
from envoyou_django.models import RejectedDelivery

__all__ = ["as_kept", "keep_all"]


def keep_all(rows: QuerySet, name: str, rejections: Sequence[NewRejection]) -> int:
    """Keep the deliveries whose body is not kept yet, and delete the oldest if there are too many.

    Args:
        rows: the rejected deliveries of the inbox.
        name: the name of the inbox.
        rejections: the deliveries to keep.

    Returns:
        The number of deleted deliveries.
    """
    for rejection in rejections:
        row = RejectedDelivery(name=name, **keep_rejection(rejection))
        lock_or_create([row], rows.db, "name", "tenant", "digest")
    excess = surplus(rows.order_by("-pk").values_list("pk", "size"))
    return rows.filter(pk__in=excess).delete()[0] if excess else 0


def as_kept(row: Any) -> KeptDelivery:
    """Return a row as the inbox shows it."""
    return rejected_of(row, key=row.pk, moment=stored_moment)
