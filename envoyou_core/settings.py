"""The settings of a `Webhooks` object: their names, their conversion from text, their limits and defaults.

A setting has one name everywhere: a keyword of `Webhooks`, upper case in a framework's configuration, and upper case
with the prefix `ENVOYOU_` in the environment. The one exception is `secret`, which is `WEBHOOK_SECRET` there, as in the
guide, or `WEBHOOK_SECRET_FILE`: the path of a file with one secret per line.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from envoyou_core.alerts.config import Alerts
from envoyou_core.errors import ConfigurationError
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.reception.stored_secrets import read_secret_file, split_secrets
from envoyou_core.retention import Retention
from envoyou_core.retry import RetryPolicy
from envoyou_core.validation import check_count, check_seconds

__all__ = [
    "DEFAULT_MAX_BODY_SIZE",
    "MISSING_SECRET",
    "SECRET_NAMES",
    "SETTING_NAMES",
    "Handoff",
    "WorkerSettings",
    "above_environment",
    "read_environment",
    "read_settings",
]

log = RedactedLogger("envoyou")

DEFAULT_MAX_BODY_SIZE: Final = 1_048_576
"""Bytes."""

MIN_LEASE: Final = 1.0
"""Seconds."""

PREFIX: Final = "ENVOYOU_"
"""The prefix of the names in the environment."""

SECRET: Final = "WEBHOOK_SECRET"  # noqa: S105 - the name of a setting
SECRET_FILE: Final = "WEBHOOK_SECRET_FILE"  # noqa: S105 - the name of a setting
SECRET_WORD: Final = "SECRET"  # noqa: S105 - a part of names of settings
SECRET_NAMES: Final = frozenset({SECRET, SECRET_FILE})
"""The settings from which `secret` is read."""

MISSING_SECRET: Final = (
    f"the webhook secret is missing: set the environment variable {PREFIX}{SECRET} to the signing secret of the "
    f"endpoint, or {PREFIX}{SECRET_FILE} to the path of a file that contains it"
)
"""The error if no secret is configured."""

Handoff = Literal["auto", "manual", "celery"] | Callable[[str], object]
"""How accepted events reach a worker."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that concern the handling of accepted events. See `Webhooks` for their meaning.

    Raises:
        ConfigurationError: a value is of the wrong type or out of range.
    """

    handoff: Handoff = "auto"
    retry: RetryPolicy = msgspec.field(default_factory=RetryPolicy)
    retention: Retention | None = msgspec.field(default_factory=Retention)
    concurrency: int = 8
    lease: float = 30.0
    shutdown_timeout: float = 10.0
    handler_wait: float = 86_400.0
    analytics: bool = True
    alerts: Alerts | None = msgspec.field(default_factory=Alerts)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not callable(self.handoff) and self.handoff not in ("auto", "manual"):
            raise ConfigurationError(f"handoff must be 'auto', 'manual', 'celery' or a function, got {self.handoff!r}")
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(f"retry must be a RetryPolicy or None, got {type(self.retry).__name__}")
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise ConfigurationError(f"retention must be a Retention or None, got {type(self.retention).__name__}")
        if not isinstance(self.analytics, bool):
            raise ConfigurationError(f"analytics must be true or false, got {type(self.analytics).__name__}")
        if self.alerts is not None and not isinstance(self.alerts, Alerts):
            raise ConfigurationError(f"alerts must be an Alerts or None, got {type(self.alerts).__name__}")
        if not callable(self.clock):
            raise ConfigurationError(
                f"clock must be a function that returns epoch seconds, got {type(self.clock).__name__}"
            )
        check_count("concurrency", self.concurrency)
        check_seconds("lease", self.lease, minimum=MIN_LEASE)
        check_seconds("shutdown_timeout", self.shutdown_timeout, minimum=0.0)
        check_seconds("handler_wait", self.handler_wait, minimum=0.0)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _text_or_function(value: object) -> object:
    return value if callable(value) else _text(value)


def _function(value: object) -> object:
    if not callable(value):
        raise ValueError("must be a function")
    return value


def _as_given(value: object) -> object:
    return value


def _number(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        with suppress(ValueError, OverflowError):
            return float(value)
    raise ValueError("must be a number")


def _integer(value: object) -> int:
    if not isinstance(value, bool) and isinstance(value, int | str):
        with suppress(ValueError):
            return int(value)
    raise ValueError("must be an integer")


def _integer_or_none(value: object) -> int | None:
    return None if value is None or (isinstance(value, str) and value.lower() in {"none", "off"}) else _integer(value)


def _tuple(value: object) -> tuple[object, ...]:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("must be a list")
    return tuple(value)


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(_number(item) for item in _tuple(value))


def _header_values(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            # The text of the error quotes the value, which is secret.
            raise ValueError("must be a JSON object of names and values") from None
    if value is not None and not isinstance(value, Mapping):
        raise ValueError("must be a mapping of names and values")
    return value


def _boolean(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def _spool(value: object) -> object:
    return False if isinstance(value, str) and value.lower() in {"false", "no", "off", "none", "0"} else value


def _retry(value: object) -> object:
    if isinstance(value, str) and value.lower() == "patient":
        return RetryPolicy.patient()
    if isinstance(value, Mapping):
        return RetryPolicy(**_fields(value, dict(_RETRY.values())))
    if value is not None and not isinstance(value, RetryPolicy):
        raise ValueError("must be a RetryPolicy, a mapping of its fields, or 'patient'")
    return value


def _fields(given: Mapping[str, object], known: Mapping[str, Callable[[object], object]]) -> dict[str, Any]:
    for name in given:
        if name not in known:
            raise ValueError(f"has an unknown field {name!r}")
    return {name: known[name](value) for name, value in given.items()}


def _retention(value: object) -> object:
    if value is None or (isinstance(value, str) and value.lower() in {"none", "off"}):
        return None
    if not isinstance(value, Retention):
        raise ValueError("must be a Retention or 'off'")
    return value


def _alerts(value: object) -> object:
    if value is None or value is False or (isinstance(value, str) and value.lower() in {"none", "off", "false", "no"}):
        return None
    if not isinstance(value, Alerts):
        raise ValueError("must be an Alerts or 'off'")
    return value


def _thresholds(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("must be a JSON object of alerts and thresholds") from None
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of alerts and thresholds")
    return value


Setting = tuple[str, Callable[[object], object]]
"""A keyword of `Webhooks`, and the function that converts the setting to its value."""

_KEYWORDS: Final[Mapping[str, Setting]] = {
    SECRET: ("secret", _as_given),
    "NAME": ("name", _text),
    "INBOX": ("inbox", _as_given),
    "SPOOL": ("spool", _spool),
    "NONCES": ("nonces", _as_given),
    "HANDOFF": ("handoff", _text_or_function),
    "TOLERANCE": ("tolerance", _number),
    "SIGNED_CONTENT": ("signed_content", _tuple),
    "REQUIRED_HEADERS": ("required_headers", _tuple),
    "ENDPOINT_HEADERS": ("endpoint_headers", _header_values),
    "KEPT_HEADERS": ("kept_headers", _tuple),
    "MAX_BODY_SIZE": ("max_body_size", _integer),
    "MAX_CANONICAL_SIZE": ("max_canonical_size", _integer_or_none),
    "CAPTURE_REJECTED": ("capture_rejected", _as_given),
    "INSTRUMENT": ("instrument", _tuple),
    "CONCURRENCY": ("concurrency", _integer),
    "LEASE": ("lease", _number),
    "SHUTDOWN_TIMEOUT": ("shutdown_timeout", _number),
    "HANDLER_WAIT": ("handler_wait", _number),
    "ANALYTICS": ("analytics", _boolean),
    "ALERTS": ("alerts", _alerts),
    "CLOCK": ("clock", _function),
    "RETRY": ("retry", _retry),
    "RETENTION": ("retention", _retention),
}
_RETRY: Final[Mapping[str, Setting]] = {
    "RETRY_MAX_ATTEMPTS": ("max_attempts", _integer),
    "RETRY_INITIAL_DELAY": ("initial_delay", _number),
    "RETRY_FACTOR": ("factor", _number),
    "RETRY_MAX_DELAY": ("max_delay", _number),
    "RETRY_DELAYS": ("delays", _numbers),
    "RETRY_JITTER": ("jitter", _boolean),
    "RETRY_MAX_CRASHES": ("max_crashes", _integer),
    "RETRY_MAX_INTERRUPTIONS": ("max_interruptions", _integer),
}
_RETENTION: Final[Mapping[str, Setting]] = {
    "RETENTION_PAYLOAD_DAYS": ("payload_days", _number),
    "RETENTION_ID_DAYS": ("id_days", _number),
    "RETENTION_MARK_DAYS": ("mark_days", _number),
    "RETENTION_SCRUB_PROCESSED": ("scrub_processed", _boolean),
}
_ALERTS: Final[Mapping[str, Setting]] = {
    "ALERTS_THRESHOLDS": ("thresholds", _thresholds),
    "ALERTS_WEBHOOK_URL": ("webhook_url", _text),
    "ALERTS_EMAIL_TO": ("email_to", _tuple),
    "ALERTS_EMAIL_FROM": ("email_from", _text),
    "ALERTS_SMTP_URL": ("smtp_url", _text),
}
_PARTS: Final[Mapping[str, tuple[Callable[..., object], Mapping[str, Setting]]]] = {
    "RETRY": (RetryPolicy, _RETRY),
    "RETENTION": (Retention, _RETENTION),
    "ALERTS": (Alerts, _ALERTS),
}
"""Settings that are given as a whole or field by field."""

SETTING_NAMES: Final = SECRET_NAMES.union(_KEYWORDS, *(parts for _, parts in _PARTS.values()))
"""The names that a framework's configuration may hold."""


