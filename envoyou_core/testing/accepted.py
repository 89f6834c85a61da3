"""What a `Webhooks` object accepted during a test, and what became of it, as its notices report it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from envoyou_core.inbox.records import Status
from envoyou_core.observability import Accepted, DatabaseFailed, HandlerFailed, NoHandlers, Notice, Rejected, Settled
from envoyou_core.patterns import matches_any
from envoyou_core.testing.states import States

__all__ = ["AcceptedEvent", "AcceptedEvents"]


@dataclass(slots=True)
class AcceptedEvent(States):
    """One event that was accepted during the test.

    Attributes:
        event_id: its id.
        type: its type.
        status: what became of it; `None` if it was accepted before the test.
        attempts: how many attempts have ended in this test.
        deliveries: how many deliveries of it were accepted in this test.
        duplicate: whether the last of them was a duplicate.
        error: what the last attempt has failed with, in one line.
        failed_handlers: the names of the handlers that failed in the last attempt.
        retry_in: seconds after which a failed event is due again; `None` if it is not retried.
    """

    event_id: str
    type: str
    status: Status | None
    attempts: int = 0
    deliveries: int = 0
    duplicate: bool = False
    error: str | None = None
    failed_handlers: tuple[str, ...] = ()
    retry_in: float | None = None

    @property
    def outcome(self) -> str:
        """What became of it, in words."""
        if self.status is None:
            return "accepted before this test"
        if self.waiting:
            return "waiting, not handled yet" if self.error is None else f"waiting: {self.error}"
        if self.ignored:
            return f"ignored: no handler for {self.type}"
        attempts = "" if self.attempts < 2 else f" after {self.attempts} attempts"
        handlers = f" in {', '.join(self.failed_handlers)}" if self.failed_handlers else ""
        cause = "" if self.error is None else f": {self.error}"
        return f"{self.status}{attempts}{handlers}{cause}"

    def __repr__(self) -> str:
        return f"<{self.type} {self.event_id}: {self.outcome}>"


class AcceptedEvents(Sequence[AcceptedEvent]):
    """The events that were accepted during a test, in order. It changes while the test goes on.

    Examples:
        In a test with the fixture `envoyou_events`:

            assert [event.type for event in envoyou_events] == ["user.created"]
            assert envoyou_events.of("user.*")[0].processed
            assert not envoyou_events.waiting
    """

    def __init__(self) -> None:
        self._events: dict[str, AcceptedEvent] = {}
        self._lock = threading.Lock()
        self._failing: dict[str, list[str]] = {}
        self._refusals: list[str] = []
        self.has_no_handlers = False

    def __call__(self, notice: Notice) -> None:
        """Take note of a notice. For test kits."""
        with self._lock:
            self._take(notice)

    def _take(self, notice: Notice) -> None:
        if isinstance(notice, Accepted):
            event = self._events.get(notice.event_id)
            if event is None:
                status = Status.RECEIVED if notice.added.is_runnable else None
                event = self._events[notice.event_id] = AcceptedEvent(notice.event_id, notice.event_type, status)
            elif notice.added.is_runnable:
                event.status = Status.RECEIVED
            event.deliveries += 1
            event.duplicate = not notice.added.is_runnable
        elif isinstance(notice, Rejected):
            self._refusals.append(f"{notice.reason}: {notice.detail}" if notice.detail else notice.reason)
        elif isinstance(notice, NoHandlers):
            self.has_no_handlers = True
        elif isinstance(notice, HandlerFailed):
            self._failing.setdefault(notice.event_id, []).append(notice.handler)
        elif isinstance(notice, Settled) and (event := self._events.get(notice.event_id)) is not None:
            event.status, event.attempts, event.error = notice.status, notice.attempt, notice.error
            event.retry_in = notice.retry_in
            self.has_no_handlers = False
            event.failed_handlers = tuple(self._failing.pop(notice.event_id, ()))
        elif isinstance(notice, DatabaseFailed) and (event := self._events.get(notice.event_id)) is not None:
            event.error = f"the database failed: {notice.detail}"

    def get(self, event_id: str) -> AcceptedEvent | None:
        """Return one event by its id; `None` if it was not accepted."""
        return self._events.get(event_id)

    def of(self, *types: str) -> list[AcceptedEvent]:
        """Return the events of these types, as in `on()`: `user.created`, `user.*` or `*`."""
        return [event for event in self if matches_any(types, event.type)]

    @property
    def waiting(self) -> list[AcceptedEvent]:
        """The events that nothing has handled yet."""
        return [event for event in self if event.waiting]

    @property
    def processed(self) -> list[AcceptedEvent]:
        """The events whose handlers have all succeeded."""
        return [event for event in self if event.processed]

    @property
    def unsuccessful(self) -> list[AcceptedEvent]:
        """The events that have failed, for now or for good."""
        return [event for event in self if event.failed or event.dead]

    @property
    def refusals(self) -> list[str]:
        """Why deliveries were refused in this test; the answer does not say."""
        return list(self._refusals)

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[AcceptedEvent]:
        with self._lock:
            return iter(list(self._events.values()))

    @overload
    def __getitem__(self, index: int) -> AcceptedEvent: ...

    @overload
    def __getitem__(self, index: slice) -> list[AcceptedEvent]: ...

    def __getitem__(self, index: int | slice) -> AcceptedEvent | list[AcceptedEvent]:
        return list(self)[index]

    def __repr__(self) -> str:
        lines = [f"  {event!r}" for event in self] + [f"  <refused: {reason}>" for reason in self._refusals]
        return "\n".join(["<no event was accepted>"] if not lines else ["<events of this test:", *lines, ">"])
