"""Answers the probes of a `Webhooks` object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from envoyou_core.health import reports
from envoyou_core.health.http import refusal_of
from envoyou_core.health.reports import MAX_OVERDUE, Health, Probe, StoreState
from envoyou_core.health.shared_check import SharedCheck
from envoyou_core.http import WebhookResponse
from envoyou_core.inbox.inspection import InspectableInbox
from envoyou_core.inbox.processes import Process
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.steps import Flow, arun, run

__all__ = ["Probes"]

TIME_LIMIT: Final = 1.5
"""Seconds for the inbox, and again for the spool: together as long as a delivery may take to be stored."""

KEPT_FOR: Final = 1.0
"""Seconds for which a result is used again, so that probes cannot load the database."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Work:
    """What the inbox says about workers.

    Attributes:
        processes: the listed processes.
        overdue: seconds since the oldest waiting event became due.
    """

    processes: list[Process]
    overdue: float


class Probes:
    """Answers `live`, `ready` and `worker`. Safe to call from any thread.

    Args:
        inbox: the inbox.
        spool: the spool, if there is one.
        in_thread: calls a function in a thread that is about to end, with what the framework needs around it.
        own_id: returns the id under which the inbox lists this process.
        clock: returns epoch seconds.
        time_limit: seconds that each check may take.
        kept_for: seconds for which a result is used again.
    """

    def __init__(
        self,
        inbox: WorkerInbox,
        spool: InspectableInbox | None,
        *,
        in_thread: Callable[[Callable[[], object]], object],
        own_id: Callable[[], str],
        clock: Callable[[], float],
        time_limit: float = TIME_LIMIT,
        kept_for: float = KEPT_FOR,
    ) -> None:
        self._inbox = inbox
        self._spool = spool
        self._in_thread = in_thread
        self._own_id = own_id
        self._clock = clock
        self._time_limit = time_limit
        self._kept_for = kept_for
        self._inbox_check = self._shared("inbox", self._try_inbox)
        self._spool_check = None if spool is None else self._shared("spool", spool.try_write)
        self._work_check = self._shared("workers", self._read_work)

    def check(self, probe: Probe | str, *, own_worker: bool = False, max_overdue: float = MAX_OVERDUE) -> Health:
        """Return the health, blocking the calling thread for at most some three seconds.

        Args:
            probe: `live`, `ready` or `worker`.
            own_worker: for `worker`: whether only the worker of this process counts.
            max_overdue: for `worker`: seconds by which the oldest waiting event may be overdue.

        Raises:
            ValueError: there is no such probe.
        """
        return run(self._check(Probe(probe), self._own_id() if own_worker else None, max_overdue))

    async def acheck(self, probe: Probe | str) -> Health:
        """Return the health, without blocking the running event loop. See `check`."""
        return await arun(self._check(Probe(probe), None, MAX_OVERDUE))

    def respond(self, method: str, probe: str, *, own_worker: bool = False) -> WebhookResponse:
        """Answer an HTTP request, blocking the calling thread. See `check`.

        Args:
            method: the method; 405 unless it is GET or HEAD.
            probe: 404 if there is no such probe.
            own_worker: whether only the worker of this process counts.
        """
        return refusal_of(method, probe) or self.check(probe, own_worker=own_worker).response()

    async def arespond(self, method: str, probe: str) -> WebhookResponse:
        """Answer an HTTP request, without blocking the running event loop. See `respond`."""
        return refusal_of(method, probe) or (await self.acheck(probe)).response()

    def _check(self, probe: Probe, only: str | None, max_overdue: float) -> Flow[Health]:
        if probe is Probe.LIVE:
            return reports.live()
        if probe is Probe.READY:
            return (yield from self._ready())
        try:
            work = yield from self._work_check.result()
        except Exception:
            return reports.worker(None, 0.0, self._now())
        return reports.worker(work.processes, work.overdue, self._now(), only=only, max_overdue=max_overdue)

    def _ready(self) -> Flow[Health]:
        inbox = yield from _state_of(self._inbox_check)
        if self._spool_check is None:
            return reports.ready(inbox, StoreState.NONE)
        if inbox is StoreState.OK:
            return reports.ready(inbox, StoreState.NOT_CHECKED)
        return reports.ready(inbox, (yield from _state_of(self._spool_check)))

    def _try_inbox(self) -> None:
        if isinstance(self._inbox, InspectableInbox):
            self._inbox.try_write()
        else:
            self._inbox.open()

    def _read_work(self) -> _Work:
        self._inbox.open()
        return _Work(self._inbox.processes(), max(0.0, -(self._inbox.seconds_until_due() or 0.0)))

    def _shared(self, name: str, check: Callable[[], T]) -> SharedCheck[T]:
        return SharedCheck(
            f"envoyou-health-{name}",
            check,
            time_limit=self._time_limit,
            kept_for=self._kept_for,
            runs_here=partial(getattr, self._inbox, "belongs_to_thread", False),
            in_thread=self._in_thread,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _state_of(check: SharedCheck[None]) -> Flow[StoreState]:
    try:
        yield from check.result()
    except Exception:
        return StoreState.UNAVAILABLE
    return StoreState.OK