def read_settings(
    settings: Mapping[str, Any], *, others: frozenset[str] = frozenset(), prefix: str = ""
) -> dict[str, Any]:
    """Convert a framework's configuration to keyword arguments of `Webhooks`.

    Args:
        settings: the values by upper-case name without prefix. Numbers and lists may be text, as in an environment.
        others: names that belong to the caller and are ignored.
        prefix: the prefix of the names in the user's configuration, for error messages.

    Raises:
        ConfigurationError: a name is unknown (the closest one is suggested), or a value is of the wrong type.

    Examples:
        >>> read_settings({"WEBHOOK_SECRET": "whsec_test", "TOLERANCE": "60"})
        {'secret': 'whsec_test', 'tolerance': 60.0}
    """
    given = {name: value for name, value in settings.items() if name not in others}
    for name in given:
        if name not in SETTING_NAMES:
            raise ConfigurationError(_unknown_setting(name, SETTING_NAMES | others, prefix))
    keywords = _convert(given, _KEYWORDS, prefix)
    for whole, (make, parts) in _PARTS.items():
        fields = _convert(given, parts, prefix)
        if fields and whole in given:
            raise ConfigurationError(f"set either {prefix}{whole} or the {prefix}{whole}_... settings, not both")
        if fields:
            keywords[_KEYWORDS[whole][0]] = make(**fields)
    if given.get(SECRET_FILE) is not None:
        if given.get(SECRET) is not None:
            raise ConfigurationError(f"set either {prefix}{SECRET} or {prefix}{SECRET_FILE}, not both")
        keywords["secret"] = read_secret_file(given[SECRET_FILE], prefix + SECRET_FILE)
    return keywords


