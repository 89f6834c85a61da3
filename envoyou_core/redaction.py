"""What an error says, made fit to be kept and shown: without what looks like a secret, as text that can be stored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["MAX_READ", "hide", "printable", "redact"]

MAX_READ: Final = 50_000
"""Characters of an error that are looked through for secrets: who puts megabytes into one shall hold nobody up."""

MARK: Final = "[redacted]"

# Each of these takes time in proportion to the text, whatever it holds: repetition that may end in vain is bounded.

_WORD: Final = (
    "(?:"
    r'"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?"
    r"|(?P<quote>\\{1,8}[\"'])(?:(?!(?P=quote))[^\n])*(?:(?P=quote))?"
    r"|\\."
    r"|[^\s\"'\\]"
    ")+"
)
"""As a shell reads one, up to a space outside of quotes: so a literal goes as a whole, and what is called on it."""

_NAMED: Final = re.compile(
    r"(?P<name>(?:secret|passw(?:or)?d|passphrase|token|api[_-]?key|authorization)"
    r"(?!\w{0,64}(?-i:Error|Exception):[ ])"
    r"[\w-]{0,64}\\{0,8}[\"']?[\])]{0,3})"
    # What is annotated, `token: str = "..."`, has its value behind the second sign.
    r"(?P<sign>[ \t]{0,8}:[ \t]{0,8}[\w.\[\], |]{1,60}?[ \t]{0,8}=(?!=)[ \t]{0,8}|[ \t]{0,8}[:=]+>?[ \t]{0,8})"
    r"(?:(?:basic|bearer|digest|token)[ \t]{1,8})?" + _WORD,
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(?P<scheme>bearer)\s{1,8}[\"']?[^\s\"']+", re.IGNORECASE)
_SIGNING_SECRET: Final = re.compile(r"whsec_[^\s\"']*", re.IGNORECASE)
_SIGNATURE: Final = re.compile(r"\bv1,[0-9a-f]+", re.IGNORECASE)
_RUN: Final = re.compile(r"\S+")


def redact(text: str) -> str:
    """Take out of `text` what looks like a secret, and rather more than less.

    That is: signing secrets, signatures, bearer tokens, passwords in URLs, and what is assigned to a name such as
    `password`, `client_secret`, `token`, `api_key` or `authorization`.

    Examples:
        >>> redact("postgresql://app:hunter2@db/app refused, Authorization: Bearer abc")
        'postgresql://app:[redacted]@db/app refused, Authorization: [redacted]'
    """
    text = _NAMED.sub(_without_value, text)
    text = _SIGNING_SECRET.sub(MARK, text)
    text = _SIGNATURE.sub(MARK, text)
    text = _BEARER.sub(rf"\g<scheme> {MARK}", text)
    return _RUN.sub(_without_password, text) if "://" in text else text


def hide(text: str, private: Iterable[str]) -> str:
    """Take the texts `private` out of `text`, word for word."""
    for known in sorted(private, key=len, reverse=True):
        text = text.replace(known, MARK)
    return text


def printable(text: str, *, keep: str = "") -> str:
    """Replace what no database stores as text, or would move a terminal's cursor; `keep` are characters that may."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _without_value(found: re.Match[str]) -> str:
    # Only the first sign stays: between the two of what looks annotated may stand a value.
    sign = "=" if found["sign"].lstrip().startswith("=") else ": "
    return f"{found['name']}{sign}{MARK}"


def _without_password(found: re.Match[str]) -> str:
    scheme, separator, rest = found[0].partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}:{MARK}@{place}" if colon and at else found[0]
