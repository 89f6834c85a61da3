"""Notices about the attempts of an event: its handlers, its database, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from envoyou_core.errors import describe
from envoyou_core.inbox.records import Status
from envoyou_core.observability.notice import Notice

__all__ = [
    "AttemptNotice",
    "DatabaseFailed",
    "HandlerAwaited",
    "HandlerDropped",
    "HandlerFailed",
    "HandlerOverdue",
    "HandlerPostponed",
    "HandlerSkipped",
    "HandlerSucceeded",
    "HookFailed",
    "LeaseLost",
    "Settled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptNotice(Notice):
    """What all notices of an attempt have, as keywords.

    Attributes:
        webhook_id: of the endpoint that the event was delivered to; `None` if it is unknown.
        tenant: of the event.
        traceparent: the trace context in which the event was accepted, as in W3C Trace Context; `None` without one.
    """

    webhook_id: str | None = None
    tenant: str = ""
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class HandlerSucceeded(AttemptNotice):
    """One handler of one event succeeded. Only for listeners that ask for this kind; the log has `Settled`.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        handler: the handler's name.
        attempt: counted from 1.
        seconds: how long it took, with its transaction.
    """

    on_demand: ClassVar[bool] = True
    level: ClassVar[int] = logging.DEBUG
    outcome: ClassVar[str] = "succeeded"
    template: ClassVar[str] = "handler %(handler)s succeeded for event %(event_id)s (%(event_type)s), %(seconds).3f s"

    event_id: str
    event_type: str
    handler: str
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerFailed(AttemptNotice):
    """One handler of one event failed in one attempt.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        handler: the handler's name.
        attempt: counted from 1.
        error: the exception as it was raised. Its text and local variables may contain secrets and payloads.
        traceback: the traceback as the inbox stores it: redacted, without the event's payload.
        is_fatal: whether it is the last handler of the event's last attempt, so that the event is dead.
        message: the type and text of the exception in one line, redacted, without the event's payload.
        seconds: how long the handler took.
    """

    outcome: ClassVar[str] = "failed"
    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "handler %(handler)s failed for event %(event_id)s (%(event_type)s), attempt %(attempt)d"

    event_id: str
    event_type: str
    handler: str
    attempt: int
    error: BaseException
    traceback: str = ""
    is_fatal: bool = False
    message: str = ""
    seconds: float | None = None

    def error_texts(self) -> tuple[str, str]:
        """See `Notice.error_texts`."""
        return self.message or describe(self.error), self.traceback

    def failure(self) -> tuple[BaseException | None, str]:
        """See `Notice.failure`. If it is fatal, `Settled` logs the exception, as an error."""
        return (None, "") if self.is_fatal else (self.error, self.traceback)


@dataclass(frozen=True, slots=True)
class HandlerPostponed(AttemptNotice):
    """A handler raised `RetryLater`, and has attempts left. This is not an error.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        handler: the handler's name.
        attempt: counted from 1.
        retry_in: seconds after which the handler runs again at the earliest.
        reason: the type and text of the exception, redacted.
        seconds: how long the handler took.
    """

    outcome: ClassVar[str] = "postponed"
    template: ClassVar[str] = (
        "handler %(handler)s postponed event %(event_id)s (%(event_type)s) at attempt %(attempt)d, by at least "
        "%(retry_in)g s: %(reason)s"
    )

    event_id: str
    event_type: str
    handler: str
    attempt: int
    retry_in: float
    reason: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DatabaseFailed(AttemptNotice):
    """The inbox's database interrupted an attempt, which does not count; the event is retried.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        handler: the handler that was about to run, or was running.
        database: the location of the inbox, without a password.
        detail: the type and text of the exception, redacted.
        retry_in: seconds until the event is due again.
        interruption: counted from 1 if the database worked again at once, so that the handler may be the reason;
            `None` during an outage.
        seconds: how long the handler took.
    """

    outcome: ClassVar[str] = "interrupted"
    level: ClassVar[int] = logging.WARNING

    event_id: str
    event_type: str
    handler: str
    database: str
    detail: str
    retry_in: float
    interruption: int | None = None
    seconds: float | None = None

    @property
    def template(self) -> str:
        """One for an outage and one for an interruption of this event."""
        template = (
            "database %(database)s failed at handler %(handler)s for event %(event_id)s (%(event_type)s), retrying in "
            "%(retry_in)g s, not counted as an attempt: %(detail)s"
        )
        return template if self.interruption is None else f"{template} (interruption %(interruption)d of this event)"


@dataclass(frozen=True, slots=True)
class HandlerOverdue(Notice):
    """A sync handler has exceeded its time limit of `seconds` and is still running. Python cannot stop it."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "handler %(handler)s exceeded its time limit of %(seconds)g s for event %(event_id)s (%(event_type)s) and is "
        "still running"
    )

    event_id: str
    event_type: str
    handler: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerSkipped(AttemptNotice):
    """A handler skipped an event that is older than the newest one applied to its object."""

    outcome: ClassVar[str] = "skipped"
    template: ClassVar[str] = (
        "handler %(handler)s skipped event %(event_id)s (%(event_type)s): a newer event of the same object has been "
        "applied"
    )

    event_id: str
    event_type: str
    handler: str


