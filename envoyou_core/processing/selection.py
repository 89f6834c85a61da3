"""What a worker may claim now: what is paused, what a limited handler has no room for, and what goes in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from envoyou_core.handlers import Handler, Handlers
from envoyou_core.inbox.records import Selection
from envoyou_core.patterns import matches_any
from envoyou_core.processing.pauses import handler_subject, type_subject

__all__ = ["Room", "paused_patterns", "selections"]


@dataclass(frozen=True, slots=True)
class Room:
    """So many events may be claimed of a selection.

    Attributes:
        selection: which.
        limit: how many.
    """

    selection: Selection
    limit: int


def selections(handlers: Handlers, paused: Iterable[str], in_hand: Sequence[str], free: int) -> list[Room]:
    """What may be claimed, in parts; always as many parts of the same kind, for the same handlers.

    An event counts against every limited handler of its type for as long as it is in hand. So the types of each
    limited handler are claimed by themselves, no more of them than it has room for, and without those of any that has
    none. What one part has brought is in hand when the next one is asked for.

    Args:
        handlers: all there are.
        paused: the subjects that are paused.
        in_hand: the types of the events in hand.
        free: how many more there may be.
    """
    whole = Selection(without=paused_patterns(handlers, paused), ordered=_patterns(filter(_is_ordered, handlers)))
    left = {
        handler: max(0, handler.concurrency - sum(map(handler.matches, in_hand)))
        for handler in handlers
        if handler.concurrency is not None
    }
    unlimited = Room(replace(whole, without=(*whole.without, *_patterns(left))), free)
    full = (*whole.without, *_patterns(handler for handler, room in left.items() if room == 0))
    limited = [
        # Those that others limit, too, are no more than the least of them has room for.
        Room(replace(whole, only=handler.patterns, without=full), min(free, room, *_room_of_others(handler, left)))
        for handler, room in left.items()
    ]
    return [unlimited, *limited]


def _room_of_others(handler: Handler, left: Mapping[Handler, int]) -> list[int]:
    return [room for other, room in left.items() if room > 0 and _overlap(handler, other)]


def paused_patterns(handlers: Handlers, paused: Iterable[str]) -> tuple[str, ...]:
    """The types of the events that are held back: those paused, and those of paused handlers."""
    subjects = frozenset(paused)
    types = (subject.removeprefix(type_subject("")) for subject in subjects if subject.startswith(type_subject("")))
    return (*sorted(types), *_patterns(handler for handler in handlers if handler_subject(handler.name) in subjects))


def _is_ordered(handler: Handler) -> bool:
    return handler.ordered


def _patterns(handlers: Iterable[Handler]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern for handler in handlers for pattern in handler.patterns))


def _overlap(one: Handler, other: Handler) -> bool:
    """Whether there may be a type that both handle."""
    return any(
        matches_any([pattern], counterpart.removesuffix("*")) or matches_any([counterpart], pattern.removesuffix("*"))
        for pattern in one.patterns
        for counterpart in other.patterns
    )
