"""How many events are in each state, as fast in a table of millions as in a small one."""

from __future__ import annotations

from django.db.models import Count

from envoyou_core.inbox import COUNTED_IN_PART, Status
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["count_by_status"]


def count_by_status(rows: ProcessedEventQuerySet, limit: int | None, *, index_order: str) -> dict[str, int]:
    """The number of `rows` in each state.

    Args:
        rows: what is counted.
        limit: up to how many of each state in `COUNTED_IN_PART` are counted; `None` for all.
        index_order: the column that follows the status in the index which finds `rows` by it.
    """
    partly = () if limit is None else COUNTED_IN_PART
    wholly = [status.value for status in Status if status not in partly]
    counts = dict(rows.filter(status__in=wholly).order_by().values_list("status").annotate(Count("pk")))
    for status in partly:
        # In the index's order: the table itself may hold none of them among its first millions of rows.
        first = rows.filter(status=status).order_by(index_order).values(index_order.lstrip("-"))[:limit]
        counts[status.value] = first.count()
    return counts
