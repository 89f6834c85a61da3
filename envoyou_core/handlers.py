"""Which functions handle which events: registration, matching, order."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, TypeGuard, TypeVar

from envoyou_core.errors import ConfigurationError
from envoyou_core.event import EVENT_TYPES
from envoyou_core.patterns import check_pattern, matches_any

__all__ = ["DeliveryInfo", "Handler", "Handlers", "describe_handler"]

log = logging.getLogger("envoyou.handlers")

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Any])

OFFERED_PARAMETERS: Final = frozenset({"attempt", "connection", "delivery", "session"})
"""What a handler may name besides the event, which is its first argument."""

_OF_A_TRANSACTION: Final = frozenset({"connection", "session"})


@dataclass(frozen=True, slots=True)
class DeliveryInfo:
    """How an event reached the inbox: what a handler gets that names `delivery`.

    Attributes:
        received_at: when it was accepted, in UTC.
        webhook_id: the endpoint's id, from the signed body, else from the unsigned header.
        tenant: what the secret callable resolved; empty where there is none.
    """

    received_at: datetime
    webhook_id: str | None
    tenant: str


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered function.

    Attributes:
        name: by which its success is recorded, so that a retry leaves it out.
        function: what is called, with the event first.
        patterns: the event types it handles, each exact, `prefix.*` or `*`.
        is_async: whether it is awaited.
        wants: which of `attempt`, `connection`, `delivery` and `session` it names.
        ordered: whether events about one object are handled one after the other.
        stale: `skip` where it leaves out events that are older than the newest one applied to their object.
        time_limit: seconds after which it is cancelled, or where it is sync, reported.
        concurrency: for how many events at once each worker may have it in hand.
        atomic: whether it shares the transaction that records it as done; `None` where nobody has said.
    """

    name: str
    function: Callable[..., Any]
    patterns: tuple[str, ...]
    is_async: bool
    wants: frozenset[str]
    ordered: bool = False
    stale: Literal["skip"] | None = None
    time_limit: float | None = None
    concurrency: int | None = None
    atomic: bool | None = None

    @property
    def wants_connection(self) -> bool:
        """Whether it is given the transaction that it shares."""
        return not self.wants.isdisjoint(_OF_A_TRANSACTION)

    @property
    def shares_transaction(self) -> bool:
        """Whether its work is in the transaction that records it as done."""
        return self.wants_connection if self.atomic is None else self.atomic

    def matches(self, event_type: str) -> bool:
        """Whether it handles events of `event_type`."""
        return matches_any(self.patterns, event_type)


class Handlers:
    """A registry of handlers, to be joined with `Webhooks.include`, as routes are collected on a router.

    Examples:
        >>> handlers = Handlers()
        >>> @handlers.on("user.created", "user.updated")
        ... def keep_in_step(event): ...
        >>> [handler.name for handler in handlers.matching("user.updated")]
        ['keep_in_step']
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(
        self,
        *types: str,
        name: str | None = None,
        ordered: bool = False,
        stale: Literal["skip"] | None = None,
        time_limit: float | None = None,
        concurrency: int | None = None,
        atomic: bool | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register the decorated function, sync or async, for events of these types.

        Args:
            types: exact (`user.created`), by prefix (`user.*`), or all (`*`). See the guide, "Supported Events".
            name: by which its success is recorded; the function's qualified name by default. Keep it stable: after a
                rename, events that wait for a retry run the handler anew.
            ordered: handle the events about one object, `data.object.id` or else its `user_id`, one after the other:
                what was created earlier first, and an event that waits for its retry holds up those behind it.
            stale: `skip` leaves out an event that was created before the newest one that was applied to its object, of
                whatever type; it is ordered, too.
            time_limit: seconds. An async handler is cancelled after them, and has failed; a sync one cannot be stopped,
                and is reported.
            concurrency: how many events that it handles each worker has in hand at once.
            atomic: whether it shares the transaction that records it as done. By default one does that names
                `connection` or `session`, and where the inbox is in the database of Django or Flask-SQLAlchemy every
                sync one.

        Raises:
            ConfigurationError: no type or a malformed one, a limit that makes no sense, a parameter that nothing is
                given for, or a name that is taken.
        """
        _check_patterns(types)
        _check_conditions(stale, time_limit, concurrency, atomic)

        def register(function: HandlerFunction) -> HandlerFunction:
            handler = describe_handler(function, types, name)
            if handler.wants_connection and atomic is False:
                raise ConfigurationError(
                    f"handler {handler.name!r} names 'connection', the transaction that atomic=False keeps it out of"
                )
            self.add(
                replace(
                    handler,
                    ordered=ordered or stale == "skip",
                    stale=stale,
                    time_limit=time_limit,
                    concurrency=concurrency,
                    atomic=atomic,
                )
            )
            return function

        return register

    def add(self, handler: Handler) -> None:
        """Append `handler`; handlers of one event run in the order in which they were added.

        Raises:
            ConfigurationError: its name is taken.
        """
        if handler.name in self._handlers:
            raise ConfigurationError(
                f"there are two handlers of the name {handler.name!r}: give one of them another, on(..., name=...), "
                "and a function for several types all of them at once, on('user.created', 'user.updated')"
            )
        self._handlers[handler.name] = handler

    def matching(self, event_type: str) -> list[Handler]:
        """The handlers of events of `event_type`, in the order of registration."""
        return [handler for handler in self if handler.matches(event_type)]

    def __iter__(self) -> Iterator[Handler]:
        return iter(tuple(self._handlers.values()))

    def __len__(self) -> int:
        return len(self._handlers)


