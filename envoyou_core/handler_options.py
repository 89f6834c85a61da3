"""The options of a handler: their validation when it is registered."""

from __future__ import annotations

from envoyou_core.errors import ConfigurationError
from envoyou_core.retry import RetryPolicy
from envoyou_core.validation import check_count, is_number

__all__ = ["ErrorTypes", "check_conditions", "check_retry", "error_types", "former_names"]

ErrorTypes = tuple[type[Exception], ...]


def former_names(was: object) -> tuple[str, ...]:
    """Return the former names of a handler as a tuple.

    Raises:
        ConfigurationError: a name is empty or not a text.
    """
    names = (was,) if isinstance(was, str) else was
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"was must be a handler's former name or a list of them, got {was!r}")
    return tuple(names)


def check_conditions(stale: object, time_limit: object, concurrency: object, atomic: object) -> None:
    """Check the options that determine when and how a handler runs.

    Raises:
        ConfigurationError: a value is out of range or of a wrong type.
    """
    if stale is not None and stale != "skip":
        raise ConfigurationError(f"stale must be 'skip' or None, got {stale!r}")
    if time_limit is not None and not (is_number(time_limit) and 0 < time_limit < float("inf")):
        raise ConfigurationError(f"time_limit must be a finite number of seconds above 0, got {time_limit!r}")
    if concurrency is not None:
        check_count("concurrency", concurrency)
    if atomic is not None and not isinstance(atomic, bool):
        raise ConfigurationError(f"atomic must be True, False or None, got {atomic!r}")


def check_retry(retry: object) -> None:
    """Check the retry policy of a handler.

    Raises:
        ConfigurationError: it is something else.
    """
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry must be a RetryPolicy or None, got {type(retry).__name__}")


def error_types(option: str, value: object) -> ErrorTypes:
    """Return one exception type or several as a tuple.

    Raises:
        ConfigurationError: a value is not a subclass of `Exception`; the error names the option.
    """
    types = value if isinstance(value, list | tuple) else (value,)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise ConfigurationError(f"{option} must be an exception type or a list of them, got {one!r}")
    return tuple(types)
