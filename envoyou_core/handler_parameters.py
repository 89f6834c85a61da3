"""The parameters of a handler: which of them it receives, and the type of the event's object."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from envoyou_core.context_factories import name_of
from envoyou_core.errors import ConfigurationError
from envoyou_core.event import Event
from envoyou_core.object_types import check_object_type
from envoyou_core.providers import ProvidedParameter

__all__ = ["OFFERED_PARAMETERS", "TRANSACTION_PARAMETERS", "HandlerParameters", "read_parameters"]

OFFERED_PARAMETERS: Final = frozenset({"attempt", "connection", "delivery", "session"})
"""The parameters that a handler may have besides the event, which is its first argument."""

TRANSACTION_PARAMETERS: Final = frozenset({"connection", "session"})
"""The parameters by which a handler takes the transaction that records its success."""

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class HandlerParameters(msgspec.Struct, frozen=True):
    """What a handler receives.

    Attributes:
        wants: which of the offered parameters it has.
        object_type: the type of `event.data.object`; `None` for a mapping.
        provided: the other parameters, for which the application may have providers.
    """

    wants: frozenset[str]
    object_type: Any = None
    provided: tuple[ProvidedParameter, ...] = ()


def read_parameters(function: Callable[..., Any], name: str) -> HandlerParameters:
    """Read the parameters of a handler.

    Args:
        function: the handler.
        name: of the handler, for errors.

    Raises:
        ConfigurationError: the event is missing, a parameter looks like a mistake, or the annotation of the event
            cannot be used.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"cannot read the parameters of handler {name!r}") from None
    if not parameters or parameters[0].kind not in (*POSITIONAL, inspect.Parameter.VAR_POSITIONAL):
        raise ConfigurationError(f"the first parameter of handler {name!r} must be the event")
    rest = [parameter for parameter in parameters[1:] if parameter.kind in (*POSITIONAL, *NAMED)]
    wants = frozenset({parameter.name for parameter in rest if parameter.kind in NAMED} & OFFERED_PARAMETERS)
    others = [parameter for parameter in rest if parameter.name not in wants - {"session"}]
    annotations = {parameter.name: _annotation_of(function, parameter) for parameter in others}
    for parameter in others:
        _check_other(parameter, annotations[parameter.name], name)
    return HandlerParameters(
        wants,
        _object_type(function, parameters[0].annotation, name),
        tuple(
            ProvidedParameter(it.name, _without_metadata(annotations[it.name]), it.default is inspect.Parameter.empty)
            for it in others
            if it.kind in NAMED
        ),
    )


def _check_other(parameter: inspect.Parameter, annotation: object, handler: str) -> None:
    """Refuse a parameter that no provider can be meant for.

    Raises:
        ConfigurationError: it is such a parameter.
    """
    name, is_required = parameter.name, parameter.default is inspect.Parameter.empty
    dependency = next((it for it in (parameter.default, *_metadata_of(annotation)) if _is_depends(it)), None)
    if dependency is not None:
        function = name_of(getattr(dependency, "dependency", None) or annotation)
        raise ConfigurationError(
            f"handler {handler!r} has a parameter {name!r} with Depends({function}), which FastAPI resolves in routes "
            f"only: call webhooks.provide({name!r}, {function}) and remove the Depends"
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        if is_required:
            raise ConfigurationError(
                f"handler {handler!r} has a required parameter {name!r} that cannot be passed by name"
            )
        return
    if name == "event" and is_required:
        raise ConfigurationError(f"the first parameter of handler {handler!r} must be the event, got another before it")
    if name not in OFFERED_PARAMETERS and (close := _similar_parameter(name)):
        raise ConfigurationError(
            f"handler {handler!r} has a parameter {name!r}; did you mean {close!r}? If not, choose a name that is "
            "less similar"
        )


def _is_depends(value: object) -> bool:
    kind = type(value)
    return kind.__name__ in {"Depends", "Security"} and kind.__module__.partition(".")[0] == "fastapi"


def _metadata_of(annotation: object) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _similar_parameter(name: str) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, OFFERED_PARAMETERS, 1, 0.85)), None)


def _annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> object:
    """Return the annotation of a parameter; `None` if it has none, or it cannot be read."""
    try:
        return _evaluate(function, parameter.annotation)
    except Exception:
        return None


def _without_metadata(annotation: object) -> object:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _object_type(function: Callable[..., Any], annotation: object, name: str) -> Any:
    """Return the `T` of a parameter that is annotated as `Event[T]`; `None` if the object is a plain mapping."""
    resolved = _without_metadata(_resolve(function, annotation, name))
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
    try:
        return _evaluate(function, annotation)
    except Exception as error:
        # The type of a plain event may be imported for type checkers only.
        if re.search(r"\bEvent\s*\[", str(annotation)) is None:
            return None
        raise ConfigurationError(
            f"cannot read the type of the event of handler {name!r}, {annotation!s}: {error}; define or import the "
            "type in the handler's module, before the handler and not under TYPE_CHECKING"
        ) from None


def _evaluate(function: Callable[..., Any], annotation: object) -> object:
    if annotation is inspect.Parameter.empty:
        return None
    described = SimpleNamespace(__annotations__={"parameter": annotation})
    return get_type_hints(described, globalns=_globals_of(function), include_extras=True)["parameter"]


def _globals_of(function: Any) -> dict[str, Any]:
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__globals__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - not a test for callability
    values: dict[str, Any] = getattr(function, "__globals__", {})
    return values
