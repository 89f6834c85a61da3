"""Notices about deliveries: accepted, rejected, and what the nonce store could not do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from envoyou_core.inbox.records import Added
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import MAX_QUOTED, Quoted

__all__ = ["Accepted", "CaptureFailed", "NonceStoreFailed", "Rejected", "RejectedNotKept", "RejectedPruned"]


@dataclass(frozen=True, slots=True)
class Accepted(Notice):
    """A delivery was answered 200: its event is on disk.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        added: what the inbox did with it.
        tenant: of the event.
        webhook_id: of the endpoint, as the signed body says it; `None` if it does not.
        created: when the event was created, in epoch seconds; `None` if it is unknown.
        received_at: when the request was received, in epoch seconds.
        body_size: bytes of the body.
        seconds: from the request, whose body has been read, until the event was on disk.
        traceparent: the trace context of the acceptance, as in W3C Trace Context; `None` if it was not traced.
    """

    event_id: str
    event_type: str
    added: Added
    tenant: str = ""
    # Not compared: two notices with the same result are equal.
    webhook_id: str | None = field(default=None, compare=False)
    created: int | None = field(default=None, compare=False)
    received_at: float | None = field(default=None, compare=False)
    body_size: int | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)
    traceparent: str | None = field(default=None, compare=False)

    @property
    def outcome(self) -> str:
        """`accepted`, or why it was not new."""
        return "accepted" if self.added is Added.NEW else self.added.value

    @property
    def event_status(self) -> str | None:
        """See `Notice.event_status`. That of a duplicate is not known."""
        return "received" if self.added.is_runnable else None

    @property
    def level(self) -> int:
        """A warning if the event was dead, or is already stored with a different body."""
        is_unusual = self.added is Added.REARMED or self.added is Added.BODY_DIFFERS
        return logging.WARNING if is_unusual else logging.INFO

    @property
    def template(self) -> str:
        """One for each result."""
        template = "accepted %(event_id)s (%(event_type)s)"
        match self.added:
            case Added.NEW:
                return template
            case Added.REARMED:
                return f"{template} again: the event was dead and gets new attempts"
            case Added.BODY_DIFFERS:
                return f"{template} again with a different body: the stored body is kept"
            case Added.DUPLICATE:
                return f"{template} again: duplicate, already stored"


@dataclass(frozen=True, slots=True)
class Rejected(Notice):
    """A delivery was not accepted.

    Attributes:
        status: the HTTP status code of the response.
        reason: a stable word, such as `signature_mismatch`.
        detail: an explanation for people.
        webhook_id: as sent, in full and unverified. Escape it before it is shown, like `path` and `peer`.
        path: as sent.
        peer: the address of the client.
        kept: whether the delivery is genuine and kept in the inbox, to be retried.
        body_size: bytes of the body; `None` if it was not read.
        seconds: from the request, whose body has been read, until the answer; `None` if it was not read.
    """

    status: int
    reason: str
    detail: str
    webhook_id: str | None = None
    path: str | None = None
    peer: str | None = None
    kept: bool = False
    body_size: int | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)

    @property
    def outcome(self) -> str:
        """`rejected`, or `unavailable` if the sender should retry."""
        return "unavailable" if self.status >= 500 else "rejected"

    @property
    def level(self) -> int:
        """An error if the event could not be stored, otherwise a warning."""
        return logging.ERROR if self.status >= 500 else logging.WARNING

    @property
    def template(self) -> str:
        """The reason, and the origin as far as it is known."""
        template = "answered %(status)d: %(reason)s (%(detail)s)"
        origin = {"webhook id %(webhook_id)s": self.webhook_id, "path %(path)s": self.path, "peer %(peer)s": self.peer}
        template = ", ".join([template, *(label for label, value in origin.items() if value)])
        return f"{template}; the delivery is genuine and kept as a rejected one" if self.kept else template

    def fields(self) -> Mapping[str, object]:
        """See `Notice.fields`. Texts that the sender wrote are cut."""
        sent = {"webhook_id": self.webhook_id, "path": self.path, "peer": self.peer}
        return {**Notice.fields(self), **{name: value and value[:MAX_QUOTED] for name, value in sent.items()}}

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`. Texts that the sender wrote are in quotes, so that each ends where it ends."""
        sent = {"webhook_id": self.webhook_id, "path": self.path, "peer": self.peer}
        return {**Notice.fields(self), **{name: Quoted(value or "") for name, value in sent.items()}}


@dataclass(frozen=True, slots=True)
class RejectedNotKept(Notice):
    """A genuine delivery was answered 400 and could not be kept: if it is not redelivered, it is lost."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "inbox of %(name)s did not keep a genuine delivery that was rejected: %(detail)s"

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class RejectedPruned(Notice):
    """The oldest rejected deliveries were deleted, because there were more than an inbox keeps."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "inbox of %(name)s deleted its %(number)d oldest rejected deliveries: there were too many"

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class CaptureFailed(Notice):
    """A refused request could not be written to the directory of `capture_rejected`."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "a refused request was not captured: %(detail)s"

    detail: str


@dataclass(frozen=True, slots=True)
class NonceStoreFailed(Notice):
    """The nonce store could not be read or written. Until it recovers, only the inbox's unique key finds duplicates."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "nonce store failed (%(detail)s): nonces are not checked, duplicates are recognised by event id"
    )

    detail: str
