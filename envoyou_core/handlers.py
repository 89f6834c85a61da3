"""Handlers: registration, matching and order."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeVar

from envoyou_core.context_factories import AroundHandler, as_around_handler
from envoyou_core.errors import ConfigurationError, PermanentError, RetryLater
from envoyou_core.event import EVENT_TYPES
from envoyou_core.handler_names import FunctionName, function_name
from envoyou_core.handler_options import ErrorTypes, check_conditions, check_retry, error_types, former_names
from envoyou_core.handler_parameters import OFFERED_PARAMETERS, TRANSACTION_PARAMETERS, read_parameters
from envoyou_core.hooks import Hook, HookKind, Hooks
from envoyou_core.inbox import AsyncTransactionalInbox, HandlerStatus, Inbox, TransactionalInbox
from envoyou_core.observability import Listener
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.patterns import check_pattern, matches_any
from envoyou_core.providers import ProvidedParameter, as_provider
from envoyou_core.retry import RetryPolicy

__all__ = [
    "TRANSACTION_PARAMETERS",
    "DeliveryInfo",
    "Handler",
    "Handlers",
    "Registration",
    "check_transaction_support",
    "describe_handler",
    "with_session_of_inbox",
]

log = RedactedLogger("envoyou.handlers")

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Any])
HookFunction = TypeVar("HookFunction", bound=Callable[..., Any])
AroundFunction = TypeVar("AroundFunction", bound=AroundHandler)


@dataclass(frozen=True, slots=True)
class DeliveryInfo:
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
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Handler:
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


class Registration(ABC):
    """The decorators that register handlers and hooks; subclasses decide where these are kept."""

    def on(
        self,
        *types: str,
        name: str | None = None,
        ordered: bool = False,
        stale: Literal["skip"] | None = None,
        time_limit: float | None = None,
        concurrency: int | None = None,
        atomic: bool | None = None,
        was: str | Sequence[str] = (),
        retry: RetryPolicy | None = None,
        retry_on: type[Exception] | Sequence[type[Exception]] | None = None,
        give_up_on: type[Exception] | Sequence[type[Exception]] = (),
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register the decorated function, sync or async, for events of these types.

        If its first parameter is annotated as `Event[Customer]`, `event.data.object` is a `Customer`: a Pydantic model,
        a msgspec Struct, a dataclass, a TypedDict, or `User` or `Login`. An object that does not fit fails the handler
        with an `InvalidPayloadError` that names the field and no value.

        Args:
            types: exact (`user.created`), by prefix (`user.*`), or all (`*`). See the guide, "Supported Events".
            name: by which its success is recorded. By default, the function's qualified name without the module; if
                functions of two modules have the same one, the module is part of both names (`billing.hooks.welcome`).
                Keep the name stable, or name the former one with `was`: otherwise events that wait for a retry run the
                handler anew. What was recorded under the short name before there were two counts for both.
            ordered: handle the events of one object (`data.object.id`, else its `user_id`) one after the other, oldest
                first. An event that waits for a retry holds up those behind it.
            stale: `skip` skips an event that was created before the newest one applied to its object, over all types.
                Implies `ordered`.
            time_limit: seconds after which an async handler is cancelled and has failed. A sync handler cannot be
                stopped; it is reported.
            concurrency: how many of the handler's events each worker may have in flight.
            atomic: whether the handler shares the transaction that records its success. Default: if it has a
                `connection` or `session` parameter; with the inbox in the database of Django or Flask-SQLAlchemy,
                every sync handler.
            was: the former name of a renamed handler, or several. Keep it until no event of the former release is left
                unfinished, and no process of that release is running.
            retry: how many attempts the handler has, and with which delays; by default as the webhooks have it. The
                attempts are those of the event, and its next one comes after the longest delay that a failed handler
                has. `max_crashes` and `max_interruptions` are about the event: those of the webhooks apply.
            retry_on: the handler is retried after these exceptions only, and after `RetryLater`.
            give_up_on: the handler is not retried after these exceptions, as if they were a `PermanentError`. They take
                precedence over `retry_on`.

        Raises:
            ConfigurationError: no event type or an invalid one, a limit out of range, an unsupported parameter, a
                value of a wrong type, or a name that is taken.
        """
        _check_patterns(types)
        former = former_names(was)
        check_conditions(stale, time_limit, concurrency, atomic)
        check_retry(retry)
        retried = None if retry_on is None else error_types("retry_on", retry_on)
        given_up = error_types("give_up_on", give_up_on)
        if retried == ():
            raise ConfigurationError("retry_on expects at least one exception type")

        def register(function: HandlerFunction) -> HandlerFunction:
            handler = describe_handler(function, types, name)
            if atomic is False:
                # A session can only be the application's then.
                handler = replace(handler, wants=handler.wants - {"session"})
            if handler.wants_connection and atomic is False:
                raise ConfigurationError(
                    f"handler {handler.name!r} has a parameter 'connection', which atomic=False rules out"
                )
            self.add_handler(
                replace(
                    handler,
                    ordered=ordered or stale == "skip",
                    stale=stale,
                    time_limit=time_limit,
                    concurrency=concurrency,
                    atomic=atomic,
                    was=former,
                    retry=retry,
                    retry_on=retried,
                    give_up_on=given_up,
                )
            )
            return function

        return register

    def around_handler(self, function: AroundFunction) -> AroundFunction:
        """Enter the decorated context manager around every handler: log context, a span, a tenant's schema.

        The function is called with the event, the handler's name and the number of the attempt. It returns a context
        manager, sync or async, or is a generator function that yields once. Several are nested in the order of
        registration. A context sees the exception of the handler. What it raises itself, on entry or exit, fails the
        attempt of that handler. The context variables that it sets reach the handler.

        It is entered inside the transaction that a handler shares, and so before the commit.

        Raises:
            ConfigurationError: the function does not take these arguments.
        """
        self.add_hook(HookKind.AROUND_HANDLER, as_around_handler(function))
        return function

    def provide(self, key: str | type[Any], factory: Callable[[], Any]) -> None:
        """Provide a parameter of handlers: a database session, a client, settings.

        The factory is called for each call of a handler that has such a parameter, inside the contexts of
        `around_handler`. If it is a generator function, or returns a context manager, sync or async, the handler
        receives what that yields, and it is closed when the handler has ended. An async factory is awaited.

        When a worker starts, it checks that all required parameters of all handlers are provided.

        Args:
            key: the name of the parameter, or its type, as annotated. A provider by name takes precedence over one by
                type, and a later one over an earlier one of the same key.
            factory: returns the value. It takes no arguments.

        Raises:
            ConfigurationError: the name is `attempt`, `connection` or `delivery`, or the factory needs arguments.
        """
        self.add_hook(HookKind.PROVIDER, as_provider(key, factory, reserved=OFFERED_PARAMETERS - {"session"}))

    def on_worker_start(self, hook: HookFunction) -> HookFunction:
        """Call the decorated function, sync or async, before a worker process claims its first event.

        Open pools and clients here that the life cycle of a web server would have opened. An async hook runs on the
        event loop of the async handlers.
        """
        self.add_hook(HookKind.WORKER_START, hook)
        return hook

    def on_worker_stop(self, hook: HookFunction) -> HookFunction:
        """Call the decorated function, sync or async, after a worker process has settled its last event."""
        self.add_hook(HookKind.WORKER_STOP, hook)
        return hook

    def on_dead(self, hook: HookFunction) -> HookFunction:
        """Call the decorated function, sync or async, with each event that becomes dead and its last error (one line).

        A hook that raises is logged; neither the event nor other hooks are affected. It is called at most once per
        death: to miss none, query the inbox for dead events. See the guide, "Handling Failures".
        """
        self.add_hook(HookKind.DEAD, hook)
        return hook

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every lifecycle notice. It is called in the thread that does the work: it must be quick.

        See the guide, "Logging and Monitoring".
        """
        self.add_hook(HookKind.NOTICE, listener)

    def include(self, handlers: Handlers) -> None:
        """Add the handlers and hooks that a registry holds now, in its order. Later registrations there are not added.

        Raises:
            ConfigurationError: a handler name is taken, or this inbox does not support a handler.
        """
        for handler in handlers:
            self.add_handler(handler)
        for kind, hook in handlers.hooks:
            self.add_hook(kind, hook)

    @abstractmethod
    def add_handler(self, handler: Handler) -> None:
        """Add a handler. The handlers of an event run in the order in which they were added.

        Raises:
            ConfigurationError: its name is taken, or this inbox does not support it.
        """

    @abstractmethod
    def add_hook(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook. Hooks of one kind are called in the order in which they were added."""


