"""Patterns of event types: `user.created`, `user.*` and `*`. See the guide, "Supported Events"."""

from __future__ import annotations

from collections.abc import Iterable

from envoyou_core.errors import ConfigurationError

__all__ = ["check_pattern", "check_selection", "covers", "matches_any"]


def matches_any(patterns: Iterable[str], event_type: str) -> bool:
    """Whether `event_type` matches one of `patterns`.

    Examples:
        >>> matches_any(["auth.login", "user.*"], "user.created")
        True
    """
    return any(
        event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern for pattern in patterns
    )


def covers(pattern: str, other: str) -> bool:
    """Whether `pattern` matches every type that the pattern `other` matches.

    Of two patterns that overlap, one covers the other.

    Examples:
        >>> [covers("user.*", other) for other in ("user.created", "user.*", "user.key.*", "*", "auth.login")]
        [True, True, True, False, False]
    """
    return other.startswith(pattern[:-1]) if pattern.endswith("*") else other == pattern


def check_pattern(pattern: object) -> None:
    """Check that `pattern` is valid.

    Raises:
        ConfigurationError: it is not text, is empty, or has a `*` that does not stand alone or after a final dot.
    """
    if not isinstance(pattern, str):
        raise ConfigurationError(f"on() expects event types, got {pattern!r}: write @webhooks.on('user.created')")
    stem = pattern.removesuffix("*")
    if not pattern or "*" in stem or (stem != pattern and stem and not stem.endswith(".")):
        raise ConfigurationError(f"invalid event type {pattern!r}: write 'user.created', 'user.*' or '*'")


def check_selection(pattern: str | None) -> None:
    """Check the pattern by which stored events are selected; `None` selects all.

    Raises:
        ValueError: it is not a valid pattern.
    """
    if pattern is not None:
        try:
            check_pattern(pattern)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
