"""What an inbox in a database lets an operator and a health probe find out, beyond the events that it holds."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Protocol, runtime_checkable

from envoyou_core.event import Event
from envoyou_core.inbox.records import NewEvent

__all__ = ["InspectableInbox", "probe_entry"]

PROBE_TYPE = "envoyou.probe"
"""The type of the event that is inserted and rolled back. No worker ever finds it."""


@runtime_checkable
class InspectableInbox(Protocol):
    """An inbox in a database. Every method blocks."""

    @property
    def dialect(self) -> str:
        """The kind of the database: `sqlite`, `postgresql` or `mariadb`."""

    @property
    def database_file(self) -> Path | None:
        """The SQLite file; `None` for a server, or a database in memory."""

    def try_write(self) -> None:
        """Insert an event as an acceptance does, and roll it back.

        Raises:
            Exception: whatever an acceptance would fail with.
        """

    def read_row(self, statement: str) -> tuple[object, ...]:
        """Return the first row of a query; empty if there is none."""

    def discard_rejected(self, key: int) -> None:
        """Delete one rejected delivery."""


def probe_entry() -> NewEvent:
    """Make the entry that `InspectableInbox.try_write` inserts and rolls back."""
    document = {
        "id": f"probe_{uuid.uuid4().hex}",
        "type": PROBE_TYPE,
        "created": int(time.time()),
        "data": {"object": {}},
    }
    return NewEvent(Event.from_body(json.dumps(document).encode()))