class Handlers(Registration):
    """A registry of handlers and hooks, to be added with `Webhooks.include`, as a router is added to an application.

    Examples:
        >>> handlers = Handlers()
        >>> @handlers.on("user.created", "user.updated")
        ... def keep_in_step(event): ...
        >>> [handler.name for handler in handlers.matching("user.updated")]
        ['keep_in_step']
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._hooks = Hooks()

    @property
    def hooks(self) -> Hooks:
        """The registered hooks."""
        return self._hooks

    def add_handler(self, handler: Handler) -> None:
        """Add a handler. The handlers of an event run in the order in which they were added.

        Raises:
            ConfigurationError: its name is taken.
        """
        others = [*self]
        if any(_clash(other, handler) for other in others):
            others = [_with_full_name(other) if _clash(other, handler) else other for other in others]
            handler = _with_full_name(handler)
        if any(other.name == handler.name for other in others):
            raise ConfigurationError(
                f"two handlers are named {handler.name!r}: name one with on(..., name=...), or register a function for "
                "several types at once, on('user.created', 'user.updated')"
            )
        taken = {name: other.name for other in others for name in other.names}
        for name in handler.names:
            if name in taken or handler.names.count(name) > 1:
                raise ConfigurationError(
                    f"{name!r} is a name of the handler {taken.get(name, handler.name)!r} already, present or former"
                )
        if any(other.name not in self._handlers for other in others):
            self._handlers = {other.name: other for other in others}
        self._handlers[handler.name] = handler

    def add_hook(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook. Hooks of one kind are called in the order in which they were added."""
        self._hooks.add(kind, hook)

    def matching(self, event_type: str) -> list[Handler]:
        """Return the handlers for `event_type`, in the order of registration."""
        return [handler for handler in self if handler.matches(event_type)]

    def __iter__(self) -> Iterator[Handler]:
        return iter(tuple(self._handlers.values()))

    def __len__(self) -> int:
        return len(self._handlers)


def _clash(one: Handler, other: Handler) -> bool:
    return one.function_name is not None and one.function_name.clashes_with(other.function_name)


def _with_full_name(handler: Handler) -> Handler:
    return handler if handler.function_name is None else replace(handler, name=handler.function_name.full)


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
    _check_patterns(types)
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


def _check_patterns(types: tuple[str, ...]) -> None:
    if not types:
        raise ConfigurationError("on() expects at least one event type, such as on('user.created') or on('*')")
    for pattern in types:
        check_pattern(pattern)


def _warn_of_likely_misspelling(pattern: str) -> None:
    if pattern.endswith("*") or pattern in EVENT_TYPES:
        return
    close = difflib.get_close_matches(pattern, EVENT_TYPES, n=1, cutoff=0.85)
    if close:
        log.warning("a handler is registered for the unknown event type %r; did you mean %r?", pattern, close[0])
