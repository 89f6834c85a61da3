"""Formats a payload for people: indented, bounded in depth and size, and with its personal values masked if wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["IDENTIFYING_NAMES", "MASK", "MAX_DEPTH", "MAX_SIZE", "Excerpt", "decoded", "excerpt_of"]

MAX_DEPTH: Final = 20
"""Levels. Because of the indentation, the page would grow with the square of the depth."""

MAX_SIZE: Final = 50_000
"""Characters."""

MAX_TEXT: Final = 2_000
"""Characters of a single string, name or number."""

ELLIPSIS: Final = "…"

MASK: Final = "***"
"""Stands for a masked value."""

IDENTIFYING_NAMES: Final = frozenset({"id", "object", "type", "status", "created", "timestamp", "webhook_id"})
"""Members whose values identify the event and its object. They are never masked."""

_NAME: Final = re.compile(r"[A-Za-z_][\w-]{0,63}", re.ASCII)
"""A member's name that cannot be a value, such as the e-mail address by which some mappings are keyed."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The part of a payload that a page shows.

    Attributes:
        text: indented JSON, with an ellipsis in place of each omitted part.
        is_complete: whether nothing is omitted.
        is_json: whether the payload is valid JSON; otherwise `text` is the payload as sent.
    """

    text: str
    is_complete: bool
    is_json: bool


class _Number(str):
    """A number as sent: Python would reject one of thousands of digits, and round others."""

    __slots__ = ()


def excerpt_of(body: bytes, *, masked: bool = False) -> Excerpt:
    """Return as much of `body` as a page can show. A body that Python's JSON decoder rejects is returned as sent.

    Args:
        body: the payload.
        masked: whether personal values are masked; see `decoded`.
    """
    try:
        document = json.loads(body, parse_int=_Number, parse_float=_Number)
        document = _masked(document) if masked else document
    except (ValueError, RecursionError):
        if masked:
            return Excerpt(MASK, is_complete=False, is_json=False)
        text = body.decode(errors="replace")
        return Excerpt(_escape_control_characters(_shorten(text, MAX_SIZE)), len(text) <= MAX_SIZE, is_json=False)
    printer = _Printer()
    text = printer.print(document)
    return Excerpt(text, printer.is_complete, is_json=True)


def decoded(body: bytes, *, masked: bool) -> Any:
    """Return `body` as a JSON value, or as text if Python's JSON decoder rejects it.

    Masked are all texts and numbers, except those of the members `IDENTIFYING_NAMES`, and the names of members that
    may be values themselves. A body that is not JSON is masked as a whole.

    Examples:
        >>> decoded(b'{"id": "user_1", "email": "a@b.c", "verified": true, "tags": ["x"]}', masked=True)
        {'id': 'user_1', 'email': '***', 'verified': True, 'tags': ['***']}
    """
    try:
        document = json.loads(body)
        return _masked(document) if masked else document
    except (ValueError, RecursionError):
        return MASK if masked else body.decode(errors="replace")


def _masked(value: Any, *, identifies: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            name if _NAME.fullmatch(name) else MASK: _masked(item, identifies=name in IDENTIFYING_NAMES)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value if identifies or value is None or isinstance(value, bool) else MASK


class _Printer:
    def __init__(self) -> None:
        self.is_complete = True

    def print(self, document: Any) -> str:
        parts: list[str] = []
        size = 0
        for part in self._parts(document, 0):
            parts.append(part)
            size += len(part)
            if size > MAX_SIZE:
                self.is_complete = False
                parts.append(f"\n{ELLIPSIS}")
                break
        return "".join(parts)

    def _parts(self, value: Any, depth: int) -> Iterator[str]:
        if not isinstance(value, dict | list):
            yield self._scalar(value)
            return
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if not value:
            yield opening + closing
        elif depth == MAX_DEPTH:
            self.is_complete = False
            yield opening + ELLIPSIS + closing
        else:
            margin = "\n" + "  " * (depth + 1)
            items = value.items() if isinstance(value, dict) else (("", item) for item in value)
            before = opening
            for name, item in items:
                yield before + margin + (f"{self._scalar(name)}: " if isinstance(value, dict) else "")
                yield from self._parts(item, depth + 1)
                before = ","
            yield "\n" + "  " * depth + closing

    def _scalar(self, value: Any) -> str:
        # Shorten before encoding, so that a string of a megabyte is not encoded for its beginning.
        if isinstance(value, str) and len(value) > MAX_TEXT:
            self.is_complete = False
            value = type(value)(_shorten(value, MAX_TEXT))
        if isinstance(value, _Number):
            return str(value)
        return _escape_control_characters(json.dumps(value, ensure_ascii=False))


def _shorten(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + ELLIPSIS


def _escape_control_characters(text: str) -> str:
    """Replace control characters, lone surrogates and bidirectional control characters by JSON escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else json.dumps(c)[1:-1] for c in text)
