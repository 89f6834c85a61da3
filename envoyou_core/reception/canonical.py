"""The canonical form of a body: the guide's Python recipe, computed without blocking other threads.

Python's JSON decoder and encoder are C functions that hold the interpreter lock from the first byte to the last: a
mebibyte of nested lists blocks all other threads for 0.2 s. The canonical form of a body beyond `SMALL_BODY` is
therefore built from tokens, a few hundred at a time. See the guide, "Webhook Signature Verification".
"""

from __future__ import annotations

import heapq
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Final

import msgspec

from envoyou_core.reception.strict_json import load_json

__all__ = ["SMALL_BODY", "Pause", "canonical_form", "pause_regularly"]

SMALL_BODY: Final = 4096
"""Bytes. Python's `json` takes less than a millisecond for a body of this size, whatever its content."""

PIECE: Final = 500
"""Tokens or members that are processed between two pauses."""

LONG_TEXT: Final = 4096
"""Characters. A pause follows each longer text."""

WORK_TIME: Final = 0.001
PAUSE_TIME: Final = 0.0005
"""Seconds that a thread works, and pauses. Another thread would otherwise get the interpreter lock only after the
switch interval, which is five times as long, and it needs the lock several times for each request."""

Pause = Callable[[], object]

_SPACE = r"[ \t\n\r]"
# A string with escapes is not a token: a regular expression is slow at it, and matches a long one without a pause.
_STRING = r'"[^"\\]*+"'
_TOKEN = rf"{_SPACE}*+({_STRING}(?:{_SPACE}*+:)?+|\{{{_SPACE}*+\}}|[\[\], \t\n\r]++|[{{}}]|[-+.\w]++)"
_next_tokens = re.compile(_TOKEN).findall
_match_piece = re.compile(rf"(?>{_TOKEN}){{1,{PIECE}}}+").match
_match_colon = re.compile(rf"{_SPACE}*+:").match
_SINGLES = frozenset("[],")
_SPACES = dict.fromkeys(map(ord, " \t\n\r"))

_read_string = json.JSONDecoder().raw_decode
_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def canonical_form(body: bytes, *, pause: Pause = lambda: None) -> bytes:
    """Compute the guide's Python recipe: members sorted, no spaces, all characters beyond ASCII escaped.

    Args:
        body: the request's body.
        pause: called regularly while a large body is processed.

    Raises:
        ValueError: `body` is not UTF-8, not JSON, nested too deeply, has two members of one name, or contains NaN, an
            infinity or an integer of more digits than Python parses.
    """
    try:
        return _convert(body) if len(body) <= SMALL_BODY else _build_from_tokens(body, pause)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def pause_regularly() -> Pause:
    """Return a pause that sleeps for a moment after each millisecond of work, so that other threads can run."""
    began = time.thread_time()

    def pause_if_due() -> None:
        nonlocal began
        if time.thread_time() - began >= WORK_TIME:
            time.sleep(PAUSE_TIME)
            began = time.thread_time()

    return pause_if_due


