"""The processes that use an inbox, as its database lists them, and how long each counts as live."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from envoyou_core.forks import ForkSafeLock
from envoyou_core.inbox import proc_files
from envoyou_core.inbox.handler_sets import HandlerSet

if TYPE_CHECKING:
    from envoyou_core.handlers import Handlers

__all__ = [
    "BEAT_INTERVAL",
    "KEPT_FOR",
    "SETS_KEPT_FOR",
    "Beats",
    "Presence",
    "Process",
    "ProcessKind",
    "ProcessRegistration",
    "held_handlers",
]

Value = TypeVar("Value")


class ProcessKind(StrEnum):
    """What a process does with an inbox.

    It only accepts events, handles some now and then, or runs a worker; or it has stopped its worker in good order.
    """

    ACCEPTS = "accepts"
    DRAIN = "drain"
    WORKER = "worker"
    STOPPED = "stopped"


BEAT_INTERVAL: Final = 10.0
"""Seconds between two beats of a worker."""

QUIET_INTERVAL: Final = 60.0
"""Seconds after which a process without a worker, when it uses the inbox, is recorded as seen again."""

LIVE_FOR: Final = {
    ProcessKind.WORKER: 300.0,
    ProcessKind.STOPPED: 60.0,
    ProcessKind.ACCEPTS: 3600.0,
    ProcessKind.DRAIN: 86_400.0,
}
"""Seconds after its last beat for which a process counts as live.