def read_environment(
    environ: Mapping[str, str], *, others: frozenset[str] = frozenset(), prefix: str = PREFIX
) -> dict[str, Any]:
    """Convert environment variables to keyword arguments of `Webhooks`.

    Other variables with the prefix are ignored, because other software may use them, unless one looks like a misspelt
    setting. Several secrets are separated by commas: only here, because a framework's configuration can hold a list.

    Args:
        environ: the environment.
        others: names to ignore, without prefix.
        prefix: the prefix of the names.

    Raises:
        ConfigurationError: a name looks like a misspelt setting, or a value is of the wrong type.
    """
    return read_settings(_variables(environ, SETTING_NAMES, others, prefix), prefix=prefix)


def above_environment(
    settings: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    *,
    others: frozenset[str] = frozenset(),
    ignored: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Complete a framework's configuration from environment variables. What the configuration sets takes precedence.

    A secret in the configuration also replaces the secret file of the environment, and the other way round. The same
    applies to a policy that is given as a whole in one place and field by field in the other.

    Args:
        settings: the configuration, by upper-case name without prefix. A secret that is `None` is not set.
        environ: the environment; by default that of the process.
        others: names of the caller's own settings, which may also be set in the environment.
        ignored: names that this caller does not take from the environment.

    Raises:
        ConfigurationError: a variable looks like a misspelt setting, or its value is of the wrong type.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in settings.items() if value is not None or name not in SECRET_NAMES}
    replaced = ignored.union(given, *map(_alternatives, given))
    variables = _variables(environ, SETTING_NAMES | others, replaced, PREFIX)
    # Converted here as well, so that an error names the variable. A secret file is read when the secret is used.
    read_settings(variables, others=others | SECRET_NAMES, prefix=PREFIX)
    return {**variables, **given}


