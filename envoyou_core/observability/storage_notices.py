"""Notices about the inbox and the spool: retention, outages, and events that move."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from envoyou_core.observability.notice import Notice, retry_text

__all__ = [
    "CountsNotStored",
    "InboxDown",
    "InboxUp",
    "MoveRefused",
    "NoSpool",
    "RetentionApplied",
    "SpoolFailed",
    "Spooled",
]


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
class CountsNotStored(Notice):
    """What this process has counted could not be stored. It tries again; emitted once until that succeeds."""

    level: ClassVar[int] = logging.WARNING
    template: ClassVar[str] = "counts of %(name)s were not stored and are kept in memory for now: %(detail)s"

    name: str
    detail: str


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

    def error_texts(self) -> tuple[str, str]:
        """See `Notice.error_texts`."""
        return self.error, ""


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
        return {**self.fields(), "retry": retry_text(self.retry_in, otherwise="at the next drain")}
