"""The rejected deliveries of an inbox in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from envoyou_core.inbox.rejected import RejectedDelivery, rejected_of, surplus

__all__ = ["MemoryRejections", "RejectedRow"]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """The columns that the SQL inboxes have."""

    key: int
    tenant: str
    digest: str
    reason: str
    error: str
    headers: str
    received_at: datetime
    object_key: str
    size: int
    body: bytes


class MemoryRejections:
    """The rejected deliveries of one inbox, whose lock the caller holds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], RejectedRow] = {}
        self._keys = itertools.count(1)

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, columns: dict[str, Any]) -> int:
        """Keep a delivery unless its body is kept already; returns how many were deleted to make room."""
        place = (columns["tenant"], columns["digest"])
        if place in self._rows:
            return 0
        self._rows[place] = RejectedRow(key=next(self._keys), **columns)
        excess = frozenset(surplus((row.key, row.size) for row in self._newest()))
        return self.delete(lambda row: row.key in excess)

    def newest(self) -> Iterator[RejectedDelivery]:
        """Return the deliveries, newest first."""
        return (rejected_of(row, key=row.key, moment=lambda moment: moment.astimezone(UTC)) for row in self._newest())

    def delete(self, condition: Callable[[RejectedRow], bool]) -> int:
        """Delete the matching deliveries; returns how many."""
        selected = [place for place, row in self._rows.items() if condition(row)]
        for place in selected:
            del self._rows[place]
        return len(selected)

    def _newest(self) -> Iterator[RejectedRow]:
        return reversed(self._rows.values())
