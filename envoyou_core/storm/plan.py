"""What a storm sends: events whose ids name the run, so that they are never confused with real ones."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from envoyou_core.event import EVENT_TYPES, Event
from envoyou_core.patterns import matches_any
from envoyou_core.testing.deliveries import sample_event

__all__ = ["FIRST", "Plan", "handled_types", "make_plan", "new_run", "storm_event"]

FIRST: Final = "user.created"
"""Delivered and processed before the other types, because they may need the user."""

RUN_BYTES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The genuine events of a run.

    Attributes:
        run: identifies the run. It is a part of the id of each event and of each object.
        waves: the events. A wave is sent after all events of the one before are processed.
    """

    run: str
    waves: tuple[tuple[Event, ...], ...]

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, in the order in which they are sent."""
        return tuple(event for wave in self.waves for event in wave)

    def ids_in(self, text: str) -> list[str]:
        """Return the ids of this run's events that occur in `text`."""
        return re.findall(rf"\bevt_prove_{self.run}_\d+\b", text)


def new_run() -> str:
    """Return a random id of a run."""
    return secrets.token_hex(RUN_BYTES)


def handled_types(patterns: Collection[str]) -> tuple[str, ...]:
    """Return the guide's event types that match one of `patterns`; `user.created` if none does."""
    return tuple(each for each in EVENT_TYPES if matches_any(tuple(patterns), each)) or (FIRST,)


def make_plan(run: str, types: Sequence[str], count: int, *, created: int) -> Plan:
    """Spread `count` events over `types`. Each user has one event of each type.

    Args:
        run: the id of the run.
        types: the event types.
        count: the number of events.
        created: when they were created, in epoch seconds.

    Examples:
        >>> plan = make_plan("1a2b", ["user.created", "auth.login"], 4, created=0)
        >>> [event.id for event in plan.events]
        ['evt_prove_1a2b_0', 'evt_prove_1a2b_2', 'evt_prove_1a2b_1', 'evt_prove_1a2b_3']
        >>> [event.data.object["user_id"] for event in plan.waves[1]]
        ['obj_prove_1a2b_0', 'obj_prove_1a2b_1']
    """
    ordered = sorted(types, key=lambda each: each != FIRST)
    events = [
        storm_event(run, str(number), ordered[number % len(ordered)], number // len(ordered), created=created)
        for number in range(count)
    ]
    first = tuple(event for event in events if event.type == FIRST)
    others = tuple(event for event in events if event.type != FIRST)
    return Plan(run=run, waves=tuple(wave for wave in (first, others) if wave))


def storm_event(run: str, name: str, type: str, subject: int, *, created: int, webhook_id: str | None = None) -> Event:
    """Make an event of a run: a sample for the type whose ids and address name the run.

    Args:
        run: the id of the run.
        name: identifies the event within the run.
        type: the event's type.
        subject: the number of the object that the event is about.
        created: when it was created, in epoch seconds.
        webhook_id: the endpoint's id in the body; `None` to omit it.
    """
    object_id = f"obj_prove_{run}_{subject}"
    values = {"id": object_id, "user_id": object_id, "email": f"{object_id}@example.com"}
    sample = sample_event(type).data.object
    return sample_event(
        type,
        id=f"evt_prove_{run}_{name}",
        created=created,
        object={key: values.get(key, value) for key, value in sample.items()},
        webhook_id=webhook_id,
    )
