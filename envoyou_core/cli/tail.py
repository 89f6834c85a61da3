"""Follows an inbox: which events are new or have changed since the last look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from envoyou_core.inbox import FINISHED, Inbox, InboxRecord

__all__ = ["MAX_WINDOW", "WINDOW", "Tail", "follow"]

WINDOW: Final = 100
"""How many of the newest events are read at each look, and how many older unfinished ones are read again, in turn."""

MAX_WINDOW: Final = 1_600
"""How many are read at most, if more than `WINDOW` have come since the last look."""

Key = tuple[str, str]


class Tail:
    """The newest events of an inbox, and what is known of them. The inbox is only read, a bounded number of rows.

    An event that is older than the newest `WINDOW` is followed if it was seen unfinished before.

    Attributes:
        has_gap: whether more than `MAX_WINDOW` events had come at the last look, so that some were not seen.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._known: dict[Key, InboxRecord] = {}
        self._has_looked = False
        self.has_gap = False

    def look(self) -> list[InboxRecord]:
        """Return the events that are new or have another status, attempt or crash than at the last look, oldest first.

        The first look returns the newest `WINDOW` events.
        """
        before, newest = self._known, {_key(record): record for record in self._newest()}
        older = [key for key, record in before.items() if key not in newest and record.status not in FINISHED]
        again = {
            (tenant, event_id): record
            for tenant, event_id in older[:WINDOW]
            if (record := self._inbox.get(event_id, tenant=tenant)) is not None
        }
        # In the order in which they are read again, once they are not among the newest: in turn, if there are many.
        waiting = {key: before[key] for key in older[WINDOW : WINDOW + MAX_WINDOW]}
        self._known = {**waiting, **newest, **again}
        read = {**newest, **again}
        return [record for key, record in read.items() if _state(before.get(key)) != _state(record)][::-1]

    def _newest(self) -> list[InboxRecord]:
        limit = WINDOW
        while True:
            records = self._inbox.list(limit=limit)
            is_complete = len(records) < limit or any(_key(record) in self._known for record in records)
            if not self._has_looked or is_complete or limit >= MAX_WINDOW:
                self.has_gap = self._has_looked and not is_complete
                self._has_looked = True
                return records
            limit *= 2


def follow(tail: Tail, wait: Callable[[], object]) -> Iterator[InboxRecord]:
    """Yield what changes, without an end; `wait` is called between two looks."""
    while True:
        wait()
        yield from tail.look()


def _key(record: InboxRecord) -> Key:
    return record.tenant, record.event.id


def _state(record: InboxRecord | None) -> tuple[object, ...] | None:
    if record is None:
        return None
    # An event that was requeued may have the same status and the same number of attempts again.
    ended_at = record.history[-1].ended_at if record.history else None
    return record.status, record.attempts, record.crashes, record.waits_for, ended_at
