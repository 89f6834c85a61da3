"""Notices about workers and what wakes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from envoyou_core.observability.notice import Notice, retry_text

__all__ = [
    "Claimed",
    "HandlersBounded",
    "LeasesEnded",
    "NoHandlers",
    "WakeFailed",
    "WorkerFailed",
    "WorkerInterrupted",
    "WorkerStarted",
    "WorkerStopped",
]

MAX_LISTED: Final = 20
"""Handlers that a log line names."""


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
class Claimed(Notice):
    """A worker has claimed `number` events in `seconds`. Only for listeners that ask for this kind."""

    on_demand: ClassVar[bool] = True
    level: ClassVar[int] = logging.DEBUG
    template: ClassVar[str] = "inbox %(name)s: claimed %(number)d events, %(seconds).3f s"

    name: str
    number: int
    seconds: float


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
    """`connections` for this process let fewer handlers hold a transaction than the worker has slots.

    They are the maximum of its connection pool, or its share of what the server admits for the role.
    """

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = (
        "%(name)s has at most %(connections)d connections in this process, because of its connection pool or of the "
        "limit of its role: no more than %(handlers)d handlers share the inbox's transaction at once, so that "
        "acceptance and settlements keep theirs"
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
        return {**self.fields(), "retry": retry_text(self.retry_in, otherwise="at the next event")}


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
