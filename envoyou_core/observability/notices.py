"""The lifecycle notices. Their texts hold no secret, no signature and no body; an exception object may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envoyou_core.inbox.records import Added, Status
from envoyou_core.observability.redacted import RedactedLogger

__all__ = [
    "Accepted",
    "HandlerFailed",
    "HandlerOverdue",
    "HandlerSkipped",
    "HookFailed",
    "InboxDown",
    "InboxUp",
    "LeaseLost",
    "Listener",
    "MoveRefused",
    "NoSpool",
    "NonceStoreFailed",
    "Notice",
    "Notices",
    "Rejected",
    "RetentionApplied",
    "Settled",
    "SpoolFailed",
    "Spooled",
    "WakeFailed",
    "WorkerFailed",
    "WorkerInterrupted",
    "WorkerStarted",
    "WorkerStopped",
]

log = RedactedLogger("envoyou")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A delivery was answered 200: its event is on disk."""

    event_id: str
    event_type: str
    added: Added
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A delivery was not accepted. `reason` tells why, `detail` more of it, for people.

    `webhook_id`, `path` and `peer` are what was sent, whole and unproven: escape them before they are shown.
    """

    status: int
    reason: str
    detail: str
    webhook_id: str | None = None
    path: str | None = None
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class NonceStoreFailed:
    """The nonce store could not be asked or told; the inbox's unique key stands alone meanwhile."""

    detail: str


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """One handler of one event failed in one attempt.

    `error` is the exception as it was raised, whose text and local variables may hold secrets and payloads.
    `traceback` is its traceback as the inbox keeps it: redacted, without the event's payload.
    """

    event_id: str
    event_type: str
    handler: str
    attempt: int
    error: BaseException
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class HandlerOverdue:
    """A sync handler has passed its time limit, in seconds, and still runs: nothing in Python can stop it."""

    event_id: str
    event_type: str
    handler: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerSkipped:
    """A handler left out an event that is older than the newest one applied to its object."""

    event_id: str
    event_type: str
    handler: str


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A function that was to be told of a dead event failed; the event is dead all the same.

    `error` and `traceback` are those of `HandlerFailed`.
    """

    hook: str
    event_id: str
    error: BaseException
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """An attempt ended. `retry_in` is in seconds; `None` when the event is finished.

    `exception` is what the last handler that failed in this attempt raised; its text may contain secrets. `traceback`
    is its redacted traceback.
    """

    event_id: str
    event_type: str
    status: Status
    attempt: int
    retry_in: float | None
    error: str | None
    seconds: float
    exception: BaseException | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """An attempt ended after its lease had passed to another worker; what it found was not recorded."""

    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class RetentionApplied:
    """What was kept for long enough was deleted: payloads, whole events, and how new pruned ones had been."""

    name: str
    scrubbed: int
    pruned: int
    marks: int


@dataclass(frozen=True, slots=True)
class WakeFailed:
    """The function that hints at accepted events failed; whoever looks into the inbox finds them all the same."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class NoSpool:
    """The inbox lies behind a network, and there is no second place to store. Told once, at the start."""

    name: str


@dataclass(frozen=True, slots=True)
class InboxDown:
    """The inbox failed or did not answer in time: from now on, events go to the spool. Told once for each outage."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """An event that was accepted is in the spool, and will be moved to the inbox."""

    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class InboxUp:
    """An outage is over, and nothing is left to be moved; `moved` counts what this process has moved."""

    name: str
    moved: int


@dataclass(frozen=True, slots=True)
class MoveRefused:
    """The inbox takes other events, and refuses this one: it stays in the spool. `retry_in` is in seconds."""

    event_id: str
    event_type: str
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class SpoolFailed:
    """The spool could not be used by whoever empties it; `retry_in` is in seconds, `None` at the next drain."""

    name: str
    detail: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker of this process began to take events from the inbox; `inbox` says where that is, without a password."""

    name: str
    kind: str
    inbox: str


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker stopped; `unfinished` counts the events that it gave back or left to their leases."""

    name: str
    unfinished: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker could not start or could not use the inbox; `retry_in` is in seconds, `None` at the next event."""

    name: str
    detail: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerInterrupted:
    """The host kept ending or freezing this process's worker while events were due. Emitted once in each process.

    `times` is how often it has happened by now.
    """

    name: str
    times: int


Notice = (
    Accepted
    | Rejected
    | NonceStoreFailed
    | HandlerFailed
    | HandlerOverdue
    | HandlerSkipped
    | HookFailed
    | RetentionApplied
    | Settled
    | LeaseLost
    | WakeFailed
    | NoSpool
    | InboxDown
    | Spooled
    | InboxUp
    | MoveRefused
    | SpoolFailed
    | WorkerStarted
    | WorkerStopped
    | WorkerFailed
    | WorkerInterrupted
)
Listener = Callable[[Notice], None]


class Notices:
    """The stream: whoever listens hears every notice, and no listener's failure harms the work."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Let `listener` hear every notice from now on; it is called where the work is done, so it must be quick."""
        self._listeners.append(listener)

    def emit(self, notice: Notice) -> None:
        """Tell everyone who listens."""
        for listener in self._listeners:
            try:
                listener(notice)
            except Exception:
                log.exception("a listener failed at %s", type(notice).__name__)
