"""Formats a payload as text for a page: indented, and bounded in depth and size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MAX_DEPTH", "MAX_SIZE", "Excerpt", "excerpt_of"]

MAX_DEPTH: Final = 20
"""Levels. Because of the indentation, the page would grow with the square of the depth."""

MAX_SIZE: Final = 50_000
"""Characters."""

MAX_TEXT: Final = 2_000
"""Characters of a single string, name or number."""

ELLIPSIS: Final = "…"


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


def excerpt_of(body: bytes) -> Excerpt:
    """Return as much of `body` as a page can show. A body that Python's JSON decoder rejects is returned as sent."""
    try:
        document = json.loads(body, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        text = body.decode(errors="replace")
        return Excerpt(_escape_control_characters(_shorten(text, MAX_SIZE)), len(text) <= MAX_SIZE, is_json=False)
    printer = _Printer()
    text = printer.print(document)
    return Excerpt(text, printer.is_complete, is_json=True)


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
