"""What came of one delivery of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from envoyou_core.event import Event
from envoyou_core.inbox.records import Status
from envoyou_core.testing.accepted import AcceptedEvent
from envoyou_core.testing.states import States

__all__ = ["DeliveryResult"]

ACCEPTED = 200
NOT_FOUND = 404


@dataclass(frozen=True, slots=True, repr=False)
class DeliveryResult(States):
    """The answer to one delivery, and what became of its event by the time the delivery returned.

    Attributes:
        event: the event that was delivered.
        status_code: the HTTP status.
        response: the response of the framework's test client; of a `Webhooks` object alone, a `WebhookResponse`.
        path: the path to which it was posted.
        outcome: the event as it was when the delivery returned; `None` if it was not accepted.
        refusals: why it was refused. The answer does not say.
        notes: what else the developer should know.
    """

    event: Event
    status_code: int
    response: Any
    path: str
    outcome: AcceptedEvent | None = None
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def event_id(self) -> str:
        """The event's id."""
        return self.event.id

    @property
    def accepted(self) -> bool:
        """Whether it was answered 200: the event is stored, by this or an earlier delivery."""
        return self.status_code == ACCEPTED and self.outcome is not None

    @property
    def duplicate(self) -> bool:
        """Whether the event was stored already by an earlier delivery."""
        return self.outcome is not None and self.outcome.duplicate

    @property
    def status(self) -> Status | None:
        """The state of the event; `None` if it was not accepted, or if it was accepted before the test."""
        return None if self.outcome is None else self.outcome.status

    @property
    def attempts(self) -> int:
        """How many attempts have ended in this test."""
        return 0 if self.outcome is None else self.outcome.attempts

    @property
    def error(self) -> str | None:
        """What the last attempt has failed with, in one line."""
        return None if self.outcome is None else self.outcome.error

    def __repr__(self) -> str:
        answer = f"{self.status_code}"
        if self.status_code == NOT_FOUND:
            answer = f"{answer} at {self.path}: the application has no such route, see the fixture envoyou_path"
        elif self.outcome is None:
            answer = f"{answer} at {self.path}"
        parts = [f"answered {answer}"]
        if self.refusals:
            parts.append(f"refused: {'; '.join(self.refusals)}")
        if self.outcome is not None:
            parts.append(f"duplicate, {self.outcome.outcome}" if self.duplicate else self.outcome.outcome)
        return f"<delivery of {self.event.type} {self.event.id}: {', '.join([*parts, *self.notes])}>"


def result_of(
    event: Event,
    status_code: int,
    response: Any,
    path: str,
    outcome: AcceptedEvent | None,
    refusals: Sequence[str],
    notes: Sequence[str],
) -> DeliveryResult:
    """Make a result, in which the outcome no longer changes."""
    snapshot = None if outcome is None or status_code != ACCEPTED else replace(outcome)
    return DeliveryResult(event, status_code, response, path, snapshot, tuple(refusals), tuple(notes))
