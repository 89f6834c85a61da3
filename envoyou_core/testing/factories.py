"""Events for tests: a sample for each type, with some of its values replaced. Misspelt names are errors."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final, TypedDict, Unpack

from envoyou_core.event import EVENT_TYPES, Event
from envoyou_core.testing.deliveries import SAMPLE_WEBHOOK_ID, sample_event

__all__ = ["EventFields", "LocationFields", "make_event"]


class LocationFields(TypedDict, total=False):
    """The location of a login, in `EventFields`."""

    country: str | None
    city: str | None


class EventFields(TypedDict, total=False):
    """The fields of `data.object` in EnvoyOU's guide, over all event types. Each type has some of them."""

    id: str
    user_id: str
    email: str | None
    name: str | None
    email_verified: bool | None
    status: str | None
    created_at: str | None
    metadata: Mapping[str, Any]
    ip_address: str | None
    user_agent: str | None
    timestamp: str | None
    location: LocationFields | None
    limit: int
    used: int
    title: str
    started_at: str | None


_FURTHER_FIELDS: Final = {"user": {"status"}}
"""Fields of the guide that the samples do not have, by the first part of the type."""

_FREE: Final = frozenset({"metadata"})
"""Fields whose members are the application's own."""


def make_event(
    type: str = "user.created",
    /,
    *,
    event_id: str | None = None,
    created: int | None = None,
    webhook_id: str | None = SAMPLE_WEBHOOK_ID,
    extra: Mapping[str, Any] | None = None,
    **fields: Unpack[EventFields],
) -> Event:
    """Make an event of `type`: the sample of `sample_event`, with other values in its `data.object`.

    A mapping replaces the members that it names and leaves the others: `location={"city": "Oslo"}` keeps the country.

    Args:
        type: one of `EVENT_TYPES`. For another one, all fields are `extra`.
        event_id: the event's id; a new one by default. `id` is that of the object.
        created: epoch seconds; now by default.
        webhook_id: the endpoint's id in the body; `None` to omit it.
        extra: fields of `data.object` that EnvoyOU's guide does not have.
        fields: fields of `data.object` that replace those of the sample.

    Raises:
        TypeError: the type's object has no such field. The message suggests the closest one.
        InvalidPayloadError: the values do not make a valid event.

    Examples:
        >>> make_event("auth.login", location={"city": "Oslo"}).data.object["location"]
        {'country': 'US', 'city': 'Oslo'}
        >>> make_event(emial="ada@example.com")
        Traceback (most recent call last):
        ...
        TypeError: user.created has no field 'emial'; did you mean 'email'? Fields of your own go into extra={...}
    """
    __tracebackhide__ = True
    sample = sample_event(type).data.object if type in EVENT_TYPES else {}
    known = {*sample, *_FURTHER_FIELDS.get(type.partition(".")[0], ())}
    object = _replaced(sample, fields, known, type)
    return sample_event(
        type, id=event_id, created=created, object={**object, **(extra or {})} or None, webhook_id=webhook_id
    )


def _replaced(sample: Mapping[str, Any], changes: Mapping[str, Any], known: Collection[str], where: str) -> Any:
    __tracebackhide__ = True
    result = dict(sample)
    for name, value in changes.items():
        if name not in known:
            raise TypeError(_describe_unknown(name, known, where))
        inner = sample.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            members = {*inner, *value} if name in _FREE else inner.keys()
            value = _replaced(inner, value, members, f"{name} of {where}")
        result[name] = value
    return result


def _describe_unknown(name: str, known: Collection[str], where: str) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = f"known fields: {', '.join(sorted(known))}" if known else "EnvoyOU's guide does not describe this type"
    hint = f"did you mean {close[0]!r}?" if close else f"{listed}."
    return f"{where} has no field {name!r}; {hint} Fields of your own go into extra={{...}}"
