"""The parameters that several commands share, and how their texts become values."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from envoyou_core.inbox import REQUEUABLE, Status
from envoyou_core.patterns import check_selection

__all__ = [
    "AS_JSON",
    "LIMIT",
    "OF_OBJECT",
    "OF_STATUS",
    "OF_TENANT",
    "OF_TYPE",
    "STANDARD_INPUT",
    "duration",
    "json_object",
    "pattern",
    "read_words",
    "requeuable_status",
    "status",
    "statuses",
]

STANDARD_INPUT: Final = "-"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])")


def duration(text: str) -> timedelta:
    """Parse a duration: a number followed by `s`, `m`, `h`, `d` or `w`.

    Raises:
        BadParameter: `text` is not a duration, has no unit, or the duration is too long.

    Examples:
        >>> duration("90m")
        datetime.timedelta(seconds=5400)
    """
    given = text.strip().lower()
    match = _DURATION.fullmatch(given)
    if match is None:
        if given.replace(".", "", 1).isdecimal():
            raise typer.BadParameter(f"{text!r} has no unit; write {given}s, {given}m, {given}h or {given}d")
        raise typer.BadParameter(f"a duration must be like 90m, 12h, 30d or 2w, got {text!r}")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise typer.BadParameter(f"the duration {text!r} is too long") from None


def status(text: str) -> Status:
    """Parse the status of an event.

    Raises:
        BadParameter: it is none.
    """
    return _status(text, Status)


def requeuable_status(text: str) -> Status:
    """Parse a status from which events can be requeued.

    Raises:
        BadParameter: it is none.
    """
    return _status(text, REQUEUABLE)


def _status(text: str, allowed: Iterable[Status]) -> Status:
    names = statuses(allowed)
    if text.lower() not in names:
        raise typer.BadParameter(f"expected one of {', '.join(names)}; got {text!r}")
    return Status(text.lower())


def statuses(allowed: Iterable[Status] = Status) -> list[str]:
    """Return the names of statuses, for an error and for the completion of a shell."""
    return [each.value for each in Status if each in set(allowed)]


def pattern(text: str) -> str:
    """Parse a pattern of event types.

    Raises:
        BadParameter: it is invalid.
    """
    try:
        check_selection(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; `-` reads it from standard input.

    Raises:
        BadParameter: it is not a JSON object.

    Examples:
        >>> json_object('{"id": "u1"}')
        {'id': 'u1'}
    """
    try:
        value = json.loads(sys.stdin.read() if text == STANDARD_INPUT else text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"expected a JSON object, got {type(value).__name__}")
    return value


def read_words(given: Iterable[str]) -> list[str]:
    """Return the given words, and instead of `-` those of standard input. Each word is returned once."""
    words: dict[str, None] = {}
    for word in given:
        words.update(dict.fromkeys(sys.stdin.read().split() if word == STANDARD_INPUT else [word]))
    return list(words)


AS_JSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
LIMIT = Annotated[int, typer.Option(min=1, help="The maximum number; the newest come first.")]
OF_STATUS = Annotated[
    Status | None,
    typer.Option(
        "--status",
        parser=status,
        metavar="STATUS",
        autocompletion=lambda: statuses(),
        help=f"Only events with this status: {', '.join(Status)}.",
    ),
]
OF_TYPE = Annotated[
    str | None,
    typer.Option(
        "--type", parser=pattern, metavar="PATTERN", help="Only events of these types: user.created, 'user.*' or '*'."
    ),
]
OF_OBJECT = Annotated[
    str | None, typer.Option("--object", metavar="ID", help="Only events about the object with this id.")
]
OF_TENANT = Annotated[str | None, typer.Option("--tenant", help="Only events of this tenant.")]
