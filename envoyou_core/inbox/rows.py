"""Stored rows as claims and records, for every inbox that keeps rows in a database.

A row may hold anything: it was edited by hand, or stored by a release with other rules. One unreadable row must not
stop the work on the others, so nothing here raises because of a row's content. The claim or record says why the row is
unreadable, and has the id and type of its event from the columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from envoyou_core.errors import InvalidPayloadError
from envoyou_core.event import MAX_CREATED, Event, UnreadableData
from envoyou_core.inbox.history import decode_history
from envoyou_core.inbox.records import Claim, HandlerStatus, InboxRecord, Settlement, Status, completed_handlers

__all__ = [
    "EPOCH",
    "body_bytes",
    "claim_of",
    "event_of",
    "microseconds",
    "moment",
    "object_key_in",
    "progress_of",
    "record_of",
    "requeued_progress",
    "settled_progress",
]

Value = TypeVar("Value")
Moment = Callable[[Any], datetime]

EPOCH = datetime.fromtimestamp(0, UTC)
"""Stands for the time of acceptance if that is unreadable."""


def claim_of(row: Any, *, key: int, token: str, moment: Moment) -> Claim:
    """The claim on a row that has just been leased.

    Args:
        row: has the columns of the inbox's table as attributes.
        key: the row's primary key.
        token: the lease.
        moment: converts a stored time.
    """
    reader = _Reader(row, moment)
    return Claim(
        key=key,
        token=token,
        event=reader.event(),
        received_at=reader.received_at(),
        attempts=reader.count("attempts"),
        crashes=reader.count("crashes"),
        progress=reader.progress(),
        tenant=_text(row.tenant),
        webhook_id=_text_or_none(row.webhook_id),
        history=decode_history(row.history),
        last_error=_text_or_none(row.last_error),
        unreadable=reader.reason,
    )


def record_of(row: Any, *, moment: Moment) -> InboxRecord:
    """The record of a row; the arguments are those of `claim_of`."""
    reader = _Reader(row, moment)
    return InboxRecord(
        event=reader.event(),
        status=reader.status(),
        attempts=reader.count("attempts"),
        crashes=reader.count("crashes"),
        received_at=reader.received_at(),
        next_attempt_at=reader.time("due_at"),
        settled_at=reader.time("settled_at"),
        last_error=_text_or_none(row.last_error),
        progress=reader.progress(),
        tenant=_text(row.tenant),
        webhook_id=_text_or_none(row.webhook_id),
        history=decode_history(row.history),
        scrubbed_at=reader.time("scrubbed_at"),
        unreadable=reader.reason,
    )


def event_of(row: Any) -> tuple[Event, str | None]:
    """A row's event, and why it is unreadable, if it is.

    An unreadable event has the id, type and webhook id of the columns, and the stored bytes as its body. Access to its
    `data.object` raises `InvalidPayloadError`.
    """
    body = body_bytes(row.body)
    try:
        event = Event.from_body(body)
    except InvalidPayloadError as error:
        return _unreadable_event(row, body, reason := str(error)), reason
    for member in ("id", "type"):
        column = "event_id" if member == "id" else member
        if getattr(event, member) != getattr(row, column):
            reason = f"the {member} in the body differs from the column {column}"
            return _unreadable_event(row, body, reason), reason
    return event, None


def _unreadable_event(row: Any, body: bytes, reason: str) -> Event:
    created = row.created if isinstance(row.created, int) and 0 <= row.created <= MAX_CREATED else 0
    return Event(
        id=_text(row.event_id),
        type=_text(row.type),
        created=created,
        data=UnreadableData(reason),
        webhook_id=_text_or_none(row.webhook_id),
        body=body,
    )


def body_bytes(stored: object) -> bytes:
    """A stored body as bytes; SQLite keeps text in a column of bytes if that is what somebody wrote there."""
    if isinstance(stored, bytes | bytearray | memoryview):
        return bytes(stored)
    return _text(stored).encode("utf-8", "replace")


def object_key_in(body: object) -> str:
    """What the column `object_key` holds for a stored body; empty if the body is unreadable."""
    try:
        return Event.from_body(body_bytes(body)).object_id or ""
    except InvalidPayloadError:
        return ""


def progress_of(stored: object) -> dict[str, HandlerStatus]:
    """What the column `progress` holds: JSON text, or the mapping that a database driver has made of it.

    Raises:
        ValueError: it is something else, or names a state of a handler that this release does not know.
    """
    try:
        found: Any = json.loads(stored) if isinstance(stored, str | bytes) else stored
        return {name: HandlerStatus(state) for name, state in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("progress must be a JSON object with a known state for each handler") from None


def requeued_progress(stored: object) -> dict[str, HandlerStatus] | None:
    """The progress that a requeued row keeps; `None` if it is unreadable and has to stay as it is."""
    try:
        return completed_handlers(progress_of(stored))
    except ValueError:
        return None


def settled_progress(claim: Claim, settlement: Settlement) -> dict[str, HandlerStatus] | None:
    """The progress to store when an attempt ends; `None` if the stored one has to stay as it is.

    A newer release may have recorded what an older one cannot read; overwriting it would repeat finished handlers.
    """
    return dict(settlement.progress) if claim.unreadable is None else None


def moment(instant: int) -> datetime:
    """A time as the tables hold it, in UTC."""
    return EPOCH + timedelta(microseconds=instant)


def microseconds(epoch: float) -> int:
    """Epoch seconds as the tables hold them."""
    return round(epoch * 1e6)


@dataclass(slots=True)
class _Reader:
    """Reads a row's columns, and keeps the reason why the first unreadable one is unreadable."""

    row: Any
    moment: Moment
    reason: str | None = None

    def event(self) -> Event:
        event, reason = event_of(self.row)
        self.reason = self.reason or reason
        return event

    def progress(self) -> dict[str, HandlerStatus]:
        return self._read("progress", progress_of, {})

    def count(self, column: str) -> int:
        return self._read(column, _count, 0)

    def received_at(self) -> datetime:
        return self._read("received_at", self.moment, EPOCH)

    def time(self, column: str) -> datetime | None:
        return None if getattr(self.row, column) is None else self._read(column, self.moment, None)

    def status(self) -> Status:
        return self._read("status", Status, Status.DEAD if self.row.due_at is None else Status.FAILED)

    def _read(self, column: str, convert: Callable[[Any], Value], default: Value) -> Value:
        try:
            return convert(getattr(self.row, column))
        except (ValueError, TypeError, OverflowError):
            self.reason = self.reason or f"the column {column} holds a value that this release cannot read"
            return default


def _count(stored: object) -> int:
    if not isinstance(stored, int) or stored < 0:
        raise ValueError("a count must be a whole number, zero or more")
    return stored


def _text(stored: object) -> str:
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "replace")
    return "" if stored is None else str(stored)


def _text_or_none(stored: object) -> str | None:
    return None if stored is None else _text(stored)
