"""Decides what a probe answers. Pure: values in, values out. The answers contain numbers and fixed words only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from envoyou_core.http import WebhookResponse
from envoyou_core.inbox.processes import Process, ProcessKind

__all__ = ["ALIVE_FOR", "MAX_OVERDUE", "Health", "Probe", "StoreState", "live", "ready", "worker"]

ALIVE_FOR: Final = 60.0
"""Seconds after its last beat for which a worker is alive: six beats. In the registry it counts as live for longer."""

MAX_OVERDUE: Final = 300.0
"""Seconds by which the oldest waiting event may be overdue."""


class Probe(StrEnum):
    """What a probe asks for."""

    LIVE = "live"
    READY = "ready"
    WORKER = "worker"


class StoreState(StrEnum):
    """Whether an inbox or a spool can be written."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    NOT_CHECKED = "not_checked"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a probe.

    Attributes:
        is_ok: whether it is a 200; otherwise it is a 503.
        details: what was found, for people: numbers and fixed words.
    """

    is_ok: bool
    details: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """Return the answer as a JSON object."""
        return {"status": "ok" if self.is_ok else "unavailable", **self.details}

    def response(self) -> WebhookResponse:
        """Return the HTTP response. No cache may keep it."""
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
        return WebhookResponse(200 if self.is_ok else 503, json.dumps(self.document()).encode(), headers)


def live() -> Health:
    """A process that answers is live, whatever its database does: a restart would not help the database."""
    return Health(True, {})


def ready(inbox: StoreState, spool: StoreState) -> Health:
    """A process is ready if it can store events, in the inbox or in the spool.

    A backlog does not matter: other processes would not accept faster.
    """
    return Health(StoreState.OK in (inbox, spool), {"inbox": inbox.value, "spool": spool.value})


def worker(
    processes: Sequence[Process] | None,
    overdue: float,
    now: datetime,
    *,
    only: str | None = None,
    max_overdue: float = MAX_OVERDUE,
) -> Health:
    """Events are handled if a worker is alive, and the oldest waiting event is not overdue for long.

    A task queue or a cron job counts as alive for a day after it has handled events.

    Args:
        processes: the processes that the inbox lists; `None` if it is unavailable.
        overdue: seconds since the oldest waiting event became due; zero if none waits.
        now: the time by the clock of the inbox.
        only: the id of the process whose worker counts; by default all count.
        max_overdue: seconds.
    """
    if processes is None:
        return Health(False, {"inbox": StoreState.UNAVAILABLE.value})
    ages = [
        (now - process.seen_at).total_seconds()
        for process in processes
        if only in {None, process.id} and _is_alive(process, now)
    ]
    details: dict[str, object] = {"workers": len(ages), "oldest_waiting_seconds": round(overdue, 1)}
    if ages:
        details["last_beat_seconds"] = round(max(0.0, min(ages)), 1)
    return Health(bool(ages) and overdue <= max_overdue, details)


def _is_alive(process: Process, now: datetime) -> bool:
    if process.kind is ProcessKind.DRAIN:
        return process.live_for(now) > 0
    return process.kind is ProcessKind.WORKER and (now - process.seen_at).total_seconds() <= ALIVE_FOR
