"""The history of an event: how each of its attempts ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from envoyou_core.inbox.records import Settlement

__all__ = [
    "INTERRUPTED",
    "MAX_HISTORY",
    "Attempt",
    "Failure",
    "decode_history",
    "encode_history",
    "with_attempt",
    "with_crash",
    "without_failures",
]

MAX_HISTORY = 20
"""The number of attempts kept for each event; older ones are dropped."""

INTERRUPTED = "interrupted"
"""The status of an attempt that the database has interrupted. It is not counted, and the event has its former status.
"""


class Failure(msgspec.Struct, frozen=True):
    """How one handler failed in one attempt.

    Attributes:
        handler: the name of the handler.
        error: the error, in one line.
        traceback: the traceback, shortened to its end and redacted.
    """

    handler: str
    error: str
    traceback: str


class Attempt(msgspec.Struct, frozen=True):
    """A finished attempt.

    Attributes:
        ended_at: when it ended, in UTC. If the process died: when that was noticed.
        status: the event's status after the attempt; `None` if the process died, `interrupted` if the database
            interrupted it.
        seconds: how long the attempt took; `None` if the process died.
        failures: the handlers that failed.
    """

    ended_at: datetime
    status: str | None
    seconds: float | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def began_at(self) -> datetime | None:
        """When the attempt began, in UTC; `None` if the process died."""
        return None if self.seconds is None else self.ended_at - timedelta(seconds=self.seconds)


def with_attempt(history: tuple[Attempt, ...], settlement: Settlement, at: datetime) -> tuple[Attempt, ...]:
    """Append an attempt that ended with `settlement` at the time `at`, in UTC."""
    if settlement.seconds is None:
        return history
    status = INTERRUPTED if settlement.interrupted else settlement.status.value
    ended = Attempt(at, status, settlement.seconds, settlement.failures)
    return (*history, ended)[-MAX_HISTORY:]


def with_crash(history: tuple[Attempt, ...], at: datetime) -> tuple[Attempt, ...]:
    """Append an attempt whose process died, which was noticed at the time `at`, in UTC."""
    return (*history, Attempt(at, None))[-MAX_HISTORY:]


def without_failures(history: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Remove the error texts, which may contain personal data."""
    return tuple(replace(attempt, failures=()) for attempt in history)


def encode_history(history: tuple[Attempt, ...]) -> str:
    """Encode a history as JSON text, for the database."""
    return msgspec.json.encode(history).decode()


def decode_history(stored: str | None) -> tuple[Attempt, ...]:
    """Decode the text made by `encode_history`. A history that cannot be decoded counts as empty.

    The history is only for people to read, so it must not stop an event from being handled.
    """
    try:
        return _decode(stored) if stored else ()
    except (msgspec.DecodeError, TypeError, RecursionError, UnicodeError):
        return ()


_decode = msgspec.json.Decoder(tuple[Attempt, ...]).decode
