"""Checks of numbers in the configuration. Errors quote a number, but never text, which may be a misplaced secret."""

from __future__ import annotations

from typing import TypeGuard

from envoyou_core.errors import ConfigurationError

__all__ = ["check_count", "check_seconds", "is_number"]


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is an int or a float; a bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_count(name: str, value: object) -> None:
    """Check that a setting is an integer of at least 1.

    Raises:
        ConfigurationError: it is not.
    """
    if not (is_number(value) and isinstance(value, int) and value >= 1):
        raise ConfigurationError(f"{name} must be an integer of at least 1, got {_quoted(value)}")


def check_seconds(name: str, value: object, *, minimum: float) -> None:
    """Check that a setting is a finite number of seconds of at least `minimum`.

    Raises:
        ConfigurationError: it is not.
    """
    if not (is_number(value) and minimum <= value < float("inf")):
        raise ConfigurationError(
            f"{name} must be a finite number of seconds, at least {minimum:g}, got {_quoted(value)}"
        )


def _quoted(value: object) -> str:
    return repr(value) if is_number(value) else type(value).__name__
