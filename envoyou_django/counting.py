"""Counts events by status, in a time that does not depend on the size of the table."""

from __future__ import annotations

from django.db.models import Count

from envoyou_core.inbox import COUNTED_IN_PART, MAX_AWAITED, Status
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["count_by_status", "count_waiting"]


def count_by_status(rows: ProcessedEventQuerySet, limit: int | None, *, index_order: str) -> dict[str, int]:
    """Count `rows` by status.

    Args:
        rows: the rows to count.
        limit: the maximum count of each status in `COUNTED_IN_PART`; `None` to count all rows.
        index_order: the column that follows the status in the index for `rows`.
    """
    limited = () if limit is None else COUNTED_IN_PART
    unlimited = [status.value for status in Status if status not in limited]
    counts = dict(rows.filter(status__in=unlimited).order_by().values_list("status").annotate(Count("pk")))
    for status in limited:
        # The order makes the database read the index. The table's first millions of rows may have other statuses.
        first = rows.filter(status=status).order_by(index_order).values(index_order.lstrip("-"))[:limit]
        counts[status.value] = first.count()
    return counts


def count_waiting(rows: ProcessedEventQuerySet) -> dict[str, int]:
    """Count those of `rows` that wait for a handler, by the handler."""
    by_handler = rows.awaiting().order_by("waits_for").values_list("waits_for")
    return dict(by_handler.annotate(Count("pk"))[:MAX_AWAITED])
