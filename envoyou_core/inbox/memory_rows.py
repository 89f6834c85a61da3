"""The rows of the inbox in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from envoyou_core.event import Event
from envoyou_core.inbox import transitions
from envoyou_core.inbox.history import Attempt
from envoyou_core.inbox.owed import Owed
from envoyou_core.inbox.records import Claim, HandlerStatus, InboxRecord, Status
from envoyou_core.inbox.transitions import Changes

__all__ = ["MemoryRow"]


@dataclass(slots=True)
class MemoryRow:
    """The columns that the SQL inboxes have, and the event as an object."""

    key: int
    event: Event
    tenant: str
    event_id: str
    type: str
    created: int
    webhook_id: str | None
    body: bytes
    status: Status
    attempts: int
    crashes: int
    progress: Mapping[str, HandlerStatus]
    received_at: datetime
    due_at: datetime | None
    object_key: str
    lease_token: str | None = None
    settled_at: datetime | None = None
    last_error: str | None = None
    history: tuple[Attempt, ...] = field(default=())
    scrubbed_at: datetime | None = None
    erase_requested: bool = False
    accepted_set: str | None = None
    claimed_set: str | None = None
    owed: Owed = field(default_factory=dict)
    waits_for: str | None = None
    waits_since: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    traceparent: str | None = None

    @property
    def object(self) -> tuple[str, str] | None:
        """The tenant and the object; `None` if the event is not about an object."""
        return (self.tenant, self.object_key) if self.object_key else None

    @property
    def had_effect(self) -> bool:
        """See `transitions.had_effect`."""
        return transitions.had_effect(self.status, self.progress)

    @property
    def is_waiting(self) -> bool:
        """See `transitions.is_waiting`."""
        return transitions.is_waiting(self.status, self.waits_for)

    def is_leased(self, now: datetime) -> bool:
        """Whether a lease on the event is valid."""
        return self.status is transitions.LEASED and self.due_at is not None and self.due_at > now

    def change(self, changes: Changes) -> None:
        """Set the columns that change."""
        for column, value in changes.items():
            setattr(self, column, value)

    def scrub(self, now: datetime) -> None:
        """Delete the payload."""
        self.change(transitions.scrub(self.event, self.history, now))
        self.event = Event.from_body(self.body)
        self.erase_requested = False

    def claim(self, token: str) -> Claim:
        """Return the claim that holds the lease with `token`."""
        return Claim(
            key=self.key,
            token=token,
            event=self.event,
            received_at=self.received_at,
            attempts=self.attempts,
            crashes=self.crashes,
            progress=self.progress,
            tenant=self.tenant,
            webhook_id=self.webhook_id,
            history=self.history,
            last_error=self.last_error,
            owed=self.owed,
            accepted_set=self.accepted_set,
            waits_for=self.waits_for,
            waits_since=self.waits_since,
            headers=dict(self.headers),
            traceparent=self.traceparent,
        )

    def record(self) -> InboxRecord:
        """Return the record for display."""
        return InboxRecord(
            event=self.event,
            status=self.status,
            attempts=self.attempts,
            crashes=self.crashes,
            received_at=self.received_at,
            next_attempt_at=self.due_at,
            settled_at=self.settled_at,
            last_error=self.last_error,
            progress=dict(self.progress),
            tenant=self.tenant,
            webhook_id=self.webhook_id,
            history=self.history,
            scrubbed_at=self.scrubbed_at,
            waits_for=self.waits_for if self.is_waiting else None,
            owed=dict(self.owed),
            headers=dict(self.headers),
            traceparent=self.traceparent,
        )
