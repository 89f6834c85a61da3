"""The set of handlers that a process knows, under an id by which rows of the inbox refer to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from envoyou_core.patterns import matches_any

__all__ = ["HandlerSet"]

ID_LENGTH = 16

Patterns = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class HandlerSet:
    """The names and patterns of all handlers of a process. It never changes, so it may be cached by its id.

    Attributes:
        id: a hash of the names and patterns; two sets with the same id are equal.
        handlers: the patterns of each handler by its name, sorted by name.
        aliases: the same for names by which only other processes may know a handler of this one. They are not stored.

    Examples:
        >>> known = HandlerSet.of([("welcome", ["user.created"]), ("log", ["*"])])
        >>> known.matching("user.deleted")
        ('log',)
        >>> HandlerSet.decode(known.encode()) == known
        True
    """

    id: str
    handlers: Patterns = field(compare=False)
    # Not hashed: statements are cached by sets, and the hash of a tuple is computed anew each time.
    aliases: Patterns = field(default=(), hash=False)

    @classmethod
    def of(
        cls, handlers: Iterable[tuple[str, Iterable[str]]], aliases: Iterable[tuple[str, Iterable[str]]] = ()
    ) -> HandlerSet:
        """Make the set of some handlers, each given by its name and its patterns."""
        in_order = _in_order(handlers)
        id = hashlib.sha256(json.dumps(in_order).encode()).hexdigest()[:ID_LENGTH]
        return cls(id, in_order, _in_order(aliases))

    def matching(self, event_type: str) -> tuple[str, ...]:
        """Return the names of the handlers for `event_type`."""
        return tuple(name for name, patterns in self.handlers if matches_any(patterns, event_type))

    def encode(self) -> str:
        """Return the text that an inbox stores."""
        return json.dumps(self.handlers)

    @classmethod
    def decode(cls, stored: str) -> HandlerSet:
        """Return the set that was stored as this text.

        Raises:
            ValueError: the text is something else.
        """
        try:
            return cls.of((str(name), [str(pattern) for pattern in patterns]) for name, patterns in json.loads(stored))
        except (ValueError, TypeError, RecursionError):
            raise ValueError("a handler set must be a JSON array of names and patterns") from None


def _in_order(handlers: Iterable[tuple[str, Iterable[str]]]) -> Patterns:
    return tuple(sorted((name, tuple(sorted(set(patterns)))) for name, patterns in handlers))
