"""The kinds of notices, and the stream that carries them to the listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from envoyou_core.inbox.records import Added, Status
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import MAX_QUOTED, Quoted, RedactedLogger

log = RedactedLogger("envoyou")

MAX_LISTED: Final = 20
"""Handlers that a log line names."""

# Deliveries


@dataclass(frozen=True, slots=True)
class Accepted(Notice):
    """A delivery was answered 200: its event is on disk."""

    event_id: str
    event_type: str
    added: Added
    tenant: str = ""

    @property
    def level(self) -> int:
        """A warning if the event was dead, or is already stored with a different body."""
        return logging.WARNING if self.added in {Added.REARMED, Added.BODY_DIFFERS} else logging.INFO

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
    """

    status: int
    reason: str
    detail: str
    webhook_id: str | None = None
    path: str | None = None
    peer: str | None = None
    kept: bool = False

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
class NonceStoreFailed(Notice):
    """The nonce store could not be read or written. Until it recovers, only the inbox's unique key finds duplicates."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "nonce store failed (%(detail)s): nonces are not checked, duplicates are recognised by event id"
    )

    detail: str


# Attempts


@dataclass(frozen=True, slots=True)
class HandlerFailed(Notice):
    """One handler of one event failed in one attempt.

    Attributes:
        event_id: of the event.
        event_type: of the event.
        handler: the handler's name.
        attempt: counted from 1.
        error: the exception as it was raised. Its text and local variables may contain secrets and payloads.
        traceback: the traceback as the inbox stores it: redacted, without the event's payload.
        is_fatal: whether it is the last handler of the event's last attempt, so that the event is dead.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "handler %(handler)s failed for event %(event_id)s (%(event_type)s), attempt %(attempt)d"

    event_id: str
    event_type: str
    handler: str
    attempt: int
    error: BaseException
    traceback: str = ""
    is_fatal: bool = False

    def failure(self) -> tuple[BaseException | None, str]:
        """See `Notice.failure`. If it is fatal, `Settled` logs the exception, as an error."""
        return (None, "") if self.is_fatal else (self.error, self.traceback)


@dataclass(frozen=True, slots=True)
class DatabaseFailed(Notice):
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
    """

    level: ClassVar[int] = logging.WARNING

    event_id: str
    event_type: str
    handler: str
    database: str
    detail: str
    retry_in: float
    interruption: int | None = None

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
class HandlerSkipped(Notice):
    """A handler skipped an event that is older than the newest one applied to its object."""

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
class LeasesEnded(Notice):
    """Leases were ended early, because their processes of this machine are gone; the events are due at once.

    `leases` is the number of events, and `pids` has the ids of the processes.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "inbox %(name)s: %(leases)d events are due again, because the process that handled them is gone (pid %(pids)s)"
    )

    name: str
    leases: int
    pids: str


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


@dataclass(frozen=True, slots=True)
class Settled(Notice):
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

    @property
    def level(self) -> int:
        """An error if the event is dead, a warning if it failed or has no handler."""
        levels = {Status.DEAD: logging.ERROR, Status.FAILED: logging.WARNING, Status.IGNORED: logging.WARNING}
        return levels.get(self.status, logging.INFO)

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        retry = "" if self.retry_in is None else f"; next attempt in {self.retry_in:g} s"
        cause = "" if self.error is None else f": {self.error}"
        return {**self.fields(), "retry": retry, "cause": cause}

    def failure(self) -> tuple[BaseException | None, str]:
        """See `Notice.failure`. If the event is not dead, `HandlerFailed` has logged the exception."""
        return (self.exception, self.traceback) if self.status is Status.DEAD else (None, "")


@dataclass(frozen=True, slots=True)
class LeaseLost(Notice):
    """An attempt ended after its lease had passed to another worker. Its result was not recorded."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "lease of event %(event_id)s (%(event_type)s) passed to another worker before the attempt ended"
    )

    event_id: str
    event_type: str


# The inbox and the spool


@dataclass(frozen=True, slots=True)
class RetentionApplied(Notice):
    """Retention deleted payloads (`scrubbed`), events (`pruned`), watermarks (`marks`) and rejected deliveries."""

    template: ClassVar[str] = (
        "retention of %(name)s deleted %(scrubbed)d payloads, %(pruned)d events, %(marks)d watermarks, "
        "%(rejected)d rejected deliveries"
    )

    name: str
    scrubbed: int
    pruned: int
    marks: int
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class NoSpool(Notice):
    """The inbox is remote and there is no spool. Emitted once by a process that accepts events."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "remote inbox of %(name)s without a spool: events delivered during an outage longer than about 15 s are lost. "
        "Set spool to a local file, or to False if that is intended"
    )

    name: str


