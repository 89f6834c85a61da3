"""A JSON parser that follows the standard: Python's own also accepts NaN and infinities, which others reject."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["load_json"]


def load_json(document: bytes, *, read_integer: Callable[[str], object] = int) -> Any:
    """Parse a JSON document.

    Args:
        document: JSON, in UTF-8.
        read_integer: converts an integer's digits.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or contains NaN or an infinity.
    """
    try:
        return json.loads(document.decode("utf-8"), parse_int=read_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
