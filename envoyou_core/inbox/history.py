"""What became of each attempt at an event: kept with it, for whoever has to find out what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from envoyou_core.inbox.records import Settlement

__all__ = [
    "LONGEST_HISTORY",
    "Attempt",
    "Failure",
    "decode_history",
    "encode_history",
    "with_attempt",
    "with_crash",
    "without_failures",
]

LONGEST_HISTORY = 20
"""Attempts that are kept of one event: the newest."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How one handler failed in one attempt.

    Attributes:
        handler: its name.
        error: what went wrong, in one line.
        traceback: the same at length: cut to its end, and without what looks like a secret.
    """

    handler: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that has ended.

    Attributes:
        ended_at: when, in UTC; where its process died, when that was noticed.
        status: the state in which it left the event; `None` where its process died.
        seconds: how long it took; `None` where its process died.
        failures: how its handlers failed.
    """

    ended_at: datetime
    status: str | None
    seconds: float | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def began_at(self) -> datetime | None:
        """When it began, in UTC; `None` where its process died."""
        return None if self.seconds is None else self.ended_at - timedelta(seconds=self.seconds)


def with_attempt(history: tuple[Attempt, ...], settlement: Settlement, at: datetime) -> tuple[Attempt, ...]:
    """The history after an attempt that ends with `settlement`, at a time in UTC."""
    if settlement.seconds is None:
        return history
    ended = Attempt(at, settlement.status.value, settlement.seconds, settlement.failures)
    return (*history, ended)[-LONGEST_HISTORY:]


def with_crash(history: tuple[Attempt, ...], at: datetime) -> tuple[Attempt, ...]:
    """The history after an attempt whose process died, which was noticed at a time in UTC."""
    return (*history, Attempt(at, None))[-LONGEST_HISTORY:]


def without_failures(history: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The history without what errors said, which may be about a person."""
    return tuple(replace(attempt, failures=()) for attempt in history)


def encode_history(history: tuple[Attempt, ...]) -> str:
    """A history as the text that a database keeps."""
    return msgspec.json.encode(history).decode()


def decode_history(stored: str | None) -> tuple[Attempt, ...]:
    """The history that `encode_history` made text of."""
    return _decode(stored) if stored else ()


_decode = msgspec.json.Decoder(tuple[Attempt, ...]).decode
