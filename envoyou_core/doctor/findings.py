"""What a check finds: one line for people, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from envoyou_core.errors import ConfigurationError, describe

__all__ = ["Check", "Finding", "Level", "guarded"]


class Level(StrEnum):
    """How bad a finding is: only a problem makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        check: the name of the check: one word, stable, for programs.
        level: how bad it is.
        text: what was found. It contains no secret and no payload.
        advice: what to do; empty if there is nothing to do.
    """

    check: str
    level: Level
    text: str
    advice: str = ""

    @classmethod
    def ok(cls, check: str, text: str) -> Finding:
        """Make a finding that needs no action."""
        return cls(check, Level.OK, text)

    @classmethod
    def warning(cls, check: str, text: str, advice: str) -> Finding:
        """Make a finding that may be intended, or that will become a problem."""
        return cls(check, Level.WARNING, text, advice)

    @classmethod
    def problem(cls, check: str, text: str, advice: str) -> Finding:
        """Make a finding because of which deliveries or events fail."""
        return cls(check, Level.PROBLEM, text, advice)


Check = Callable[[], Iterator[Finding]]
"""Yields its findings, one after the other."""


def guarded(name: str, check: Check) -> Iterator[Finding]:
    """Run a check. An exception that it raises is a finding as well, so that the other checks still run.

    Args:
        name: the name of the check.
        check: the check.
    """
    try:
        yield from check()
    except Exception as error:
        yield Finding.problem(name, f"the check failed: {text_of(error)}", "correct what the error names")


def text_of(error: Exception) -> str:
    """Return the text of an error. The type of a configuration error adds nothing to it."""
    text = describe(error)
    if isinstance(error, ConfigurationError):
        return text.removeprefix(f"{type(error).__qualname__}: ")
    return text
