"""The redaction of all text that is stored, logged or printed: no secrets, no payload, no control characters."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Final

__all__ = ["MARK", "MAX_READ", "excerpt", "hide", "one_line", "printable", "redact", "remember_secret"]

MAX_READ: Final = 50_000
"""Characters of an error that are searched for secrets. Bounds the time, because an error may contain megabytes."""

MARK: Final = "[redacted]"

MAX_LINE: Final = 10_000
"""Characters of a text that becomes part of a log line."""

MAX_SPLIT: Final = 1_000
"""Characters. A private text of at least this length is searched for before the text that may contain it is cut."""

MAX_KNOWN_SECRETS: Final = 64
"""Bounds the time of a redaction. With a secret callable, these are the most recently used secrets."""

MIN_KNOWN_SECRET: Final = 8
"""Characters. A shorter secret may be an ordinary word, and would make every text unreadable."""

MIN_UNBOUNDED: Final = 8
"""Characters. A private text of at least this length is also replaced inside a longer word."""

# Each operation on one item is atomic, and readers iterate over a copy: no lock is needed.
_known_secrets: OrderedDict[bytes, None] = OrderedDict()

# Each pattern takes time proportional to the length of any text: repetition that may have to backtrack is bounded.

_WORD: Final = (
    "(?:"
    r'"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?"
    r"|(?P<quote>\\{1,8}[\"'])(?:(?!(?P=quote))[^\n])*(?:(?P=quote))?"
    r"|\\."
    r"|[^\s\"'\\]"
    ")+"
)
"""A word as in a shell, up to a space outside of quotes. It includes a whole literal and method calls on it."""

_NAMED: Final = re.compile(
    r"(?P<name>(?:secret|passw(?:or)?d|passphrase|token|api[_-]?key|authorization)"
    r"(?!\w{0,64}(?-i:Error|Exception):[ ])"
    r"[\w-]{0,64}\\{0,8}[\"']?[\])]{0,3})"
    # In an annotated assignment, `token: str = "..."`, the value follows the second sign.
    r"(?P<sign>[ \t]{0,8}:[ \t]{0,8}[\w.\[\], |]{1,60}?[ \t]{0,8}=(?!=)[ \t]{0,8}|[ \t]{0,8}[:=]+>?[ \t]{0,8})"
    r"(?:(?:basic|bearer|digest|token)[ \t]{1,8})?" + _WORD,
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(?P<scheme>bearer)\s{1,8}[\"']?[^\s\"']+", re.IGNORECASE)
_SIGNING_SECRET: Final = re.compile(r"whsec_[^\s\"']*", re.IGNORECASE)
_SIGNATURE: Final = re.compile(r"\bv1,[0-9a-f]+", re.IGNORECASE)
_RUN: Final = re.compile(r"\S+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{0,200}")
"""No pattern that is searched for matches such a text, except that of signing secrets."""

_VALUES_IN_MESSAGES: Final = (
    # SQLAlchemy adds the statement and its parameters to the message of a database error.
    (re.compile(r"\[(SQL|parameters): .*?(?:\](?=\n)|\Z)", re.DOTALL), rf"[\1: {MARK}]"),
    # PostgreSQL names the values of the offending row, in any language, and quotes the statement.
    (re.compile(r"\b(DETAIL|LINE \d{1,9}):[^\n]+"), rf"\1: {MARK}"),
    (re.compile(r"\)=\([^\n]+"), rf")=({MARK})"),
    (re.compile(r"\b(invalid input (?:syntax|value|for query argument)[^:\n]{0,80}: )[^\n]+"), rf"\1{MARK}"),
    # MariaDB and MySQL.
    (re.compile(r"\b(Duplicate entry |Incorrect [\w ]{1,40} value: )[^\n]+"), rf"\1{MARK}"),
    # Pydantic.
    (re.compile(r"\b(input_value=)[^\n]+"), rf"\1{MARK}"),
)


def redact(text: str) -> str:
    """Remove everything from `text` that is or may be a secret.

    That is: the signing secrets of this process, also as base64, hexadecimal digits or percent-encoded; other signing
    secrets, signatures, bearer tokens, passwords in URLs, and values assigned to a name such as `password`,
    `client_secret`, `token`, `api_key` or `authorization`. Also the values that database drivers, SQLAlchemy and
    Pydantic put into their messages.

    Examples:
        >>> redact("postgresql://app:hunter2@db/app refused, Authorization: Bearer abc")
        'postgresql://app:[redacted]@db/app refused, Authorization: [redacted]'
    """
    for secret in list(_known_secrets):
        text = hide(text, _spellings(secret))
    for pattern, replacement in _VALUES_IN_MESSAGES:
        text = pattern.sub(replacement, text)
    text = _NAMED.sub(_without_value, text)
    text = _SIGNING_SECRET.sub(MARK, text)
    text = _SIGNATURE.sub(MARK, text)
    text = _BEARER.sub(rf"\g<scheme> {MARK}", text)
    return _RUN.sub(_without_password, text) if "://" in text else text


def hide(text: str, private: Iterable[str]) -> str:
    """Remove the texts `private` from `text`; short ones only if they are whole words."""
    for known in sorted(private, key=len, reverse=True):
        if known not in text:
            continue
        if len(known) >= MIN_UNBOUNDED:
            text = text.replace(known, MARK)
        else:
            text = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", MARK, text)
    return text


def excerpt(text: str, private: Collection[str], *, end: bool = False) -> str:
    """Return the beginning of `text`, or its end, without the texts `private`. The length is bounded by `MAX_READ`.

    A private text that is split by the cut is removed as well.
    """
    text = hide(text, (known for known in private if len(known) >= MAX_SPLIT))
    short = [known for known in private if len(known) < MAX_SPLIT]
    if len(text) <= MAX_READ:
        return hide(text, short)
    if end:
        return hide(text[-MAX_READ - MAX_SPLIT :], short)[MAX_SPLIT:]
    return hide(text[: MAX_READ + MAX_SPLIT], short)[:-MAX_SPLIT]


def remember_secret(secret: str | bytes) -> None:
    """Remove a signing secret of this process from every text that is redacted from now on."""
    key = secret.encode() if isinstance(secret, str) else secret
    # A pattern covers secrets with the prefix; the rest may be printed without it.
    key = key.removeprefix(b"whsec_").strip()
    if len(key) < MIN_KNOWN_SECRET:
        return
    # Not `move_to_end`: another thread may have removed it meanwhile.
    _known_secrets.pop(key, None)
    _known_secrets[key] = None
    while len(_known_secrets) > MAX_KNOWN_SECRETS:
        _known_secrets.popitem(last=False)


def one_line(text: str) -> str:
    """Return `text` redacted, cut and without line breaks and control characters, as a part of a log line."""
    if _PLAIN.fullmatch(text) is not None and "whsec_" not in text.lower():
        # An id, an event type or a handler's name. No pattern matches, but the text may be a secret of this process.
        for secret in list(_known_secrets):
            if any(spelling in text for spelling in _spellings(secret)):
                return redact(text)
        return text
    return redact(printable(text[:MAX_LINE]))


@lru_cache(MAX_KNOWN_SECRETS)
def _spellings(secret: bytes) -> frozenset[str]:
    """Return the forms in which a message may contain `secret`."""
    # Here, as in `_base64`, because a process that writes no message of an error does not need them.
    from urllib.parse import quote, quote_plus

    text = secret.decode("utf-8", "replace")
    spellings = {text, printable(text), repr(text)[1:-1], repr(secret)[2:-1], json.dumps(text)[1:-1]}
    spellings |= {f"whsec_{text}", f"whsec_{quote(secret, safe='')}"}
    spellings |= {quote(secret, safe=""), quote_plus(secret), secret.hex(), secret.hex().upper(), *_base64(secret)}
    return frozenset(spellings)


def _base64(secret: bytes) -> Iterator[str]:
    """Yield the base64 characters that depend on `secret` alone, for each offset that it may have in a longer text.

    A header for HTTP Basic authentication, for example, encodes a user name before it.
    """
    from base64 import b64encode

    for offset in range(3):
        encoded = b64encode(bytes(offset) + secret).decode().rstrip("=")
        # Characters at both ends may also encode bits of neighbouring bytes.
        exact = encoded[-(-8 * offset // 6) : 8 * (offset + len(secret)) // 6]
        yield exact
        yield exact.translate(_URL_SAFE)


_URL_SAFE: Final = str.maketrans("+/", "-_")


def printable(text: str, *, keep: str = "") -> str:
    """Replace characters that a database cannot store or that control a terminal, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _without_value(match: re.Match[str]) -> str:
    # Only the first sign is kept: the text between two signs may be a value and not an annotation.
    sign = "=" if match["sign"].lstrip().startswith("=") else ": "
    return f"{match['name']}{sign}{MARK}"


def _without_password(match: re.Match[str]) -> str:
    scheme, separator, rest = match[0].partition("://")
    credentials, at, address = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}:{MARK}@{address}" if colon and at else match[0]