def _variables(
    environ: Mapping[str, str], known: frozenset[str], others: frozenset[str], prefix: str
) -> dict[str, Any]:
    """Select the variables of the known settings but `others`. Another one that may be meant as a setting is reported.

    Raises:
        ConfigurationError: a name looks like a misspelt setting.
    """
    selected: dict[str, Any] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(prefix)
        if name != variable and name in known:
            if name not in others:
                selected[name] = split_secrets(value, variable) if name == SECRET else value
        elif variable.upper().startswith(prefix):
            _report_misspelt(variable, variable[len(prefix) :], known, prefix)
    return selected


def _report_misspelt(variable: str, name: str, known: frozenset[str], prefix: str) -> None:
    if variable.startswith(prefix) and _similar(name, known, cutoff=0.85):
        raise ConfigurationError(_unknown_setting(name, known, prefix))
    if (meant := _meant(name, known)) is not None:
        log.warning(
            "the environment variable %(variable)s is no setting and has no effect; did you mean %(meant)s?",
            {"variable": variable, "meant": prefix + meant},
        )


def _alternatives(name: str) -> frozenset[str]:
    """The settings that may not be set beside `name`."""
    if name in SECRET_NAMES:
        return SECRET_NAMES
    for whole, (_, parts) in _PARTS.items():
        if name == whole:
            return frozenset(parts)
        if name in parts:
            return frozenset({whole})
    return frozenset()


def _convert(given: Mapping[str, object], known: Mapping[str, Setting], prefix: str) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    for name, (keyword, convert) in known.items():
        if name in given:
            try:
                converted[keyword] = convert(given[name])
            except ValueError as error:
                # Without the value, which may be a secret that was given to the wrong setting.
                raise ConfigurationError(f"the setting {prefix}{name} {error}") from None
    return converted


def _unknown_setting(name: str, known: frozenset[str], prefix: str) -> str:
    meant = _meant(name, known) or _similar(name.upper(), known)
    if meant is None and SECRET_WORD in name.upper():
        meant = SECRET
    hint = f"known settings: {', '.join(sorted(known))}" if meant is None else f"did you mean {prefix + meant!r}?"
    return f"unknown setting {prefix + name!r}; {hint}"


def _similar(name: str, known: frozenset[str], cutoff: float = 0.6) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def _meant(name: str, known: frozenset[str]) -> str | None:
    """The setting that has this name in another case, or that ends with it."""
    upper = name.upper()
    return upper if upper in known else min((each for each in known if each.endswith(f"_{upper}")), default=None)
