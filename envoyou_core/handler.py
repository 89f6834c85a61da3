"""A handler: its function, what it handles, and how it is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from envoyou_core.errors import ConfigurationError, PermanentError, RetryLater
from envoyou_core.event import EVENT_TYPES
from envoyou_core.handler_names import FunctionName, function_name
from envoyou_core.handler_options import ErrorTypes
from envoyou_core.handler_parameters import TRANSACTION_PARAMETERS, read_parameters
from envoyou_core.inbox import AsyncTransactionalInbox, HandlerStatus, Inbox, TransactionalInbox
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.patterns import check_pattern, matches_any
from envoyou_core.providers import ProvidedParameter
from envoyou_core.retry import RetryPolicy

__all__ = [
    "DeliveryInfo",
    "Handler",
    "check_patterns",
    "check_transaction_support",
    "describe_handler",
    "with_session_of_inbox",
]

log = RedactedLogger("envoyou.handlers")


class DeliveryInfo(msgspec.Struct, frozen=True):
    """How an event reached the inbox. Passed to handlers with a `delivery` parameter.

    Attributes:
        received_at: when the event was accepted, in UTC.
        webhook_id: the endpoint's id, from the signed body, else from the unsigned header.
        tenant: whose secret has proven the event (see `Tenant`); empty if the secrets are fixed.
        headers: the headers that `kept_headers` names, by the names there, as far as the first delivery had them. They
            are not signed. Empty once the payload was deleted.
    """

    received_at: datetime
    webhook_id: str | None
    tenant: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        # The headers may be personal.
        return f"DeliveryInfo({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("received_at", self.received_at), ("webhook_id", self.webhook_id), ("tenant", self.tenant)]


class Handler(msgspec.Struct, frozen=True):
    """A registered handler.

    Attributes:
        name: the name under which its success is recorded, so that a retry skips it.
        function: the function; the event is its first argument.
        patterns: the event types it handles, each exact, `prefix.*` or `*`.
        is_async: whether the function must be awaited.
        wants: which of the parameters `attempt`, `connection`, `delivery` and `session` it has.
        ordered: whether events about one object are handled one after the other.
        stale: `skip` if it skips events that are older than the newest one applied to their object.
        time_limit: seconds after which an async handler is cancelled and a sync one reported.
        concurrency: how many of its events each worker may have in flight.
        atomic: whether it shares the transaction that records its success; `None` for the default.
        was: its former names.
        retry: when it is retried; `None` for the policy of the webhooks.
        retry_on: the only exceptions after which it is retried; `None` for all.
        give_up_on: the exceptions after which it is not retried.
        object_type: the type to which the event's object is converted; `None` for a mapping.
        provided: its parameters for which the application may have providers.
        function_name: the name of its function; `None` if it was named by `on(..., name=...)`.
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
    was: tuple[str, ...] = ()
    retry: RetryPolicy | None = None
    retry_on: ErrorTypes | None = None
    give_up_on: ErrorTypes = ()
    object_type: Any = None
    provided: tuple[ProvidedParameter, ...] = ()
    function_name: FunctionName | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its former names, under each of which its success is recorded."""
        return (self.name, *self.was)

    @property
    def alias(self) -> str | None:
        """The name by which a process may know it that has other handlers; `None` if it has the same name in all."""
        if self.function_name is None:
            return None
        return self.function_name.full if self.name == self.function_name.short else self.function_name.short

    @property
    def all_names(self) -> tuple[str, ...]:
        """All names by which a process may know it."""
        alias = self.alias
        return self.names if alias is None else (*self.names, alias)

    def names_in(self, mentioned: Collection[str]) -> tuple[str, ...]:
        """Return the names under which its success is recorded for an event, its name first.

        If the event mentions the name with the module, only that name is used: another process knows two handlers of
        the short name, which it could not tell apart.

        Args:
            mentioned: the names of handlers in the event's row and in the set of the process that accepted it.
        """
        if mentioned and self.function_name is not None and self.function_name.full in mentioned:
            return (self.function_name.full, *self.was)
        return self.names

    def status_in(self, progress: Mapping[str, HandlerStatus]) -> HandlerStatus | None:
        """Return its status, which may be recorded under any of its names; `None` if it still has to run."""
        if not progress or self.name in progress:
            return progress.get(self.name)
        return next((progress[name] for name in self.all_names if name in progress), None)

    @property
    def wants_connection(self) -> bool:
        """Whether the transaction is passed to the handler."""
        return not self.wants.isdisjoint(TRANSACTION_PARAMETERS)

    @property
    def shares_transaction(self) -> bool:
        """Whether the handler runs in the transaction that records its success."""
        return self.wants_connection if self.atomic is None else self.atomic

    def gives_up_on(self, error: Exception) -> bool:
        """Whether it is not retried after `error`, however many attempts are left."""
        if isinstance(error, RetryLater):
            return False
        is_retried = self.retry_on is None or isinstance(error, self.retry_on)
        return isinstance(error, (PermanentError, *self.give_up_on)) or not is_retried

    def matches(self, event_type: str) -> bool:
        """Whether this handler handles events of `event_type`."""
        return matches_any(self.patterns, event_type)


def check_transaction_support(handler: Handler, inbox: Inbox) -> None:
    """Check that `inbox` has the transaction that `handler` shares, if it shares one.

    Raises:
        ConfigurationError: it has not.
    """
    if not handler.shares_transaction:
        return
    parameters = " and ".join(repr(name) for name in sorted(handler.wants & TRANSACTION_PARAMETERS))
    subject = f"handler {handler.name!r} " + (f"has a parameter {parameters}" if parameters else "is atomic")
    if handler.is_async and not isinstance(inbox, AsyncTransactionalInbox):
        raise ConfigurationError(f"{subject} and is async, but this inbox has no async transactions; use AsyncSqlInbox")
    if not handler.is_async and not isinstance(inbox, TransactionalInbox):
        raise ConfigurationError(f"{subject}, but this inbox has no transactions")


def with_session_of_inbox(handler: Handler, inbox: Inbox) -> Handler:
    """Decide who provides a `session` parameter: `inbox` if it has sessions for this handler, else the application."""
    if "session" not in handler.wants:
        return handler
    if handler.is_async and isinstance(inbox, AsyncTransactionalInbox):
        return replace(handler, provided=tuple(it for it in handler.provided if it.name != "session"))
    return replace(handler, wants=handler.wants - {"session"})


def describe_handler(function: Callable[..., Any], types: tuple[str, ...], name: str | None = None) -> Handler:
    """Make a `Handler` from a function's name and parameters.

    Raises:
        ConfigurationError: it has no name, or a parameter that cannot be meant.
    """
    by_function = None if name else function_name(function)
    handler_name = by_function.short if by_function is not None else name
    if not handler_name:
        raise ConfigurationError(f"handler {function!r} has no name: give it one with on(..., name=...)")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"handler {handler_name!r} is a generator function, which does nothing when called")
    check_patterns(types)
    for pattern in types:
        _warn_of_likely_misspelling(pattern)
    parameters = read_parameters(function, handler_name)
    return Handler(
        name=handler_name,
        function=function,
        patterns=types,
        is_async=inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(function, "__call__", None)),  # noqa: B004 - not a test for callability
        wants=parameters.wants,
        object_type=parameters.object_type,
        provided=parameters.provided,
        function_name=by_function,
    )


def check_patterns(types: tuple[str, ...]) -> None:
    """Check the event types of a handler.

    Raises:
        ConfigurationError: there is none, or one is malformed.
    """
    if not types:
        raise ConfigurationError("on() expects at least one event type, such as on('user.created') or on('*')")
    for pattern in types:
        check_pattern(pattern)


def _warn_of_likely_misspelling(pattern: str) -> None:
    if pattern.endswith("*") or pattern in EVENT_TYPES:
        return
    from difflib import get_close_matches

    close = get_close_matches(pattern, EVENT_TYPES, n=1, cutoff=0.85)
    if close:
        log.warning("a handler is registered for the unknown event type %r; did you mean %r?", pattern, close[0])
