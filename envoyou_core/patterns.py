"""Patterns of event types: `user.created`, `user.*` and `*`. See the guide, "Supported Events"."""

from __future__ import annotations

from collections.abc import Iterable

from envoyou_core.errors import ConfigurationError

__all__ = ["check_pattern", "covers", "matches_any"]


def matches_any(patterns: Iterable[str], event_type: str) -> bool:
    """Whether one of `patterns` is that of `event_type`.

    Examples:
        >>> matches_any(["auth.login", "user.*"], "user.created")
        True
    """
    return any(
        event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern for pattern in patterns
    )


def covers(pattern: str, other: str) -> bool:
    """Whether every type of the pattern `other` is one of `pattern`. Of two that overlap, one covers the other.

    Examples:
        >>> [covers("user.*", other) for other in ("user.created", "user.*", "user.key.*", "*", "auth.login")]
        [True, True, True, False, False]
    """
    return other.startswith(pattern[:-1]) if pattern.endswith("*") else other == pattern


def check_pattern(pattern: object) -> None:
    """Refuse what is no pattern.

    Raises:
        ConfigurationError: it is not text, empty, or has a star anywhere but behind a dot at the end, or alone.
    """
    if not isinstance(pattern, str):
        raise ConfigurationError(f"on() takes event types, not {pattern!r}: write @webhooks.on('user.created')")
    stem = pattern.removesuffix("*")
    if not pattern or "*" in stem or (stem != pattern and stem and not stem.endswith(".")):
        raise ConfigurationError(f"{pattern!r} is no event type: write 'user.created', 'user.*' or '*'")
