"""The parameters of a handler: which of them it receives, and the type of the event's object."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

from envoyou_core.errors import ConfigurationError
from envoyou_core.event import Event
from envoyou_core.object_types import check_object_type

__all__ = ["TRANSACTION_PARAMETERS", "HandlerParameters", "read_parameters"]

OFFERED_PARAMETERS: Final = frozenset({"attempt", "connection", "delivery", "session"})
"""The parameters that a handler may have besides the event, which is its first argument."""

TRANSACTION_PARAMETERS: Final = frozenset({"connection", "session"})
"""The parameters by which a handler takes the transaction that records its success."""

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class HandlerParameters:
    """What a handler receives.

    Attributes:
        wants: which of the offered parameters it has.
        object_type: the type of `event.data.object`; `None` for a mapping.
    """

    wants: frozenset[str]
    object_type: Any = None


def read_parameters(function: Callable[..., Any], name: str) -> HandlerParameters:
    """Read the parameters of a handler.

    Args:
        function: the handler.
        name: of the handler, for errors.

    Raises:
        ConfigurationError: the event is missing, a required parameter is not supported, or the annotation of the event
            cannot be used.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"cannot read the parameters of handler {name!r}") from None
    if not parameters or parameters[0].kind not in (*POSITIONAL, inspect.Parameter.VAR_POSITIONAL):
        raise ConfigurationError(f"the first parameter of handler {name!r} must be the event")
    rest = [parameter for parameter in parameters[1:] if parameter.kind in (*POSITIONAL, *NAMED)]
    wants = {parameter.name for parameter in rest if parameter.kind in NAMED} & OFFERED_PARAMETERS
    for parameter in rest:
        if parameter.name not in wants and parameter.default is inspect.Parameter.empty:
            raise ConfigurationError(
                f"handler {name!r} has an unsupported required parameter {parameter.name!r}; "
                f"supported: {', '.join(sorted(OFFERED_PARAMETERS))}"
            )
    return HandlerParameters(frozenset(wants), _object_type(function, parameters[0].annotation, name))


def _object_type(function: Callable[..., Any], annotation: object, name: str) -> Any:
    """Return the `T` of a parameter that is annotated as `Event[T]`; `None` if the object is a plain mapping."""
    resolved = _resolve(function, annotation, name)
    while get_origin(resolved) is Annotated:
        resolved = get_args(resolved)[0]
    if get_origin(resolved) is not Event:
        return None
    (object_type,) = get_args(resolved)
    if object_type in (Any, dict, dict[str, Any]) or isinstance(object_type, TypeVar):
        return None
    try:
        check_object_type(object_type)
    except ConfigurationError as error:
        raise ConfigurationError(f"handler {name!r} takes an Event[...] that it cannot get: {error}") from None
    return object_type


def _resolve(function: Callable[..., Any], annotation: object, name: str) -> object:
    """Evaluate an annotation that is a text, or has one in it, in the module of the function."""
    if annotation is inspect.Parameter.empty:
        return None
    described = SimpleNamespace(__annotations__={"event": annotation})
    try:
        return get_type_hints(described, globalns=_globals_of(function), include_extras=True)["event"]
    except Exception as error:
        # The type of a plain event may be imported for type checkers only.
        if re.search(r"\bEvent\s*\[", str(annotation)) is None:
            return None
        raise ConfigurationError(
            f"cannot read the type of the event of handler {name!r}, {annotation!s}: {error}; define or import the "
            "type in the handler's module, before the handler and not under TYPE_CHECKING"
        ) from None


def _globals_of(function: Any) -> dict[str, Any]:
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__globals__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - not a test for callability
    values: dict[str, Any] = getattr(function, "__globals__", {})
    return values
