"""Rows of the inbox's table as what they stand for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from envoyou_core.event import Event
from envoyou_core.inbox.history import decode_history
from envoyou_core.inbox.records import Claim, HandlerStatus, InboxRecord, Status

__all__ = ["claim_of", "microseconds", "moment", "progress_of", "record_of"]


def claim_of(row: Row[Any]) -> Claim:
    """What a worker gets that has just leased the row."""
    return Claim(
        key=row.key,
        token=row.lease_token,
        event=Event.from_body(row.body),
        received_at=moment(row.received_at),
        attempts=row.attempts,
        crashes=row.crashes,
        progress=progress_of(row.progress),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
        history=decode_history(row.history),
        last_error=row.last_error,
    )


def record_of(row: Row[Any]) -> InboxRecord:
    """What people get to see."""
    return InboxRecord(
        event=Event.from_body(row.body),
        status=Status(row.status),
        attempts=row.attempts,
        crashes=row.crashes,
        received_at=moment(row.received_at),
        next_attempt_at=None if row.due_at is None else moment(row.due_at),
        settled_at=None if row.settled_at is None else moment(row.settled_at),
        last_error=row.last_error,
        progress=progress_of(row.progress),
        tenant=row.tenant,
        webhook_id=row.webhook_id,
        history=decode_history(row.history),
        scrubbed_at=None if row.scrubbed_at is None else moment(row.scrubbed_at),
    )


def progress_of(stored: str) -> dict[str, HandlerStatus]:
    """What `progress` holds."""
    return {name: HandlerStatus(became) for name, became in json.loads(stored).items()}


def moment(instant: int) -> datetime:
    """A time as the tables hold it, in UTC."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=instant)


def microseconds(epoch: float) -> int:
    """Epoch seconds as the tables hold them."""
    return round(epoch * 1e6)
