"""How values are stored in the columns of `ProcessedEvent`."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from envoyou_core.adapter import Changes, encode_headers, encode_history, encode_owed

__all__ = ["encode"]

_ENCODERS: Final[dict[str, Callable[[Any], object]]] = {
    "status": attrgetter("value"),
    "history": encode_history,
    "owed": encode_owed,
    "headers": encode_headers,
}


def encode(changes: Changes) -> dict[str, Any]:
    """Encode the values that the model's fields do not convert themselves."""
    return {column: _ENCODERS[column](value) if column in _ENCODERS else value for column, value in changes.items()}