def describe_handler(function: Callable[..., Any], types: tuple[str, ...], name: str | None = None) -> Handler:
    """Read a function's name and parameters.

    Raises:
        ConfigurationError: it has no name, or a parameter that nothing is given for.
    """
    found_name = name or getattr(function, "__qualname__", None)
    if found_name is None:
        raise ConfigurationError(f"{function!r} has no name of its own: give it one, on(..., name=...)")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"handler {found_name!r} is a generator: calling it would do nothing")
    _check_patterns(types)
    for pattern in types:
        _warn_of_likely_misspelling(pattern)
    return Handler(
        name=found_name,
        function=function,
        patterns=types,
        is_async=inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(function, "__call__", None)),  # noqa: B004 - its kind is asked for
        wants=_wanted_parameters(function, found_name),
    )


def _wanted_parameters(function: Callable[..., Any], name: str) -> frozenset[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"the parameters of handler {name!r} cannot be read") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in (*positional, inspect.Parameter.VAR_POSITIONAL):
        raise ConfigurationError(f"handler {name!r} takes no event: its first parameter must be the event")
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    rest = [parameter for parameter in parameters[1:] if parameter.kind in (*positional, *named)]
    wants = {parameter.name for parameter in rest if parameter.kind in named} & OFFERED_PARAMETERS
    for parameter in rest:
        if parameter.name not in wants and parameter.default is inspect.Parameter.empty:
            raise ConfigurationError(
                f"handler {name!r} requires {parameter.name!r}, which nothing is given for: after the event it may "
                f"name {', '.join(sorted(OFFERED_PARAMETERS))}"
            )
    return frozenset(wants)


def _check_patterns(types: tuple[str, ...]) -> None:
    if not types:
        raise ConfigurationError("on() takes at least one event type, such as on('user.created') or on('*')")
    for pattern in types:
        check_pattern(pattern)


def _check_conditions(stale: object, time_limit: object, concurrency: object, atomic: object) -> None:
    if stale is not None and stale != "skip":
        raise ConfigurationError(f"stale is 'skip' or left out, not {stale!r}")
    if time_limit is not None and not (_is_number(time_limit) and 0 < time_limit < float("inf")):
        raise ConfigurationError(f"time_limit is a number of seconds, more than zero, not {time_limit!r}")
    if concurrency is not None and not (_is_number(concurrency) and isinstance(concurrency, int) and concurrency >= 1):
        raise ConfigurationError(f"concurrency is a whole number, one or more, not {concurrency!r}")
    if atomic is not None and not isinstance(atomic, bool):
        raise ConfigurationError(f"atomic is true, false or left out, not {atomic!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _warn_of_likely_misspelling(pattern: str) -> None:
    if pattern.endswith("*") or pattern in EVENT_TYPES:
        return
    close = difflib.get_close_matches(pattern, EVENT_TYPES, n=1, cutoff=0.85)
    if close:
        log.warning("a handler is registered for %r, which the guide does not list: is %r meant?", pattern, close[0])
