"""The results of handlers, as an inbox shows them: each attempt that has ended since the last look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from envoyou_core.cli.tail import Tail
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import FINISHED, Attempt, Inbox, InboxRecord

__all__ = ["Handled", "HandlerResults"]


@dataclass(frozen=True, slots=True)
class Handled:
    """An attempt of an event's handlers that has ended.

    Attributes:
        record: the event, as it was read.
        number: of the attempt, from 1, crashes included; 0 if no attempt was needed.
        attempt: how it ended; `None` if no attempt was needed, because the event has no handler.
    """

    record: InboxRecord
    number: int
    attempt: Attempt | None

    @property
    def at(self) -> datetime:
        """When it ended, in UTC."""
        if self.attempt is not None:
            return self.attempt.ended_at
        return self.record.settled_at or self.record.received_at

    @property
    def status(self) -> str:
        """The status of the event after the attempt; `crashed` if the process died."""
        if self.attempt is None:
            return self.record.status.value
        return self.attempt.status or "crashed"

    @property
    def errors(self) -> list[tuple[str, str]]:
        """The handlers that failed, with the error in one line."""
        return [] if self.attempt is None else [(each.handler, each.error) for each in self.attempt.failures]


class HandlerResults:
    """Follows an inbox, which may not exist yet.

    Args:
        open_inbox: returns the opened inbox; raises `ConfigurationError` while it does not exist.

    Attributes:
        missing: why the inbox cannot be opened; empty if it is open.
    """

    def __init__(self, open_inbox: Callable[[], Inbox]) -> None:
        self._open_inbox = open_inbox
        self._tail: Tail | None = None
        self._known: dict[tuple[str, str], tuple[datetime | None, datetime | None]] = {}
        """When the last attempt of each event ended, and when it was settled."""
        self.missing = ""
        self.look()  # what has happened before is not shown

    def look(self) -> list[Handled]:
        """Return the attempts that have ended since the last look, the oldest first."""
        if self._tail is None:
            try:
                self._tail = Tail(self._open_inbox())
            except ConfigurationError as error:
                self.missing = str(error)
                return []
            self.missing = ""
        found = [handled for record in self._tail.look() for handled in self._new_in(record)]
        return sorted(found, key=lambda handled: handled.at)

    def _new_in(self, record: InboxRecord) -> list[Handled]:
        key = (record.tenant, record.event.id)
        since, settled_at = self._known.get(key, (None, None))
        last = record.history[-1].ended_at if record.history else None
        self._known[key] = last, record.settled_at
        new = [attempt for attempt in record.history if since is None or attempt.ended_at > since]
        if new:
            # The count begins again if an event is requeued, and its history does not.
            first = record.attempts + record.crashes - len(new) + 1
            return [Handled(record, max(1, number), attempt) for number, attempt in enumerate(new, start=first)]
        is_settled = record.status in FINISHED and record.settled_at != settled_at
        return [Handled(record, 0, None)] if is_settled else []
