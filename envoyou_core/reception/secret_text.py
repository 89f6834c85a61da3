"""Rejects secrets with characters that were added by mistake while the secret was copied, quoted or read from a file.

Such a secret matches no signature, and the only symptom would be a 401 for each delivery.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from envoyou_core.errors import ConfigurationError

__all__ = ["check_secret_text"]

_QUOTES: Final = frozenset("\"'`\u00b4\u201a\u201e\uff02\uff07")
_QUOTE_CATEGORIES: Final = frozenset({"Pi", "Pf"})
"""Initial and final quotation marks, such as the curly ones of word processors."""

_BLANK_LETTERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols that Unicode classifies as printable although they are invisible."""

_NAMES: Final = {
    "\0": "null",
    "\t": "tab",
    "\n": "line feed",
    "\r": "carriage return",
    "\ufeff": "byte order mark",
}


def check_secret_text(secret: str | bytes, name: str) -> None:
    """Reject a secret with white space or quotes around it, or with an invisible character in it.

    Bytes that are not UTF-8 are accepted as a binary key, in which any byte may be intended.

    Args:
        secret: the secret; not empty.
        name: the secret's name in the error.

    Raises:
        ConfigurationError: the secret has such a character. The error names the character and no other part of it.
    """
    if isinstance(secret, bytes):
        try:
            secret = secret.decode()
        except UnicodeDecodeError:
            return
    for place, character in (("begins with", secret[0]), ("ends with", secret[-1])):
        if character.isspace() or _is_quote(character):
            raise ConfigurationError(f"{name} {place} {_describe(character)}: remove it")
    for character in secret:
        if _is_invisible(character):
            raise ConfigurationError(f"{name} contains {_describe(character)}, which is invisible: remove it")


def _is_quote(character: str) -> bool:
    return character in _QUOTES or unicodedata.category(character) in _QUOTE_CATEGORIES


def _is_invisible(character: str) -> bool:
    return (
        not character.isprintable()
        or character in _BLANK_LETTERS
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _describe(character: str) -> str:
    code_point = f"U+{ord(character):04X}"
    name = _NAMES.get(character) or unicodedata.name(character, "").lower()
    return f"{code_point} ({name})" if name else code_point
