"""What a process knows of the handlers of other processes: their sets, and which of them are live."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.processes import Process, held_handlers
from envoyou_core.inbox.protocol import WorkerInbox

__all__ = ["KnownHandlers"]

CACHE_SECONDS = 1.0
"""Seconds for which the list of processes is cached. Thousands of events may wait for the same handler."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks for events that wait for this process's handlers."""


class KnownHandlers:
    """Reads handler sets and processes from an inbox, and caches them. A set never changes.

    Args:
        inbox: the inbox.
        clock: returns epoch seconds.
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        inbox: WorkerInbox,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._clock = clock
        self._monotonic = monotonic
        self._sets: dict[str, HandlerSet] = {}
        self._processes: tuple[float, list[Process]] | None = None
        self._looked: tuple[str, float] | None = None
        self._named: set[tuple[str, str]] = set()

    def set_of(self, id: str) -> HandlerSet | None:
        """Return the handler set with this id; `None` if it is not stored."""
        if id not in self._sets:
            self._sets.update(self._inbox.handler_sets([id]))
        return self._sets.get(id)

    def held(self, event_type: str) -> dict[str, float]:
        """Return the handlers for `event_type` that live processes have; see `held_handlers`."""
        now, cached = self._monotonic(), self._processes
        if cached is None or now - cached[0] >= CACHE_SECONDS:
            self._processes = cached = (now, self._inbox.processes())
        return held_handlers(cached[1], event_type, datetime.fromtimestamp(self._clock(), UTC))

    def is_time_to_look(self, handlers: HandlerSet) -> bool:
        """Whether this process should look now for events that wait for its handlers.

        At once with new handlers, otherwise at most once in `LOOK_INTERVAL`.
        """
        looked = self._looked
        return looked is None or looked[0] != handlers.id or self._monotonic() - looked[1] >= LOOK_INTERVAL

    def look_now(self) -> None:
        """Look at the next opportunity, however recent the last look was."""
        self._looked = None

    def found_none(self, handlers: HandlerSet) -> None:
        """Note that no event waits for the handlers of this process."""
        self._looked = (handlers.id, self._monotonic())

    def is_new(self, subject: str, handler: str) -> bool:
        """Whether this is the first call with these arguments: what concerns many events is reported once."""
        if (subject, handler) in self._named:
            return False
        self._named.add((subject, handler))
        return True
