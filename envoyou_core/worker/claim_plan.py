"""Which due events a worker may claim now, given what is paused and the concurrency limits of the handlers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from envoyou_core.handler import Handler
from envoyou_core.inbox.records import Claim, ClaimFilter
from envoyou_core.patterns import check_pattern, covers

__all__ = ["ClaimRequest", "RoundRobin", "ordered_patterns", "paused_patterns", "plan_claims", "subject_of"]

MAX_BLOCKAGE: Final = 10.0
"""Seconds after which capacity is reserved for events that need several limited handlers to have capacity at once."""


def subject_of(*, type: str | None, handler: str | None) -> str:
    """The subject of a pause as the inbox stores it: `type:user.*` or `handler:welcome`.

    Raises:
        ValueError: not exactly one of the two is given.
        ConfigurationError: the type is malformed.
    """
    if type is not None and handler is None:
        check_pattern(type)
        return f"type:{type}"
    if handler and type is None:
        return f"handler:{handler}"
    raise ValueError("give either a type or a handler")


def paused_patterns(subjects: Iterable[str], handlers: Iterable[Handler]) -> tuple[str, ...]:
    """The patterns of the paused events. An event waits as a whole, even if only one of its handlers is paused."""
    kinds = [subject.partition(":")[::2] for subject in subjects]
    types = [name for kind, name in kinds if kind == "type"]
    names = {name for kind, name in kinds if kind == "handler"}
    return tuple(
        dict.fromkeys(
            [*types, *(p for handler in handlers if names.intersection(handler.all_names) for p in handler.patterns)]
        )
    )


def ordered_patterns(handlers: Iterable[Handler]) -> tuple[str, ...]:
    """The patterns of the ordered events: those about one object are handled one after the other."""
    return tuple(dict.fromkeys(pattern for handler in handlers if handler.ordered for pattern in handler.patterns))


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A claim to make: up to `limit` events that pass the filter."""

    filter: ClaimFilter
    limit: int


@dataclass(frozen=True, slots=True)
class HandlerGroup:
    """The event types that are matched by the same handlers with a concurrency limit.

    Of two patterns that overlap, one covers the other. So all types that match a pattern, and no narrower one, belong
    to the same group, and there are no more groups than patterns.

    Attributes:
        limited: the names of these handlers.
        include: the patterns of the types; `None` for all.
        exclude: the patterns of types that belong to other groups.
    """

    limited: frozenset[str]
    include: tuple[str, ...] | None
    exclude: tuple[str, ...]


class RoundRobin:
    """The order in which groups are claimed: the least recently claimed one first, so that none starves.

    Args:
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._count = itertools.count(1)
        self._claimed: dict[frozenset[str], int] = {}
        self._blocked_since: dict[frozenset[str], float] = {}

    def in_order(self, groups: Iterable[HandlerGroup]) -> list[HandlerGroup]:
        """Sort the groups, the least recently claimed one first."""
        return sorted(groups, key=lambda group: self._claimed.get(group.limited, 0))

    def mark_claimed(self, group: HandlerGroup) -> None:
        """Move `group` to the end of the order."""
        self._claimed[group.limited] = next(self._count)
        self._blocked_since.pop(group.limited, None)

    def is_starving(self, group: HandlerGroup) -> bool:
        """Whether `group` has been blocked for too long because one or another of its handlers was full."""
        now = self._monotonic()
        return now - self._blocked_since.setdefault(group.limited, now) > MAX_BLOCKAGE


def plan_claims(
    handlers: Sequence[Handler], paused: Sequence[str], in_flight: Sequence[Claim], free: int, order: RoundRobin
) -> Generator[ClaimRequest, Sequence[Claim], None]:
    """Yield the claims to make, one after the other; send in the events that each has returned.

    An event in flight counts against each limited handler that matches its type, even if a retry need not run it. So no
    limit is ever exceeded.

    Args:
        handlers: all registered handlers.
        paused: the patterns of paused event types.
        in_flight: the claims that this worker holds. The limits apply to each worker process.
        free: how many more events the worker can take.
        order: the order of the groups, kept from one call to the next.
    """
    ordered = ordered_patterns(handlers)
    capacity = {
        handler.name: handler.concurrency - sum(handler.matches(claim.event.type) for claim in in_flight)
        for handler in handlers
        if handler.concurrency is not None
    }
    for group in order.in_order(_groups(handlers)):
        if free <= 0:
            return
        if all(any(covers(pause, pattern) for pause in paused) for pattern in group.include or ("*",)):
            continue
        limit = min([free, *(capacity[name] for name in group.limited)])
        if limit <= 0:
            if order.is_starving(group):
                # From now on free capacity is reserved for this group.
                capacity.update(dict.fromkeys(group.limited, 0))
            continue
        order.mark_claimed(group)
        claims = yield ClaimRequest(ClaimFilter(group.include, (*group.exclude, *paused), ordered), limit)
        free -= len(claims)
        for name in group.limited:
            capacity[name] -= len(claims)


def _groups(handlers: Iterable[Handler]) -> Iterator[HandlerGroup]:
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
        yield HandlerGroup(matching, tuple(only), tuple(narrower))
    yield HandlerGroup(frozenset(), None, patterns)
