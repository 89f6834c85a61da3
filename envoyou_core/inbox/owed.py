"""Which handlers an event still owes, and for how long it waits for one that no process at hand knows.

Processes may know different handlers, as during a rolling deploy. Each process runs the owed handlers that it knows and
leaves the rest. A handler that has begun may have had a part of its effect, so the event waits for a process that knows
it. A handler that has not begun is owed only while a live process has it: it may have been renamed or removed.

All functions are pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from envoyou_core.event import object_key
from envoyou_core.inbox.handler_sets import HandlerSet
from envoyou_core.inbox.records import HandlerStatus

__all__ = [
    "Owed",
    "OwedElsewhere",
    "Wait",
    "awaited_handlers",
    "encode_owed",
    "next_wait",
    "owed_of",
    "owed_to_others",
    "wait_key",
    "with_begun",
    "with_crashed",
]

Owed = Mapping[str, bool]
"""Owed handlers by name, and whether each has begun."""

LOOK_AGAIN = 600.0
"""Seconds after which an event that waits for one of several handlers is looked at again: another of them may have come
within reach."""

MARGIN = 1.0
"""Seconds after the end of a process's liveness at which it is looked at, so that it is over by then."""


def with_begun(owed: Owed, names: Iterable[str], progress: Mapping[str, HandlerStatus]) -> dict[str, bool]:
    """Add handlers that have begun, and remove those that will not run again."""
    merged = {**owed, **dict.fromkeys(names, True)}
    return {name: begun for name, begun in merged.items() if name not in progress}


def with_crashed(
    owed: Owed, event_type: str, progress: Mapping[str, HandlerStatus], crashed: HandlerSet | None
) -> dict[str, bool]:
    """Add the handlers of a process that died with the event: each of them may have begun.

    Args:
        owed: the owed handlers.
        event_type: of the event.
        progress: the handlers that will not run again.
        crashed: the handlers of that process; `None` if they are not known.
    """
    return with_begun(owed, () if crashed is None else crashed.matching(event_type), progress)


def owed_to_others(
    owed: Owed,
    event_type: str,
    progress: Mapping[str, HandlerStatus],
    accepted: HandlerSet | None,
    known: Collection[str],
) -> dict[str, bool]:
    """Return the owed handlers that this process does not know.

    Args:
        owed: the handlers that earlier attempts have left.
        event_type: of the event.
        progress: the handlers that will not run again.
        accepted: the handlers of the process that accepted the event, if they are another's than this process's.
        known: the names of this process's handlers for the event.
    """
    names = () if accepted is None else accepted.matching(event_type)
    all_owed = {**dict.fromkeys(names, False), **owed}
    return {name: begun for name, begun in all_owed.items() if name not in known and name not in progress}


@dataclass(frozen=True, slots=True)
class OwedElsewhere:
    """The handlers that an event owes and that this process does not know.

    Attributes:
        owed: the handlers.
        held: the handlers that live processes have, and for how many seconds each of these counts as live. It may be
            empty if all of `owed` have begun.
        now: when this was so.
    """

    owed: Owed
    held: Mapping[str, float]
    now: datetime

    @property
    def binding(self) -> dict[str, bool]:
        """The handlers without those that have not begun and that no live process has."""
        return {name: begun for name, begun in self.owed.items() if begun or name in self.held}


@dataclass(frozen=True, slots=True)
class Wait:
    """An event waits for a process that knows a handler.

    Attributes:
        handler: the name of the handler.
        since: when the event began to wait for any handler.
        seconds: after which it is looked at again, if no such process takes it before.
    """

    handler: str
    since: datetime
    seconds: float


def next_wait(
    elsewhere: OwedElsewhere, since: datetime | None, longest: float, *, awaited: str | None = None
) -> Wait | None:
    """Decide for which of the binding handlers an event waits; `None` if it has waited for too long.

    It prefers a handler that a live process has, because that process takes it at once. If no process has taken it, the
    next handler has its turn: the process may be gone, although it still counts as live.

    Args:
        elsewhere: what is owed, of which at least one handler is binding.
        since: when the event began to wait; `None` if it has not waited yet.
        longest: seconds for which an event may wait in all.
        awaited: the handler for which it has waited last, as the column `waits_for` holds it.
    """
    owed, now = elsewhere.binding, elsewhere.now
    since = now if since is None else since
    left = (since + timedelta(seconds=longest) - now).total_seconds()
    if left <= 0:
        return None
    names = sorted(owed, key=lambda name: (name not in elsewhere.held, name))
    last = next((number for number, name in enumerate(names) if wait_key(name) == awaited), -1)
    handler = names[(last + 1) % len(names)]
    seconds = [left]
    if not owed[handler]:
        seconds.append(elsewhere.held[handler] + MARGIN)
    if len(owed) > 1:
        seconds.append(LOOK_AGAIN)
    return Wait(handler, since, min(seconds))


def wait_key(handler: str) -> str:
    """Return the name of a handler as the column `waits_for` holds it. A long or unprintable one is hashed."""
    return object_key(handler)


def awaited_handlers(handlers: HandlerSet) -> list[tuple[str, tuple[str, ...]]]:
    """Return the handlers of a set with their names as the column `waits_for` holds them."""
    return [(wait_key(name), patterns) for name, patterns in (*handlers.handlers, *handlers.aliases)]


def encode_owed(owed: Owed | None) -> str | None:
    """Return the text that an inbox stores: `None` if nothing is owed, which is the normal case."""
    return json.dumps(owed) if owed else None


def owed_of(stored: object) -> dict[str, bool]:
    """Decode the column `owed`.

    Raises:
        ValueError: the value is not a JSON object of booleans.
    """
    if stored is None:
        return {}
    try:
        owed: Any = json.loads(stored) if isinstance(stored, str | bytes) else stored
        if isinstance(owed, dict) and all(isinstance(begun, bool) for begun in owed.values()):
            return owed
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValueError("owed must be a JSON object of booleans")
