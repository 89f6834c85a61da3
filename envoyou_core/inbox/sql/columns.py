"""How values are stored in the columns of the SQL inbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from envoyou_core.inbox.history import encode_history
from envoyou_core.inbox.owed import encode_owed
from envoyou_core.inbox.rows import encode_headers, instant
from envoyou_core.inbox.transitions import Changes

__all__ = ["encode"]

_ENCODERS: Final[dict[str, Callable[[Any], object]]] = {
    "status": attrgetter("value"),
    # New events have none.
    "progress": lambda progress: json.dumps(progress) if progress else "{}",
    "history": encode_history,
    "owed": encode_owed,
    "headers": encode_headers,
    **dict.fromkeys(("received_at", "due_at", "settled_at", "scrubbed_at", "waits_since"), instant),
}


def encode(changes: Changes) -> dict[str, Any]:
    """Encode the values of some columns."""
    return {
        column: _ENCODERS[column](value) if value is not None and column in _ENCODERS else value
        for column, value in changes.items()
    }
