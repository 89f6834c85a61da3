"""Judges whether a secret that can be used should be used."""

from __future__ import annotations

from typing import Final

from envoyou_core.reception.signature import Secret

__all__ = ["weakness_of"]

SAMPLES: Final = frozenset({b"your-webhook-secret", b"whsec_your_webhook_secret_key"})
"""Placeholders for the secret in the guide and in the documentation of this project."""

PREFIX: Final = b"whsec_"
"""The prefix of every secret of the platform."""

MIN_LENGTH: Final = 16
"""Bytes behind the prefix."""

MIN_DISTINCT: Final = 5
"""Different bytes behind the prefix."""


def weakness_of(secret: Secret) -> str:
    """Return what is wrong with a secret, as the end of a sentence; empty if nothing is known.

    Examples:
        >>> weakness_of("whsec_your_webhook_secret_key")
        'is the placeholder of the documentation'
        >>> weakness_of("whsec_test")
        'is easy to guess'
    """
    key = secret.encode() if isinstance(secret, str) else secret
    random_part = key.removeprefix(PREFIX)
    if key in SAMPLES:
        return "is the placeholder of the documentation"
    if len(random_part) < MIN_LENGTH or len(set(random_part)) < MIN_DISTINCT:
        return "is easy to guess"
    return ""
