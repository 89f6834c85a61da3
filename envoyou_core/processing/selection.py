"""Which due events a worker may claim now: what is paused, and how many each handler may have in hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from envoyou_core.handlers import Handler
from envoyou_core.inbox.records import Claim, Selection
from envoyou_core.patterns import check_pattern, covers

__all__ = ["Look", "Turns", "looks", "ordered_patterns", "paused_patterns", "subject_of"]

LONGEST_BLOCKAGE: Final = 10.0
"""Seconds for which events that need several handlers to have room at once give way to others."""


def subject_of(*, type: str | None, handler: str | None) -> str:
    """What the inbox remembers as paused: `type:user.*` or `handler:welcome`.

    Raises:
        ValueError: not exactly one of them was named.
        ConfigurationError: the type is malformed.
    """
    if type is not None and handler is None:
        check_pattern(type)
        return f"type:{type}"
    if handler and type is None:
        return f"handler:{handler}"
    raise ValueError("name either a type or a handler")


def paused_patterns(subjects: Iterable[str], handlers: Iterable[Handler]) -> tuple[str, ...]:
    """The patterns of the events that must wait: whole, even if only one of their handlers is paused."""
    kinds = [subject.partition(":")[::2] for subject in subjects]
    types = [name for kind, name in kinds if kind == "type"]
    names = {name for kind, name in kinds if kind == "handler"}
    return tuple(
        dict.fromkeys([*types, *(p for handler in handlers if handler.name in names for p in handler.patterns)])
    )


def ordered_patterns(handlers: Iterable[Handler]) -> tuple[str, ...]:
    """The patterns of the events that are handled one after the other, if they are about one object."""
    return tuple(dict.fromkeys(pattern for handler in handlers if handler.ordered for pattern in handler.patterns))


@dataclass(frozen=True, slots=True)
class Look:
    """One claim to be made: up to `limit` of the selected events."""

    selection: Selection
    limit: int


@dataclass(frozen=True, slots=True)
class _Share:
    """The types that the same limited handlers match, those of no other share.

    Of two patterns that overlap, one covers the other. So all types of a pattern that no narrower one covers match the
    same patterns, and there are no more shares than patterns.
    """

    limited: frozenset[str]
    only: tuple[str, ...] | None
    without: tuple[str, ...]


class Turns:
    """Whose turn it is: the share that was asked for longest ago goes first, so that none starves.

    Args:
        monotonic: seconds, of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._count = itertools.count(1)
        self._asked: dict[frozenset[str], int] = {}
        self._blocked_since: dict[frozenset[str], float] = {}

    def in_order(self, shares: Iterable[_Share]) -> list[_Share]:
        """The shares, the one that was asked for longest ago first."""
        return sorted(shares, key=lambda share: self._asked.get(share.limited, 0))

    def note_asked(self, share: _Share) -> None:
        """Its turn is over."""
        self._asked[share.limited] = next(self._count)
        self._blocked_since.pop(share.limited, None)

    def has_given_way_for_long(self, share: _Share) -> bool:
        """Whether it could not be asked for, again and again, as one or the other of its handlers had no room."""
        now = self._monotonic()
        return now - self._blocked_since.setdefault(share.limited, now) > LONGEST_BLOCKAGE


def looks(
    handlers: Sequence[Handler], paused: Sequence[str], in_hand: Sequence[Claim], free: int, turns: Turns
) -> Generator[Look, Sequence[Claim], None]:
    """The claims to be made one after the other; it is sent what each has brought.

    An event that is in hand counts against each limited handler that matches its type, whichever of them still has to
    run: so no limit is ever exceeded, whatever a retry finds done.

    Args:
        handlers: all there are.
        paused: patterns of types that must wait.
        in_hand: what this worker holds. The limits are those of one worker process: another counts for itself.
        free: how many more events it can take.
        turns: whose turn it is, kept from one time to the next.
    """
    ordered = ordered_patterns(handlers)
    room = {
        handler.name: handler.concurrency - sum(handler.matches(claim.event.type) for claim in in_hand)
        for handler in handlers
        if handler.concurrency is not None
    }
    for share in turns.in_order(_shares(handlers)):
        if free <= 0:
            return
        if all(any(covers(pause, pattern) for pause in paused) for pattern in share.only or ("*",)):
            continue
        limit = min([free, *(room[name] for name in share.limited)])
        if limit <= 0:
            if turns.has_given_way_for_long(share):
                # From here on what gets free is kept for it, until it has room.
                room.update(dict.fromkeys(share.limited, 0))
            continue
        turns.note_asked(share)
        claims = yield Look(Selection(share.only, (*share.without, *paused), ordered), limit)
        free -= len(claims)
        for name in share.limited:
            room[name] -= len(claims)


def _shares(handlers: Iterable[Handler]) -> Iterator[_Share]:
    limited = [handler for handler in handlers if handler.concurrency is not None]
    patterns = tuple(dict.fromkeys(pattern for handler in limited for pattern in handler.patterns))
    by_handlers: dict[frozenset[str], list[str]] = {}
    for pattern in patterns:
        matching = frozenset(
            handler.name for handler in limited if any(covers(wider, pattern) for wider in handler.patterns)
        )
        by_handlers.setdefault(matching, []).append(pattern)
    for matching, only in by_handlers.items():
        narrower = [other for other in patterns if other not in only and any(covers(wide, other) for wide in only)]
        yield _Share(matching, tuple(only), tuple(narrower))
    yield _Share(frozenset(), None, patterns)