@dataclass(frozen=True, slots=True)
class InboxDown(Notice):
    """The inbox failed or did not answer in time: events go to the spool from now on. Emitted once per outage."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "inbox of %(name)s is down (%(detail)s): events go to the spool"

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class InboxUp(Notice):
    """An outage is over and no event is left to move. `moved` counts the events that this process has moved."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "inbox of %(name)s is up again: %(moved)d events moved from the spool"

    name: str
    moved: int


@dataclass(frozen=True, slots=True)
class Spooled(Notice):
    """An accepted event is in the spool and will be moved to the inbox."""

    template: ClassVar[str] = "spooled %(event_id)s (%(event_type)s)"

    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class MoveRefused(Notice):
    """The inbox accepts other events but refuses this one, which stays in the spool. `retry_in` is in seconds."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "inbox refused %(event_id)s (%(event_type)s), which stays in the spool, retrying in %(retry_in)g s: %(error)s"
    )

    event_id: str
    event_type: str
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class SpoolFailed(Notice):
    """Events could not be moved out of the spool. `retry_in` is in seconds, `None` for the next drain."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "spool of %(name)s cannot be emptied, retrying %(retry)s: %(detail)s"

    name: str
    detail: str
    retry_in: float | None

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        return {**self.fields(), "retry": _retry(self.retry_in, otherwise="at the next drain")}


# Workers


@dataclass(frozen=True, slots=True)
class WakeFailed(Notice):
    """The function given as `handoff` failed. Workers that poll the inbox find the event all the same."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "handoff of %(name)s failed, the event stays in the inbox: %(detail)s"

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Notice):
    """A worker of this process started.

    Attributes:
        name: the name of the `Webhooks`.
        kind: where it runs, such as `process` or `thread`.
        inbox: the location of its inbox, without a password.
        handlers: the names of the registered handlers.
    """

    template: ClassVar[str] = "worker %(name)s started (%(kind)s), inbox %(inbox)s, handlers %(listed)s"

    name: str
    kind: str
    inbox: str
    handlers: tuple[str, ...] = ()

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`. A long list of handlers is cut."""
        listed = ", ".join(self.handlers[:MAX_LISTED]) or "none"
        more = len(self.handlers) - MAX_LISTED
        return {**self.fields(), "listed": f"{listed} and {more} more" if more > 0 else listed}


@dataclass(frozen=True, slots=True)
class NoHandlers(Notice):
    """A worker started in a process in which no handler is registered. It handles events once there is one."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = (
        "no handler is registered for %(name)s in this process: events are stored and stay in the inbox. "
        "The module that registers the handlers may not be imported"
    )

    name: str


@dataclass(frozen=True, slots=True)
class HandlersBounded(Notice):
    """The inbox's connection pool of `connections` lets fewer handlers hold a transaction than the worker has slots."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "the connection pool of %(name)s has at most %(connections)d connections: no more than %(handlers)d handlers "
        "share the inbox's transaction at once, so that acceptance and settlements keep theirs"
    )

    name: str
    handlers: int
    connections: int


@dataclass(frozen=True, slots=True)
class WorkerStopped(Notice):
    """A worker stopped. `unfinished` counts the events that it returned to the inbox or left to their leases."""

    template: ClassVar[str] = "worker %(name)s stopped, %(unfinished)d events unfinished"

    name: str
    unfinished: int


@dataclass(frozen=True, slots=True)
class WorkerFailed(Notice):
    """A worker could not start or could not use the inbox. `retry_in` is in seconds, `None` for the next event."""

    level: ClassVar[int] = logging.ERROR
    template: ClassVar[str] = "worker %(name)s cannot start or use the inbox, retrying %(retry)s: %(detail)s"

    name: str
    detail: str
    retry_in: float | None

    def arguments(self) -> Mapping[str, object]:
        """See `Notice.arguments`."""
        return {**self.fields(), "retry": _retry(self.retry_in, otherwise="at the next event")}


@dataclass(frozen=True, slots=True)
class WorkerInterrupted(Notice):
    """The host stopped or froze this process's worker several times while events were due. Emitted once per process.

    `times` is how often that has happened so far.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "worker %(name)s was stopped or frozen %(times)d times while events were due, and events may stay unprocessed: "
        "the host does not run it between requests, or a handler blocks its event loop. On such a host, set "
        "handoff='manual' and call drain() on a schedule, or run `envoyou worker` elsewhere; see the page 'Serverless' "
        "of the documentation"
    )

    name: str
    times: int


def _retry(seconds: float | None, *, otherwise: str) -> str:
    return otherwise if seconds is None else f"in {seconds:g} s"


# The stream

Listener = Callable[[Notice], None]


class Notices:
    """The stream of notices. Each listener receives every notice, even if another listener fails."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every notice from now on, in the thread that emits it. It must return quickly."""
        self._listeners.append(listener)

    def emit(self, notice: Notice) -> None:
        """Call the listeners with `notice`, in the order in which they subscribed."""
        for listener in self._listeners:
            try:
                listener(notice)
            except Exception:
                log.exception("a listener failed for %s", type(notice).__name__)