@dataclass(frozen=True, slots=True)
class HandlerAwaited(Notice):
    """Events wait for a process that knows a handler, which this process does not. Emitted once for each handler.

    `event_id` and `event_type` are those of the first such event; `InboxStats.waiting` counts them.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "event %(event_id)s (%(event_type)s) waits for a process that has the handler %(handler)s, as may others; "
        "this process does not have it"
    )

    handler: str
    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class HandlerDropped(Notice):
    """A handler is not called, because no live process has it and it has not begun. Emitted once for each handler.

    `event_id` and `event_type` are those of the first such event.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "handler %(handler)s is not called for event %(event_id)s (%(event_type)s), as for others: no live process has "
        "it any longer"
    )

    handler: str
    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class HookFailed(Notice):
    """An `on_dead` hook failed. The event is dead all the same.

    `error` and `traceback` are those of `HandlerFailed`.
    """

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "on_dead hook %(hook)s failed for event %(event_id)s"

    hook: str
    event_id: str
    error: BaseException
    traceback: str = ""

    def failure(self) -> tuple[BaseException | None, str]:
        """See `Notice.failure`."""
        return self.error, self.traceback

    def error_texts(self) -> tuple[str, str]:
        """See `Notice.error_texts`."""
        return describe(self.error), self.traceback


@dataclass(frozen=True, slots=True)
class Settled(AttemptNotice):
    """An attempt ended.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        status: the state of the event after the attempt.
        attempt: counted from 1.
        retry_in: seconds until the next attempt, `None` if the event is finished.
        error: the type and text of the exception, redacted.
        seconds: how long the attempt took.
        exception: the exception of the last handler that failed in this attempt. Its text may contain secrets.
        traceback: its redacted traceback.
        is_postponed: whether the event has not failed: the only exceptions were `RetryLater`, and it has attempts left.
        created: when the event was created, in epoch seconds; `None` if it is unknown.
        received_at: when the event was accepted, in epoch seconds of the inbox's clock; `None` if it is unknown.
        settled_at: when the attempt was settled, in epoch seconds of the inbox's clock.
        body_size: bytes of the event's body.
        handler: the last handler that failed in this attempt; `None` if none did.
        is_reported: whether `HandlerFailed` has reported the exception with its traceback.
    """

    template: ClassVar[str] = (
        "%(status)s %(event_id)s (%(event_type)s) after attempt %(attempt)d, %(seconds).3f s%(retry)s%(cause)s"
    )

    event_id: str
    event_type: str
    status: Status
    attempt: int
    retry_in: float | None
    error: str | None
    seconds: float
    exception: BaseException | None = None
    traceback: str = ""
    is_postponed: bool = False
    is_reported: bool = False
    created: int | None = None
    received_at: float | None = None
    settled_at: float | None = None
    body_size: int | None = None
    handler: str | None = None

    @property
    def outcome(self) -> str:
        """The state of the event, or `postponed`."""
        return "postponed" if self.is_postponed else self.status.value

    @property
    def event_status(self) -> str:
        """See `Notice.event_status`."""
        return self.status.value

    def error_texts(self) -> tuple[str, str] | None:
        """See `Notice.error_texts`."""
        return None if self.error is None or self.is_postponed else (self.error, self.traceback)

    @property
    def level(self) -> int:
        """An error if the event is dead, a warning if it failed or has no handler."""
        if self.is_postponed:
            # `HandlerPostponed` has been logged.
            return logging.DEBUG
        levels = {Status.DEAD: logging.ERROR, Status.FAILED: logging.WARNING, Status.IGNORED: logging.WARNING}
        return levels.get(self.status, logging.INFO)

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        retry = "" if self.retry_in is None else f"; next attempt in {self.retry_in:g} s"
        cause = "" if self.error is None else f": {self.error}"
        return {**self.fields(), "retry": retry, "cause": cause}

    def failure(self) -> tuple[BaseException | None, str]:
        """See `Notice.failure`. Each traceback is logged once: here only that of a fatal `HandlerFailed`."""
        is_new = self.status is Status.DEAD and not self.is_reported
        return (self.exception, self.traceback) if is_new else (None, "")


@dataclass(frozen=True, slots=True)
class LeaseLost(AttemptNotice):
    """An attempt ended after its lease had passed to another worker. Its result was not recorded."""

    outcome: ClassVar[str] = "lease_lost"
    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "lease of event %(event_id)s (%(event_type)s) passed to another worker before the attempt ended"
    )

    event_id: str
    event_type: str
