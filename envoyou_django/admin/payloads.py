"""A payload as text for a page: spaced for reading, and bounded in depth and size, whatever was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MAX_DEPTH", "MAX_SIZE", "Excerpt", "excerpt_of"]

MAX_DEPTH: Final = 20
"""Levels. Each line is indented by its level, so that without a bound the page grows with the square of the depth."""

MAX_SIZE: Final = 50_000
"""Characters."""

MAX_TEXT: Final = 2_000
"""Characters of a single text, name or number."""

ELLIPSIS: Final = "…"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is shown of a payload.

    Attributes:
        text: JSON, indented, in which an ellipsis stands for what is left out.
        is_complete: whether nothing is left out.
        is_json: whether it could be read; otherwise `text` is what was sent.
    """

    text: str
    is_complete: bool
    is_json: bool


class _Number(str):
    """A number as it was sent: Python would not read one of thousands of digits, and would round others."""

    __slots__ = ()


def excerpt_of(body: bytes) -> Excerpt:
    """As much of `body` as a page can show; a body that Python's JSON decoder does not take is shown as it came."""
    try:
        document = json.loads(body, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        text = body.decode(errors="replace")
        return Excerpt(_printable(_shortened(text, MAX_SIZE)), len(text) <= MAX_SIZE, is_json=False)
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
        # Cut first: a text of a megabyte is not to be encoded for the sake of its beginning.
        if isinstance(value, str) and len(value) > MAX_TEXT:
            self.is_complete = False
            value = type(value)(_shortened(value, MAX_TEXT))
        if isinstance(value, _Number):
            return str(value)
        return _printable(json.dumps(value, ensure_ascii=False))


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + ELLIPSIS


def _printable(text: str) -> str:
    """Control characters, halves of surrogate pairs and marks that reverse the direction of text, as JSON escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else json.dumps(c)[1:-1] for c in text)
