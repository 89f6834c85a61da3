"""What the rules of alerts look at, and how it is computed from counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from envoyou_core.analytics.rollups import Tally
from envoyou_core.analytics.summary import summarize
from envoyou_core.inbox.records import InboxStats, Status

if TYPE_CHECKING:
    from envoyou_core.inbox.processes import Process

__all__ = ["Baseline", "FleetObservation", "HostObservation", "has_worker", "observe", "volume_factor"]

MIN_CALLS: Final = 10
"""Handler calls below which there is no error rate: one failure of two calls is no trend."""

MIN_VOLUME: Final = 20
"""Events in an hour below which a difference from past weeks means nothing."""

MIN_WEEKS: Final = 2
"""Weeks whose same hour must have been counted."""

MIN_DELIVERIES: Final = 20
"""Deliveries in a week below which there is no usual gap."""

MIN_GAP: Final = 60.0
"""Seconds of the shortest usual gap: counts are by the minute."""

ALIVE_FOR: Final = timedelta(seconds=60)
"""How long after its last beat a worker counts as alive here. It beats every ten seconds."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is usual.

    Attributes:
        computed_at: epoch seconds.
        gap: the usual seconds between two deliveries in the last week; `None` if there were too few.
        volumes: the new events of the same hour in past weeks, of each week in which anything was counted.
    """

    computed_at: float
    gap: float | None
    volumes: tuple[int, ...]

    @classmethod
    def of(cls, now: float, delivered: int, seconds: float, volumes: Sequence[int]) -> Baseline:
        """Return the baseline of `delivered` deliveries in as many seconds."""
        gap = None if delivered < MIN_DELIVERIES else max(MIN_GAP, seconds / delivered)
        return cls(now, gap, tuple(volume for volume in volumes if volume))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetObservation:
    """What any process can see of all of them. `None`: nothing can be said.

    Attributes:
        error_rate: of the handler calls of the last ten minutes.
        unavailable: deliveries of that time that were answered 503.
        volume_factor: by how much the volume of the last hour differs from past weeks: at least 1.
        overdue: seconds since the oldest due event became due.
        silence: how many usual gaps ago the last delivery came.
        dead: the number of dead events.
        waiting: the number of events that wait for a handler.
        has_worker: whether a worker is alive; `None` if none has run within two days.
    """

    error_rate: float | None = None
    unavailable: float = 0.0
    volume_factor: float | None = None
    overdue: float = 0.0
    silence: float | None = None
    dead: float = 0.0
    waiting: float = 0.0
    has_worker: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostObservation:
    """What only a process of the same machine can see.

    Attributes:
        spooled: the number of events in the spool; `None` without one.
        disk_used: the used share of the fullest disk that the inbox or the spool is on; `None` without a file.
    """

    spooled: float | None = None
    disk_used: float | None = None


def observe(
    recent: Sequence[Tally],
    hour: Sequence[Tally],
    stats: InboxStats,
    processes: Iterable[Process],
    baseline: Baseline,
    last_delivery: float,
    now: datetime,
) -> FleetObservation:
    """Return what is observed.

    Args:
        recent: what was counted in the last ten minutes.
        hour: what was counted in the last hour.
        stats: the inbox's.
        processes: those that have used the inbox.
        baseline: what is usual.
        last_delivery: when the last delivery came, in epoch seconds.
        now: the time of the inbox's clock.
    """
    figures = summarize(recent, now, now)
    calls = figures.attempts
    gap = baseline.gap
    return FleetObservation(
        error_rate=calls.error_rate if calls.number >= MIN_CALLS else 0.0,
        unavailable=figures.deliveries.unavailable,
        volume_factor=volume_factor(summarize(hour, now, now).deliveries.accepted, baseline.volumes),
        overdue=max(0.0, stats.overdue),
        silence=None if gap is None else max(0.0, now.timestamp() - last_delivery) / gap,
        dead=stats.by_status.get(Status.DEAD, 0),
        waiting=sum(stats.waiting.values()),
        has_worker=has_worker(processes, now),
    )


def volume_factor(number: int, volumes: Sequence[int]) -> float | None:
    """Return by what factor a number of events differs from the average of past weeks, up or down.

    It is 1 if both are small, and `None` if there is no past to compare with.
    """
    if len(volumes) < MIN_WEEKS:
        return None
    usual = sum(volumes) / len(volumes)
    if max(number, usual) < MIN_VOLUME:
        return 1.0
    return max(number, usual) / max(1.0, min(number, usual))


def has_worker(processes: Iterable[Process], now: datetime) -> bool | None:
    """Return whether a worker is alive; `None` if none has run, because events are handled in another way."""
    from envoyou_core.inbox.processes import ProcessKind

    workers = [process for process in processes if process.kind in {ProcessKind.WORKER, ProcessKind.STOPPED}]
    if not workers:
        return None
    return any(process.kind is ProcessKind.WORKER and now - process.seen_at <= ALIVE_FOR for process in workers)