A stopped worker counts for as long as a restart takes: its handlers must not be dropped while their only worker is
being restarted. A worker that was not stopped in good order may also hang for a while. A process that only accepts is
seen with its acceptances. A task queue or a cron job may run once a day.
"""

KEPT_FOR: Final = timedelta(days=2)
"""How long a process is listed after its last beat."""

SETS_KEPT_FOR: Final = timedelta(days=30)
"""How long a handler set is kept after it was last written, if no process and no unfinished event refers to it."""

SET_INTERVAL: Final = 3600.0
"""Seconds after which a process writes its handler set again."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that uses an inbox.

    Attributes:
        id: identifies it: a process id is used again by the operating system, and differs by host.
        kind: what it does with the inbox.
        handlers: the handlers that it knows.
        host: the name of its host.
        pid: its process id.
        version: the version of this library.
        started_at: when it began to use the inbox, in UTC.
        seen_at: when it was seen last, in UTC.
        boot_id: identifies the boot of its machine; `None` if unknown, as the following ones.
        pid_namespace: the namespace of its process id.
        pid_started: when the operating system started it, in clock ticks after the boot.
    """

    id: str
    kind: ProcessKind
    handlers: HandlerSet
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid_started: int | None = None

    def live_for(self, now: datetime) -> float:
        """Return the seconds for which the process still counts as live; zero or less if it does not."""
        return LIVE_FOR[self.kind] - (now - self.seen_at).total_seconds()


def held_handlers(processes: Iterable[Process], event_type: str, now: datetime) -> dict[str, float]:
    """Return the handlers for `event_type` that live processes have, and for how many seconds these count as live."""
    held: dict[str, float] = {}
    for process in processes:
        live_for = process.live_for(now)
        if live_for > 0:
            for name in process.handlers.matching(event_type):
                held[name] = max(live_for, held.get(name, 0.0))
    return held


class Presence:
    """What one `Webhooks` object shows of itself in the inbox. A forked child is a process of its own.

    Args:
        handlers: the registered handlers.
        clock: returns epoch seconds.
    """

    def __init__(self, handlers: Handlers, *, clock: Callable[[], float]) -> None:
        self._handlers = handlers
        self._clock = clock
        self._kind = ProcessKind.ACCEPTS
        self._process: Process | None = None
        self._count = -1
        self._listed: tuple[Process, float] | None = None
        self._lock = ForkSafeLock()

    @property
    def process(self) -> Process:
        """This process as it is now."""
        process = self._process
        if process is not None and self._is_current(process):
            return process
        with self._lock:
            return self._describe()

    def _is_current(self, process: Process) -> bool:
        return len(self._handlers) == self._count and process.kind is self._kind and process.pid == os.getpid()

    def _describe(self) -> Process:
        process, count = self._process, len(self._handlers)
        if process is None or process.pid != os.getpid():
            process = _this_process(self._clock())
            self._kind = ProcessKind.ACCEPTS
        known = HandlerSet.of(
            ((name, handler.patterns) for handler in self._handlers for name in handler.names),
            ((handler.alias, handler.patterns) for handler in self._handlers if handler.alias is not None),
        )
        self._process, self._count = replace(process, kind=self._kind, handlers=known), count
        return self._process

    @property
    def handlers(self) -> HandlerSet:
        """The handlers that this process knows now."""
        return self.process.handlers

    @property
    def is_listed(self) -> bool:
        """Whether this process was listed in the inbox as it is now, less than `QUIET_INTERVAL` ago."""
        listed = self._listed
        return listed is not None and listed[0] is self.process and 0 <= self._clock() - listed[1] < QUIET_INTERVAL

    def was_listed(self, process: Process) -> None:
        """Note that `process` was listed in the inbox."""
        self._listed = (process, self._clock())

    def drains(self) -> None:
        """Note that this process handles events, if only now and then."""
        if self.process.kind is ProcessKind.ACCEPTS:
            self._kind = ProcessKind.DRAIN

    def works(self) -> None:
        """Note that this process runs a worker."""
        if self.process.kind is not ProcessKind.WORKER:
            self._kind = ProcessKind.WORKER

    def retires(self) -> None:
        """Note that the worker of this process has ended."""
        if self.process.kind is ProcessKind.WORKER:
            self._kind = ProcessKind.ACCEPTS

    def stopped(self) -> Process | None:
        """Return this process as it is to be listed after its worker has stopped; `None` if it was not listed."""
        listed, self._listed = self._listed, None
        if listed is None or listed[0].pid != os.getpid():
            return None
        return replace(self.process, kind=ProcessKind.STOPPED)


@dataclass(frozen=True, slots=True)
class ProcessRegistration:
    """What an inbox writes about processes in one transaction.

    Attributes:
        at: when it is written, in UTC.
        sets: the handler sets.
        processes: the processes; their sets are among `sets`, or stored already.
    """

    at: datetime
    sets: tuple[HandlerSet, ...]
    processes: tuple[Process, ...]

    def __bool__(self) -> bool:
        return bool(self.sets or self.processes)


class Beats:
    """What an inbox object has written to its database of handler sets and processes, so that it writes them rarely."""

    def __init__(self) -> None:
        self._sets: dict[str, float] = {}
        self._processes: dict[str, tuple[str, ProcessKind, float]] = {}

    def beat(self, process: Process, now: datetime) -> ProcessRegistration:
        """Return the registration of a process, which is to be written in any case."""
        return ProcessRegistration(now, self._late_sets([process.handlers], now.timestamp()), (process,))

    def due(
        self, sets: Iterable[HandlerSet | None], processes: Iterable[Process | None], now: datetime
    ) -> ProcessRegistration:
        """Return what has to be written before rows may refer to `sets`, and those of `processes` not seen recently."""
        at = now.timestamp()
        late = tuple(
            process
            for process in _distinct(processes)
            if process is not None and not self._was_seen_recently(process, at)
        )
        return ProcessRegistration(now, self._late_sets([*sets, *(process.handlers for process in late)], at), late)

    def wrote(self, registration: ProcessRegistration) -> None:
        """Note a registration that was committed."""
        at = registration.at.timestamp()
        self._sets.update((handlers.id, at) for handlers in registration.sets)
        self._processes.update(
            (process.id, (process.handlers.id, process.kind, at)) for process in registration.processes
        )

    def _late_sets(self, sets: Iterable[HandlerSet | None], at: float) -> tuple[HandlerSet, ...]:
        return tuple(
            handlers
            for handlers in _distinct(sets)
            if handlers is not None and not 0 <= at - self._sets.get(handlers.id, float("-inf")) < SET_INTERVAL
        )

    def _was_seen_recently(self, process: Process, at: float) -> bool:
        if process.id not in self._processes:
            return False
        handlers, kind, seen_at = self._processes[process.id]
        return (handlers, kind) == (process.handlers.id, process.kind) and 0 <= at - seen_at < QUIET_INTERVAL


def _distinct(values: Iterable[Value]) -> Iterable[Value]:
    # All events of a commit mostly have the same objects, whose hashes take long to compute.
    return dict.fromkeys({id(value): value for value in values}.values())


def _this_process(now: float) -> Process:
    import socket

    at, stat = datetime.fromtimestamp(now, UTC), proc_files.read_stat()
    return Process(
        id=uuid.uuid4().hex,
        kind=ProcessKind.ACCEPTS,
        handlers=HandlerSet.of(()),
        host=socket.gethostname()[:255],
        pid=os.getpid(),
        version=_version(),
        started_at=at,
        seen_at=at,
        boot_id=proc_files.boot_id(),
        pid_namespace=proc_files.pid_namespace(),
        pid_started=None if stat is None else stat.started,
    )


@cache
def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("envoyou-webhooks")
    except metadata.PackageNotFoundError:
        return "unknown"
