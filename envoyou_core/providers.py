"""What an application provides to its handlers: resources that are opened for one call of a handler and then closed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from envoyou_core.context_factories import as_context_function, name_of
from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from envoyou_core.handler import Handler

__all__ = ["ProvidedParameter", "Provider", "as_provider", "check_providers", "find_provider"]


class ProvidedParameter(msgspec.Struct, frozen=True):
    """A parameter of a handler for which the application may have a provider.

    Attributes:
        name: its name.
        type: its type, if it is annotated.
        is_required: whether it has no default.
    """

    name: str
    type: Any
    is_required: bool


class Provider(msgspec.Struct, frozen=True):
    """A provider. Called without arguments, it returns the value, an awaitable of it, or a context manager.

    Attributes:
        key: the name or the type of the parameters that it provides.
        function: the application's function.
    """

    key: Any
    function: Callable[[], Any]

    def __call__(self) -> Any:
        """Return the value, an awaitable of it, or a context manager that returns it on entry."""
        return self.function()

    def provides(self, parameter: ProvidedParameter) -> bool:
        """Whether it is the provider of `parameter`."""
        return self.key == parameter.name if isinstance(self.key, str) else self.key is parameter.type

    @property
    def description(self) -> str:
        """Its key, for errors."""
        return repr(self.key) if isinstance(self.key, str) else name_of(self.key)


def as_provider(key: Any, function: Callable[..., Any], *, reserved: Collection[str]) -> Provider:
    """Make a provider.

    Args:
        key: a parameter's name or type.
        function: the application's function.
        reserved: the names that cannot be provided.

    Raises:
        ConfigurationError: the key is not a name or a type, or is reserved, or the function needs arguments.
    """
    if isinstance(key, str):
        if not key.isidentifier():
            raise ConfigurationError(f"provide() expects the name of a parameter, got {key!r}")
        if key in reserved:
            raise ConfigurationError(f"provide() cannot replace the parameter {key!r}, which every handler may have")
    elif not isinstance(key, type):
        raise ConfigurationError(f"provide() expects the name of a parameter or a class, got {key!r}")
    if not callable(function):
        raise ConfigurationError(f"provide() expects a function for {key!r}, got {type(function).__name__}")
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise ConfigurationError(
            f"the provider {name_of(function)} is called without arguments, which it needs; bind them with "
            "functools.partial, or call what it depends on itself"
        ) from None
    except ValueError:
        # The signature of a function in C is not always known.
        pass
    return Provider(key, as_context_function(function))


def find_provider(providers: Sequence[Provider], parameter: ProvidedParameter) -> Provider | None:
    """Return the provider of a parameter: by its name, else by its type; the latest one of several."""
    matching = [provider for provider in reversed(providers) if provider.provides(parameter)]
    return min(matching, key=lambda provider: not isinstance(provider.key, str), default=None)


def check_providers(handlers: Iterable[Handler], providers: Sequence[Provider]) -> None:
    """Check that all required parameters of the handlers are provided.

    Raises:
        ConfigurationError: one is not.
    """
    for handler in handlers:
        for parameter in handler.provided:
            if parameter.name in handler.wants:
                continue
            if parameter.is_required and find_provider(providers, parameter) is None:
                raise ConfigurationError(_describe_missing(handler.name, parameter, providers))


def _describe_missing(handler: str, parameter: ProvidedParameter, providers: Sequence[Provider]) -> str:
    known = sorted({provider.description for provider in providers})
    text = (
        f"handler {handler!r} has a required parameter {parameter.name!r}, which nothing provides: call "
        f"webhooks.provide({parameter.name!r}, ...), or give it a default. Always supported: attempt, delivery, and "
        "connection or session if the inbox has such transactions"
    )
    if parameter.name == "session":
        text += ". An async handler over an AsyncSqlInbox has the session of its transaction, unless atomic=False"
    return f"{text}; provided: {', '.join(known)}" if known else text
