"""What applications put around their handlers: functions that return context managers, checked when registered."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from envoyou_core.errors import ConfigurationError
from envoyou_core.event import Event

__all__ = ["AroundHandler", "as_around_handler", "as_context_function", "name_of"]

AroundHandler = Callable[
    [Event, str, int],
    AbstractContextManager[object] | AbstractAsyncContextManager[object] | Iterator[object] | AsyncIterator[object],
]
"""A function of the event, the handler's name and the attempt that returns a context manager, or is a generator."""


def as_around_handler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as one that returns a context manager.

    Raises:
        ConfigurationError: it cannot be called with the event, the handler's name and the attempt.
    """
    name = name_of(function)
    if inspect.iscoroutinefunction(function) or not callable(function):
        raise ConfigurationError(
            f"around_handler expects a function that returns a context manager, sync or async, got {name}; "
            "write a generator function that yields once"
        )
    try:
        inspect.signature(function).bind("event", "handler", "attempt")
    except TypeError:
        raise ConfigurationError(
            f"around_handler calls {name} with three arguments, the event, the handler's name and the attempt, which "
            "it does not take"
        ) from None
    except ValueError:
        # The signature of a function in C is not always known.
        pass
    return as_context_function(function)


def as_context_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator function, sync or async, as one that returns a context manager; others as they are."""
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(function)
    if inspect.isgeneratorfunction(function):
        return contextmanager(function)
    return function


def name_of(function: object) -> str:
    """Return the name of a function for an error."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))
