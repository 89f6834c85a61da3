"""Conversion of stored rows into claims and records, for every inbox that uses a database.

A row may hold anything, because it was edited by hand or stored by a release with other rules. One unreadable row must
not stop the work on the others, so these functions do not raise because of a row's content. The claim or record says
why the row is unreadable, and has the id and type of its event from the columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from envoyou_core.errors import InvalidPayloadError
from envoyou_core.event import MAX_CREATED, Event, UnreadableData
from envoyou_core.inbox import transitions
from envoyou_core.inbox.history import decode_history
from envoyou_core.inbox.owed import owed_of
from envoyou_core.inbox.records import Claim, HandlerStatus, InboxRecord, Status

__all__ = [
    "EPOCH",
    "body_bytes",
    "claim_of",
    "encode_headers",
    "event_of",
    "headers_of",
    "instant",
    "moment",
    "object_key_in",
    "progress_of",
    "readable_owed",
    "readable_progress",
    "record_of",
]

Value = TypeVar("Value")
Moment = Callable[[Any], datetime]

EPOCH = datetime.fromtimestamp(0, UTC)
"""The epoch, in UTC. It replaces an unreadable time of acceptance."""


def claim_of(row: Any, *, key: int, token: str, moment: Moment) -> Claim:
    """Convert a row that has just been leased into a claim.

    Args:
        row: has the columns of the inbox's table as attributes.
        key: the row's primary key.
        token: the token of the lease.
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
        history=decode_history(row.history) if row.history else (),
        last_error=_text_or_none(row.last_error),
        owed=reader.owed(),
        accepted_set=_text_or_none(row.accepted_set),
        waits_for=_text_or_none(row.waits_for),
        waits_since=None if row.waits_since is None else reader.time("waits_since"),
        headers=headers_of(row.headers) if row.headers else {},
        traceparent=_text_or_none(row.traceparent),
        unreadable=reader.reason,
    )


def record_of(row: Any, *, moment: Moment) -> InboxRecord:
    """Convert a row into a record; the arguments are those of `claim_of`."""
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
        waits_for=_text_or_none(row.waits_for) if transitions.is_waiting(row.status, row.waits_for) else None,
        owed=reader.owed(),
        unreadable=reader.reason,
        headers=headers_of(row.headers) if row.headers else {},
        traceparent=_text_or_none(row.traceparent),
    )


def event_of(row: Any) -> tuple[Event, str | None]:
    """Read the event of a row; if it is unreadable, the second value says why.

    An unreadable event has the id, type and webhook id of the columns, and the stored bytes as its body. Access to its
    `data.object` raises `InvalidPayloadError`.
    """
    body = body_bytes(row.body)
    try:
        event = Event.from_body(body)
    except InvalidPayloadError as error:
        return _unreadable_event(row, body, reason := str(error)), reason
    if event.id != row.event_id:
        reason = "the id in the body differs from the column event_id"
    elif event.type != row.type:
        reason = "the type in the body differs from the column type"
    else:
        return event, None
    return _unreadable_event(row, body, reason), reason


def _unreadable_event(row: Any, body: bytes, reason: str) -> Event:
    created = row.created if isinstance(row.created, int) and 0 <= row.created <= MAX_CREATED else 0
    return Event(
        id=_text(row.event_id),
        type=_text(row.type),
        created=created,
        data=UnreadableData.because(reason),
        webhook_id=_text_or_none(row.webhook_id),
        body=body,
    )


def body_bytes(stored: object) -> bytes:
    """Convert a stored body into bytes. SQLite may hold text in a column of bytes."""
    if isinstance(stored, bytes):
        return stored
    if isinstance(stored, bytearray | memoryview):
        return bytes(stored)
    return _text(stored).encode("utf-8", "replace")


def object_key_in(body: object) -> str:
    """Return the value of the column `object_key` for a stored body, which is empty if the body is unreadable."""
    try:
        return Event.from_body(body_bytes(body)).object_id or ""
    except InvalidPayloadError:
        return ""


def progress_of(stored: object) -> dict[str, HandlerStatus]:
    """Decode the column `progress`, which is JSON text or the mapping that a database driver has made of it.

    Raises:
        ValueError: the value is something else, or has a handler status that this release does not know.
    """
    try:
        progress: Any = json.loads(stored) if isinstance(stored, str | bytes) else stored
        return {handler: HandlerStatus(status) for handler, status in progress.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("progress must be a JSON object with a known status for each handler") from None


def encode_headers(headers: Mapping[str, str]) -> str | None:
    """Encode the column `headers`, which is NULL if there are none."""
    return json.dumps(headers) if headers else None


def headers_of(stored: object) -> dict[str, str]:
    """Decode the column `headers`; none if it is unreadable, because the event can be handled without them."""
    if stored is None:
        return {}
    try:
        headers: Any = json.loads(_text(stored))
        return {name: value for name, value in headers.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError):
        return {}


def readable_progress(stored: object) -> dict[str, HandlerStatus] | None:
    """Decode the column `progress`; `None` if it is unreadable."""
    try:
        return progress_of(stored)
    except ValueError:
        return None


def readable_owed(stored: object) -> dict[str, bool] | None:
    """Decode the column `owed`; `None` if it is unreadable."""
    try:
        return owed_of(stored)
    except ValueError:
        return None


def moment(instant: int) -> datetime:
    """Convert microseconds since the epoch into a time in UTC."""
    return EPOCH + timedelta(microseconds=instant)


def instant(moment: datetime) -> int:
    """Convert a time into microseconds since the epoch, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(slots=True)
class _Reader:
    """Reads the columns of a row, and keeps the reason why the first unreadable one is unreadable."""

    row: Any
    moment: Moment
    reason: str | None = None

    def event(self) -> Event:
        event, reason = event_of(self.row)
        self.reason = self.reason or reason
        return event

    def progress(self) -> dict[str, HandlerStatus]:
        # As of every new event. To parse it would be a noticeable part of a claim.
        return {} if self.row.progress == "{}" else self._read("progress", progress_of, {})

    def owed(self) -> dict[str, bool]:
        return {} if self.row.owed is None else self._read("owed", owed_of, {})

    def count(self, column: str) -> int:
        stored = getattr(self.row, column)
        return stored if isinstance(stored, int) and stored >= 0 else self._unreadable(column, 0)

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
            return self._unreadable(column, default)

    def _unreadable(self, column: str, default: Value) -> Value:
        self.reason = self.reason or f"the column {column} holds a value that this release cannot read"
        return default


def _text(stored: object) -> str:
    if isinstance(stored, str):
        return stored
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "replace")
    return "" if stored is None else str(stored)


def _text_or_none(stored: object) -> str | None:
    return stored if stored is None or isinstance(stored, str) else _text(stored)
