"""Registries of handlers: registration, matching and order."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from envoyou_core.context_factories import AroundHandler, as_around_handler
from envoyou_core.errors import ConfigurationError
from envoyou_core.handler import Handler, check_patterns, describe_handler
from envoyou_core.handler_options import check_conditions, check_retry, error_types, former_names
from envoyou_core.handler_parameters import OFFERED_PARAMETERS
from envoyou_core.hooks import Hook, HookKind, Hooks
from envoyou_core.observability import Listener, Notice
from envoyou_core.observability.notices import Subscription
from envoyou_core.providers import as_provider
from envoyou_core.retry import RetryPolicy

__all__ = ["Handlers", "Registration"]

HandlerFunction = TypeVar("HandlerFunction", bound=Callable[..., Any])
HookFunction = TypeVar("HookFunction", bound=Callable[..., Any])
AroundFunction = TypeVar("AroundFunction", bound=AroundHandler)


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
        check_patterns(types)
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

    def on_alert(self, hook: HookFunction) -> HookFunction:
        """Call the decorated function with each `Alert` that fires or resolves, in whichever process evaluates it.

        If it raises, it is called again at the next evaluations, ten times in all. See the guide, "Monitoring and
        Analytics".

        Raises:
            ConfigurationError: the function is async.
        """
        if inspect.iscoroutinefunction(hook):
            raise ConfigurationError("an on_alert hook must be a sync function, because no event loop runs it")
        self.add_hook(HookKind.ALERT, hook)
        return hook

    def subscribe(self, listener: Listener, kinds: Collection[type[Notice]] | None = None) -> None:
        """Call `listener` with every lifecycle notice. It is called in the thread that does the work: it must be quick.

        See the guide, "Logging and Monitoring".

        Args:
            listener: the function.
            kinds: the kinds of notices that it receives; by default all, except the frequent ones that are made on
                demand, such as `HandlerSucceeded`.
        """
        self.add_hook(HookKind.NOTICE, listener if kinds is None else Subscription(listener, tuple(kinds)))

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
