"""Checks that events are handled: live workers, what they know, and what waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from envoyou_core.doctor.findings import Finding
from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox import InboxStats, Process, Status
from envoyou_core.inbox.processes import ProcessKind

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["backlog_findings", "check_work", "process_findings"]

LATE: Final = 60.0
"""Seconds by which an event may be overdue before there is a warning."""

TOO_LATE: Final = 300.0
"""Seconds by which an event may be overdue before there is a problem."""

WORKING: Final = frozenset({ProcessKind.WORKER, ProcessKind.DRAIN})


def check_work(webhooks: Webhooks) -> Iterator[Finding]:
    """Check the processes that use the inbox, the handlers, the backlog, and what is paused. The inbox must be open."""
    names = [handler.name for handler in webhooks.registered]
    stats = webhooks.inbox.stats()
    yield from process_findings(webhooks.inbox.processes(), names, datetime.now(UTC), is_waiting=stats.overdue > 0)
    try:
        webhooks.check_providers()
    except ConfigurationError as error:
        yield Finding.problem("providers", str(error), "register it beside the handlers; no worker starts without it")
    yield from backlog_findings(stats)
    if paused := sorted(webhooks.paused):
        yield Finding.warning(
            "paused", f"paused: {', '.join(paused)}", "`envoyou resume` when the reason for the pause is gone"
        )


def process_findings(
    processes: Sequence[Process], handlers: Sequence[str], now: datetime, *, is_waiting: bool
) -> Iterator[Finding]:
    """Judge the listed processes.

    Args:
        processes: the processes that the inbox lists.
        handlers: the names of the handlers of this application.
        now: the time, to tell which processes are live.
        is_waiting: whether an event is due.
    """
    live = [process for process in processes if process.live_for(now) > 0]
    workers = [process for process in live if process.kind in WORKING]
    for worker in workers:
        known = ", ".join(sorted(name for name, _ in worker.handlers.handlers)) or "nothing"
        seen = max(0.0, (now - worker.seen_at).total_seconds())
        yield Finding.ok(
            "workers",
            f"{worker.kind.value} {worker.host}, process {worker.pid}, seen {seen:.0f} s ago, handles {known}",
        )
    if not workers:
        make = Finding.problem if is_waiting else Finding.warning
        yield make(
            "workers",
            f"no live worker{', and events wait' if is_waiting else ''}",
            "start the application, or `envoyou worker`; under WSGI, a worker starts with a process's first request",
        )
    versions = sorted({process.version for process in live})
    if len(versions) > 1:
        yield Finding.warning(
            "workers",
            f"the live processes have different releases: {', '.join(versions)}",
            "finish the deploy, and restart the processes that are left",
        )
    yield from _handler_findings(workers, handlers)


def _handler_findings(workers: Sequence[Process], handlers: Sequence[str]) -> Iterator[Finding]:
    if not handlers:
        yield Finding.warning(
            "handlers",
            "no handler is registered: events are stored and not handled",
            "import the module with the handlers where the application is created",
        )
        return
    known = {name for worker in workers for name, _ in worker.handlers.handlers}
    missing = sorted(set(handlers) - known) if workers else []
    if missing:
        yield Finding.problem(
            "handlers",
            f"no live worker has the handler {', '.join(missing)}",
            "restart the workers with this code; they must import the same modules as the application",
        )
    else:
        yield Finding.ok("handlers", f"registered: {', '.join(sorted(handlers))}")


def backlog_findings(stats: InboxStats) -> Iterator[Finding]:
    """Judge the events that wait, are dead or were rejected."""
    if stats.overdue > LATE:
        make = Finding.problem if stats.overdue > TOO_LATE else Finding.warning
        yield make(
            "events",
            f"the oldest waiting event is overdue by {stats.overdue:.0f} s",
            "start more workers, raise CONCURRENCY, or look for slow handlers with `envoyou events list`",
        )
    else:
        waiting = (
            f"the oldest waiting event is overdue by {stats.overdue:.0f} s" if stats.overdue else "no event is due"
        )
        yield Finding.ok("events", waiting)
    if dead := stats.by_status[Status.DEAD]:
        yield Finding.warning(
            "dead",
            f"{dead} {'event is' if dead == 1 else 'events are'} dead",
            "`envoyou events list --status dead`, correct the cause, then `envoyou events requeue --status dead`",
        )
    for handler, count in stats.waiting.items():
        yield Finding.problem(
            "waiting",
            f"{count} {'event waits' if count == 1 else 'events wait'} for the handler {handler}, which no process has",
            f"deploy it, name it with was=, or `envoyou events requeue --drop-handler {handler}`",
        )
    if stats.rejected:
        yield Finding.warning(
            "rejected",
            f"{stats.rejected} rejected {'delivery is' if stats.rejected == 1 else 'deliveries are'} kept",
            "`envoyou rejected list`; correct the cause, then `envoyou rejected retry --all`",
        )
