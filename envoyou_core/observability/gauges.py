"""What is read from the database for gauges: by one exporter, when it is asked, and not by each process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from envoyou_core.errors import describe
from envoyou_core.inbox.files import SqliteFile
from envoyou_core.inbox.processes import ProcessKind
from envoyou_core.observability.redacted import RedactedLogger

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["GAUGES", "Gauge", "Reading", "read_gauges"]

log = RedactedLogger("envoyou")


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge. Its labels are the name of the `Webhooks` object and those in `labels`."""

    name: str
    description: str
    labels: tuple[str, ...] = ("name",)


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of a gauge, with the values of its labels."""

    gauge: Gauge
    value: float
    labels: tuple[str, ...]


EVENTS: Final = Gauge(
    "envoyou_inbox_events", "Events in the inbox; processed and ignored ones up to 10,000.", ("name", "status")
)
OLDEST: Final = Gauge("envoyou_inbox_oldest_waiting_seconds", "How long the oldest due event has been due.")
WAITING: Final = Gauge("envoyou_inbox_waiting_for_handler", "Events that wait for a handler that no process has.")
REJECTED: Final = Gauge("envoyou_inbox_rejected", "Genuine deliveries that were rejected and are kept.")
SPOOL: Final = Gauge("envoyou_spool_events", "Events in the spool of this machine.")
WORKERS: Final = Gauge("envoyou_workers_alive", "Processes whose worker has been seen lately.")
DISK: Final = Gauge("envoyou_disk_free_bytes", "Free bytes on the disk of the inbox's or the spool's file.")

GAUGES: Final = (EVENTS, OLDEST, WAITING, REJECTED, SPOOL, WORKERS, DISK)


def read_gauges(webhooks: Webhooks) -> Iterator[Reading]:
    """Read all gauges. What cannot be read is reported to the log and left out."""
    for read in (_inbox, _workers, _spool, _disk):
        try:
            yield from [*read(webhooks)]
        except Exception as error:
            log.warning("gauges of %s cannot be read: %s", webhooks.name, describe(error))


def _inbox(webhooks: Webhooks) -> Iterator[Reading]:
    name, stats = webhooks.name, webhooks.inbox.stats()
    for status, number in stats.by_status.items():
        yield Reading(EVENTS, number, (name, status.value))
    yield Reading(OLDEST, stats.overdue, (name,))
    yield Reading(WAITING, sum(stats.waiting.values()), (name,))
    yield Reading(REJECTED, stats.rejected, (name,))


def _workers(webhooks: Webhooks) -> Iterator[Reading]:
    now = datetime.now(UTC)
    workers = [it for it in webhooks.inbox.processes() if it.kind is ProcessKind.WORKER and it.live_for(now) > 0]
    yield Reading(WORKERS, len(workers), (webhooks.name,))


def _spool(webhooks: Webhooks) -> Iterator[Reading]:
    if webhooks.spool is not None:
        yield Reading(SPOOL, webhooks.spool.stats().total, (webhooks.name,))


def _disk(webhooks: Webhooks) -> Iterator[Reading]:
    files = [getattr(store, "file", None) for store in (webhooks.inbox, webhooks.spool)]
    folders = [file.path.parent for file in files if isinstance(file, SqliteFile)]
    if folders:
        yield Reading(DISK, min(shutil.disk_usage(folder).free for folder in folders), (webhooks.name,))
