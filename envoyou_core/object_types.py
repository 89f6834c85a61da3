"""Converts the object of an event to a type of the application. Errors name the field and no data of the event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

import msgspec

from envoyou_core.errors import ConfigurationError, InvalidPayloadError

__all__ = ["check_object_type", "convert_object"]

_T = TypeVar("_T")


def convert_object(mapping: Mapping[str, Any], type_: type[_T]) -> _T:
    """Convert an object to `type_`. See `EventData.as_type`.

    Raises:
        InvalidPayloadError: it does not match the type, or the type's own validation failed.
        ConfigurationError: objects cannot be converted to `type_`.
    """
    validate = getattr(type_, "model_validate", None)
    try:
        return msgspec.convert(mapping, type_) if validate is None else cast(_T, validate(mapping))
    except Exception as error:
        name = _name_of(type_)
        # msgspec wraps what a type's own validation raises, so a TypeError is about the type.
        if validate is None and isinstance(error, TypeError):
            raise ConfigurationError(f"cannot convert data.object to {name}: {error}") from None
        raise InvalidPayloadError(f"data.object is not a {name}: {_describe_mismatch(error, type_)}") from None


def check_object_type(type_: Any) -> None:
    """Check that the object of an event can be converted to `type_`. See `EventData.as_type`.

    Raises:
        ConfigurationError: it cannot, because `type_` is not a type of objects with members.
    """
    if hasattr(type_, "model_validate"):
        return
    from msgspec import inspect

    kinds = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.DictType, inspect.UnionType)
    try:
        is_supported = isinstance(inspect.type_info(type_), kinds)
        with suppress(msgspec.ValidationError):
            msgspec.convert({}, type_)
    except Exception as error:
        raise ConfigurationError(f"cannot convert data.object to {_name_of(type_)}: {error}") from None
    if not is_supported:
        raise ConfigurationError(
            f"cannot convert data.object to {_name_of(type_)}: expected a Pydantic model, a msgspec Struct, a "
            "dataclass or a TypedDict"
        )


def _name_of(type_: Any) -> str:
    return str(getattr(type_, "__name__", repr(type_)))


_MESSAGES_WITHOUT_DATA = (
    "Expected ",
    "Object missing required field ",
    "Invalid RFC3339 ",
    "Invalid ISO8601 ",
    "Invalid UUID",
)
_match_path = re.compile(r"(?:`key` in )?`\$(?:\.\w+|\[\d+\]|\[\.\.\.\])*`").fullmatch


def _describe_mismatch(error: Exception, type_: object) -> str:
    """Describe what is wrong in which field, without any data of the event."""
    if isinstance(error, msgspec.ValidationError):
        return _describe_msgspec_error(error)
    if callable(errors := getattr(error, "errors", None)):
        fields = _field_names(type_)
        return "; ".join(f"{one['type']} - at `{_path(one['loc'], fields)}`" for one in errors())
    return f"its validation raised {type(error).__name__}"


def _describe_msgspec_error(error: msgspec.ValidationError) -> str:
    # Some of msgspec's messages contain values of the event, names of its members, or the text of an exception that the
    # type's own validation has raised.
    if (cause := error.__cause__) is not None:
        path = str(error).removeprefix(f"{cause} - at ")
        raised = f"its validation raised {type(cause).__name__}"
        return raised if _match_path(path) is None else f"{raised} - at {path}"
    problem, at, path = str(error).rpartition(" - at ")
    if not at or _match_path(path) is None:
        problem, at, path = str(error), "", ""
    if problem.startswith("Invalid enum value"):
        problem = "Invalid enum value"
    elif problem.startswith("Object contains unknown field"):
        problem = "Object contains unknown field"
    elif not problem.startswith(_MESSAGES_WITHOUT_DATA):
        problem = "Invalid value"
    return problem + at + path


def _field_names(type_: object) -> frozenset[str]:
    """Return the names and aliases of a Pydantic model's fields."""
    fields: Mapping[str, Any] = getattr(type_, "model_fields", {})
    aliases = {name for field in fields.values() for name in (field.alias, field.validation_alias)}
    return frozenset(fields) | {name for name in aliases if isinstance(name, str)}


def _path(location: tuple[object, ...], fields: frozenset[str]) -> str:
    return f"$.{location[0]}" if location and location[0] in fields else "$"
