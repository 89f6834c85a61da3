"""`--set path=value`: changes values of a JSON document that exist in it."""

from __future__ import annotations

import json
from typing import Any

import typer

__all__ = ["change", "changes"]

Change = tuple[tuple[str, ...], Any]
"""The path of a value, and what it is replaced by."""


def changes(texts: list[str]) -> list[Change]:
    """Parse texts such as `data.object.email=ada@example.com`. A value that is not JSON is text.

    Raises:
        BadParameter: one has no `=`, or no path before it.

    Examples:
        >>> changes(["data.object.age=36", "data.object.name=Ada"])
        [(('data', 'object', 'age'), 36), (('data', 'object', 'name'), 'Ada')]
    """
    return [_change(text) for text in texts]


def _change(text: str) -> Change:
    path, separator, value = text.partition("=")
    if not separator or not path:
        raise typer.BadParameter(f"expected path=value, such as data.object.id=user_1, got {text!r}")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value
    return tuple(path.split(".")), parsed


def change(document: Any, path: tuple[str, ...], value: Any) -> None:
    """Replace the value at `path`: names of members, and positions in lists.

    Raises:
        BadParameter: the document has no such value.
    """
    *parents, last = path
    for depth, part in enumerate(parents):
        document = document[_key(document, part, path[:depth])]
    document[_key(document, last, tuple(parents))] = value


def _key(container: Any, part: str, place: tuple[str, ...]) -> str | int:
    name = ".".join(place) or "the event"
    if isinstance(container, dict):
        if part in container:
            return part
        raise typer.BadParameter(f"{name} has no member {part!r}; it has {', '.join(container) or 'none'}")
    if isinstance(container, list):
        if part.isdecimal() and int(part) < len(container):
            return int(part)
        raise typer.BadParameter(f"{name} has no item {part!r}; it has {len(container)}, counted from 0")
    raise typer.BadParameter(f"{name} is neither an object nor a list, so it has no {part!r}")