def _convert(body: bytes) -> bytes:
    canonical = json.dumps(load_json(body), separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    # A signature of the canonical form does not cover a member that is dropped because its name occurs twice. Its colon
    # is dropped with it, and only an escaped colon can hide that. Counting is far cheaper than a Python call for every
    # object.
    if b"\\u003" in body or body.count(b":") != canonical.count(b":"):
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    return canonical


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _duplicate_name()


def _duplicate_name() -> ValueError:
    return ValueError("two members have the same name")


def _build_from_tokens(body: bytes, pause: Pause) -> bytes:
    # msgspec rejects half of a surrogate pair. For the syntax, the escape of another character is equivalent, even if
    # the backslash belongs to the escape before it.
    try:
        _check_syntax(body.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0"))
    except msgspec.DecodeError as error:
        # In msgspec 0.19 it is not a ValueError.
        raise ValueError(str(error)) from None
    pause()
    builder = _Builder(pause)
    for tokens in _pieces(body.decode("utf-8")):
        builder.add(tokens)
        pause()
    return builder.result()


def _pieces(text: str) -> Iterator[Sequence[str]]:
    """Split a valid JSON text into tokens: strings, names with their colons, numbers, literals, brackets and spaces."""
    position = 0
    while position < len(text):
        if (piece := _match_piece(text, position)) is not None:
            yield _next_tokens(text, position, piece.end())
            position = piece.end()
        elif (start := text.find('"', position)) >= 0:
            _, end = _read_string(text, start)
            if (colon := _match_colon(text, end)) is not None:
                end = colon.end()
            yield (text[start:end],)
            position = end
        else:
            return


class _Builder:
    """Builds the canonical form from the tokens of a valid JSON text.

    Only objects are sorted, so the value of a member, or the text outside of all objects, is a plain list of strings.
    """

    __slots__ = ("_add", "_enclosing", "_members", "_name", "_parts", "_pause")

    def __init__(self, pause: Pause) -> None:
        self._pause = pause
        self._parts: list[str] = []
        self._members: dict[str, str] = {}
        self._name: str | None = None
        self._enclosing: list[tuple[list[str], dict[str, str], str | None]] = []
        self._add: dict[str, Callable[[str], object]] = {
            '"': self._add_string,
            "{": self._open_object,
            "}": self._close_object,
            **dict.fromkeys("-0123456789", self._add_number),
            **dict.fromkeys("tfn", lambda literal: self._parts.append(literal)),
            **dict.fromkeys("[], \t\n\r", self._add_brackets_and_commas),
        }

    def add(self, tokens: Iterable[str]) -> None:
        add = self._add
        for token in tokens:
            add[token[0]](token)

    def result(self) -> bytes:
        return "".join(self._parts).encode()

    def _add_string(self, token: str) -> None:
        if token[-1] == ":":
            self._end_member()
            self._name, _ = _read_string(token)
            if self._name in self._members:
                raise _duplicate_name()
        elif token.isascii() and token.isprintable() and "\\" not in token:
            self._parts.append(token)
        else:
            self._parts.append(quote(_read_string(token)[0]))

    def _add_number(self, token: str) -> None:
        if token.isdigit() and len(token) < 20:
            self._parts.append(token)
        elif token.lstrip("-").isdigit():
            # Python parses a long integer in quadratic time.
            self._pause()
            self._parts.append(str(int(token)))
        else:
            number = float(token)
            if math.isinf(number):
                raise ValueError("a number is too large for a float")
            self._parts.append(repr(number))

    def _add_brackets_and_commas(self, token: str) -> None:
        self._parts.append(token if token in _SINGLES else token.translate(_SPACES))

    def _open_object(self, token: str) -> None:
        if token[-1] == "}":
            self._parts.append("{}")
            return
        self._enclosing.append((self._parts, self._members, self._name))
        self._parts, self._members, self._name = [], {}, None

    def _close_object(self, _: str) -> None:
        self._parts.append(",")
        self._end_member()
        written = "{" + ",".join(self._sorted_members()) + "}"
        self._parts, self._members, self._name = self._enclosing.pop()
        self._parts.append(written)
        if len(written) > LONG_TEXT:
            self._pause()

    def _end_member(self) -> None:
        if self._name is not None:
            # The comma before the next member belongs to the value's tokens.
            self._members[self._name] = "".join(self._parts)[:-1]
            self._parts = []

    def _sorted_members(self) -> Iterator[str]:
        members = self._members
        names = list(members)
        pieces = [sorted(names[start : start + PIECE]) for start in range(0, len(names), PIECE)]
        for count, name in enumerate(heapq.merge(*pieces) if len(pieces) > 1 else pieces[0], start=1):
            yield f"{quote(name)}:{members[name]}"
            if not count % PIECE:
                self._pause()
