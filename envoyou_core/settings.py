"""One name for each setting, everywhere.

It is a keyword of `Webhooks`, upper case in a framework's configuration, and upper case behind `ENVOYOU_` in the
environment. Only `WEBHOOK_SECRET`, the guide's own name, stands for `secret`, and so does `WEBHOOK_SECRET_FILE`, the
path of a file with one secret a line.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.stored_secrets import read_secret_file, split_secrets
from envoyou_core.retention import Retention
from envoyou_core.retry import RetryPolicy

__all__ = ["SECRET_NAMES", "SETTING_NAMES", "read_settings"]

SECRET: Final = "WEBHOOK_SECRET"  # noqa: S105 - the name of a setting
SECRET_FILE: Final = "WEBHOOK_SECRET_FILE"  # noqa: S105 - the name of a setting
SECRET_NAMES: Final = frozenset({SECRET, SECRET_FILE})
"""The settings that stand for `secret`."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not text")
    return value


def _text_or_function(value: object) -> object:
    return value if callable(value) else _text(value)


def _as_given(value: object) -> object:
    return value


def _number(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        with suppress(ValueError, OverflowError):
            return float(value)
    raise ValueError("is not a number")


def _integer(value: object) -> int:
    if not isinstance(value, bool) and isinstance(value, int | str):
        with suppress(ValueError):
            return int(value)
    raise ValueError("is not a whole number")


def _integer_or_none(value: object) -> int | None:
    return None if value is None or (isinstance(value, str) and value.lower() in {"none", "off"}) else _integer(value)


def _listed(value: object) -> tuple[object, ...]:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("is not a list")
    return tuple(value)


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(_number(item) for item in _listed(value))


def _truth(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("is neither true nor false")
    return words[value.lower()]


def _retry(value: object) -> object:
    if isinstance(value, str) and value.lower() == "patient":
        return RetryPolicy.patient()
    if isinstance(value, Mapping):
        return RetryPolicy(**_members(value, dict(_RETRY.values())))
    if value is not None and not isinstance(value, RetryPolicy):
        raise ValueError("is neither a RetryPolicy, nor a mapping of its members, nor 'patient'")
    return value


def _members(given: Mapping[str, object], known: Mapping[str, Callable[[object], object]]) -> dict[str, Any]:
    for name in given:
        if name not in known:
            raise ValueError(f"has no member {name!r}")
    return {name: known[name](value) for name, value in given.items()}


def _retention(value: object) -> object:
    if value is None or (isinstance(value, str) and value.lower() in {"none", "off"}):
        return None
    if not isinstance(value, Retention):
        raise ValueError("is neither a Retention nor 'off'")
    return value


Setting = tuple[str, Callable[[object], object]]
"""A keyword, and what makes its value of the setting's."""

_KEYWORDS: Final[Mapping[str, Setting]] = {
    SECRET: ("secret", _as_given),
    "NAME": ("name", _text),
    "INBOX": ("inbox", _as_given),
    "SPOOL": ("spool", _as_given),
    "NONCES": ("nonces", _as_given),
    "HANDOFF": ("handoff", _text_or_function),
    "TOLERANCE": ("tolerance", _number),
    "SIGNED_CONTENT": ("signed_content", _listed),
    "REQUIRED_HEADERS": ("required_headers", _listed),
    "MAX_BODY_SIZE": ("max_body_size", _integer),
    "MAX_CANONICAL_SIZE": ("max_canonical_size", _integer_or_none),
    "CONCURRENCY": ("concurrency", _integer),
    "LEASE": ("lease", _number),
    "SHUTDOWN_TIMEOUT": ("shutdown_timeout", _number),
    "CLOCK": ("clock", _as_given),
    "RETRY": ("retry", _retry),
    "RETENTION": ("retention", _retention),
}
_RETRY: Final[Mapping[str, Setting]] = {
    "RETRY_MAX_ATTEMPTS": ("max_attempts", _integer),
    "RETRY_INITIAL_DELAY": ("initial_delay", _number),
    "RETRY_FACTOR": ("factor", _number),
    "RETRY_MAX_DELAY": ("max_delay", _number),
    "RETRY_DELAYS": ("delays", _numbers),
    "RETRY_JITTER": ("jitter", _truth),
    "RETRY_MAX_CRASHES": ("max_crashes", _integer),
}
_RETENTION: Final[Mapping[str, Setting]] = {
    "RETENTION_PAYLOAD_DAYS": ("payload_days", _number),
    "RETENTION_ID_DAYS": ("id_days", _number),
    "RETENTION_MARK_DAYS": ("mark_days", _number),
    "RETENTION_SCRUB_PROCESSED": ("scrub_processed", _truth),
}
_PARTS: Final[Mapping[str, tuple[Callable[..., object], Mapping[str, Setting]]]] = {
    "RETRY": (RetryPolicy, _RETRY),
    "RETENTION": (Retention, _RETENTION),
}
"""What comes whole, or in parts, each with a setting of its own."""

SETTING_NAMES: Final = SECRET_NAMES.union(_KEYWORDS, *(parts for _, parts in _PARTS.values()))
"""Every name a framework's configuration may hold."""


def read_settings(
    settings: Mapping[str, Any], *, others: frozenset[str] = frozenset(), prefix: str = ""
) -> dict[str, Any]:
    """The keyword arguments of `Webhooks` that a framework's configuration stands for.

    Args:
        settings: from the upper-case name of a setting, without prefix, to its value; numbers and lists may be text,
            as they are in an environment.
        others: names that are the caller's own and left out.
        prefix: what stands before a name where the user has written it, for the error.

    Raises:
        ConfigurationError: a name that nobody knows (the nearest one is suggested), or a value of the wrong kind.

    Examples:
        >>> read_settings({"WEBHOOK_SECRET": "whsec_test", "TOLERANCE": "60"})
        {'secret': 'whsec_test', 'tolerance': 60.0}
    """
    given = {name: value for name, value in settings.items() if name not in others}
    for name in given:
        if name not in SETTING_NAMES:
            raise ConfigurationError(_unknown(name, SETTING_NAMES | others, prefix))
    keywords = _converted(given, _KEYWORDS, prefix)
    for whole, (make, parts) in _PARTS.items():
        found = _converted(given, parts, prefix)
        if found and whole in given:
            either = prefix + whole
            raise ConfigurationError(f"give either {either} or the single {either}_... settings, not both")
        if found:
            keywords[_KEYWORDS[whole][0]] = make(**found)
    if given.get(SECRET_FILE) is not None:
        if given.get(SECRET) is not None:
            raise ConfigurationError(f"give either {prefix}{SECRET} or {prefix}{SECRET_FILE}, not both")
        keywords["secret"] = read_secret_file(given[SECRET_FILE], prefix + SECRET_FILE)
    return keywords


def read_environment(
    environ: Mapping[str, str], *, others: frozenset[str] = frozenset(), prefix: str = "ENVOYOU_"
) -> dict[str, Any]:
    """The keyword arguments of `Webhooks` that the environment stands for.

    Variables that only share the prefix are left alone, unless one looks like a misspelt setting. Several secrets are
    separated by commas: only here, because a framework's configuration can hold a list.

    Args:
        environ: the environment.
        others: settings to leave out, without prefix.
        prefix: what stands before the name of a setting.

    Raises:
        ConfigurationError: a name that is nearly a setting's, or a value of the wrong kind.
    """
    found = {name.removeprefix(prefix): value for name, value in environ.items() if name.startswith(prefix)}
    known: dict[str, Any] = {name: value for name, value in found.items() if name in SETTING_NAMES - others}
    if SECRET in known:
        known[SECRET] = split_secrets(known[SECRET], prefix + SECRET)
    for name in found.keys() - SETTING_NAMES:
        if difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.85):
            raise ConfigurationError(_unknown(name, SETTING_NAMES, prefix))
    return read_settings(known, prefix=prefix)


def _converted(given: Mapping[str, object], known: Mapping[str, Setting], prefix: str) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    for name, (keyword, convert) in known.items():
        if name in given:
            try:
                converted[keyword] = convert(given[name])
            except ValueError as error:
                # The value is left out: it may have been meant for WEBHOOK_SECRET.
                raise ConfigurationError(f"the setting {prefix}{name} cannot be used: {error}") from None
    return converted


def _unknown(name: str, known: frozenset[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix + close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
    return f"there is no setting {prefix + name!r}: {hint}"
