"""A registered webhook, and the checks of what a client may set. See the guide, "Configure Webhook Settings"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from envoyou_core.errors import ConfigurationError
from envoyou_core.event import EVENT_TYPES
from envoyou_core.reception.signature import signing_keys
from envoyou_core.simulator.schedule import RetrySchedule
from envoyou_core.validation import is_number

__all__ = ["FieldIssue", "InvalidFieldsError", "Webhook", "changes_of"]

MAX_URL_LENGTH: Final = 2048
MAX_SECRET_LENGTH: Final = 255
MAX_HEADERS: Final = 20
MAX_HEADER_LENGTH: Final = 1024
MAX_ATTEMPTS: Final = 20
MAX_MULTIPLIER: Final = 10
MAX_INITIAL_DELAY: Final = 3_600_000
"""Milliseconds."""

RESERVED_HEADERS: Final = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})
RESERVED_PREFIX: Final = "x-envoyou-"

_is_header_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}").fullmatch
_is_header_value = re.compile(r"[!-~]([ -~]*[!-~])?").fullmatch


@dataclass(frozen=True, slots=True)
class FieldIssue:
    """One value that the platform refuses.

    Attributes:
        field: its path, such as `retry_policy.max_attempts`.
        issue: what is wrong. It does not quote the value, which may be a secret.
    """

    field: str
    issue: str


class InvalidFieldsError(ConfigurationError):
    """The settings of a webhook are invalid.

    Attributes:
        issues: one for each invalid value.
    """

    def __init__(self, issues: list[FieldIssue]) -> None:
        super().__init__("; ".join(f"{each.field} {each.issue}" for each in issues))
        self.issues = issues


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An endpoint that is registered with the platform. See the guide, "Register Webhook URL".

    Attributes:
        id: `wh_...`.
        url: where events are delivered.
        events: the types of the events that are delivered.
        secret: signs the deliveries.
        active: whether anything is delivered.
        retry_policy: when a failed delivery is repeated.
        headers: are sent with each delivery.
        created_at: epoch seconds.
        updated_at: epoch seconds.
    """

    id: str
    url: str
    events: tuple[str, ...]
    secret: str = field(repr=False)
    active: bool = True
    retry_policy: RetrySchedule = field(default_factory=RetrySchedule)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    created_at: float = 0.0
    updated_at: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return what the API shows: everything but the secret."""
        policy = self.retry_policy
        return {
            "id": self.id,
            "url": self.url,
            "events": list(self.events),
            "active": self.active,
            "retry_policy": {
                "max_attempts": policy.max_attempts,
                "backoff_multiplier": policy.backoff_multiplier,
                "initial_delay": policy.initial_delay,
            },
            "headers": dict(self.headers),
            "created_at": _as_text(self.created_at),
            "updated_at": _as_text(self.updated_at),
        }


def changes_of(document: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
    """Check the settings that a client sends, and return them as attributes of `Webhook`.

    Args:
        document: the settings. `null` sets `retry_policy` and `headers` to their defaults.
        is_new: whether `url` and `events` are required.

    Raises:
        InvalidFieldsError: a setting is invalid, unknown or missing.
    """
    changes: dict[str, Any] = {}
    issues = [FieldIssue(name, "is required") for name in REQUIRED if is_new and name not in document]
    for name, value in document.items():
        check = _CHECKS.get(name)
        if check is None:
            issues.append(FieldIssue(name, f"is unknown; expected one of {', '.join(_CHECKS)}"))
            continue
        try:
            changes[name] = check(value)
        except _Refused as refused:
            issues.append(FieldIssue(f"{name}{refused.path}", refused.issue))
    if issues:
        raise InvalidFieldsError(issues)
    return changes


class _Refused(Exception):  # noqa: N818 - becomes a FieldIssue
    def __init__(self, issue: str, path: str = "") -> None:
        super().__init__(issue)
        self.issue = issue
        self.path = path


def _url(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise _Refused("must be a URL of printable ASCII characters")
    if len(value) > MAX_URL_LENGTH:
        raise _Refused(f"must have at most {MAX_URL_LENGTH} characters")
    try:
        parts = urlsplit(value)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise _Refused("must be an absolute http or https URL")
    if parts.username is not None or parts.fragment:
        raise _Refused("must have neither a user name nor a fragment")
    return value


def _events(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _Refused("must be a list of at least one event type")
    for position, each in enumerate(value):
        if each not in EVENT_TYPES:
            raise _Refused("is not a supported event type", f"[{position}]")
    return tuple(dict.fromkeys(value))


def _secret(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_SECRET_LENGTH:
        raise _Refused(f"must be text of at most {MAX_SECRET_LENGTH} characters")
    try:
        signing_keys(value)
    except ConfigurationError as error:
        raise _Refused(f"is invalid: {error}") from None
    return value


def _active(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Refused("must be true or false")
    return value


def _retry_policy(value: object) -> RetrySchedule:
    if value is None:
        return RetrySchedule()
    if not isinstance(value, dict):
        raise _Refused("must be an object")
    bounds: dict[str, tuple[type | tuple[type, ...], float, float]] = {
        "max_attempts": (int, 1, MAX_ATTEMPTS),
        "backoff_multiplier": ((int, float), 1, MAX_MULTIPLIER),
        "initial_delay": (int, 0, MAX_INITIAL_DELAY),
    }
    for name, given in value.items():
        if name not in bounds:
            raise _Refused(f"is unknown; expected one of {', '.join(bounds)}", f".{name}")
        kind, lowest, highest = bounds[name]
        if not (is_number(given) and isinstance(given, kind) and lowest <= given <= highest):
            noun = "an integer" if kind is int else "a number"
            raise _Refused(f"must be {noun} from {lowest} to {highest}", f".{name}")
    return RetrySchedule(**value)


def _headers(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_HEADERS:
        raise _Refused(f"must be an object of at most {MAX_HEADERS} headers")
    for name, text in value.items():
        if not _is_header_name(name):
            raise _Refused("has an invalid header name")
        if name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_PREFIX):
            raise _Refused("is set by the platform", f".{name}")
        if not isinstance(text, str) or len(text) > MAX_HEADER_LENGTH or not _is_header_value(text):
            raise _Refused(f"must be text of 1 to {MAX_HEADER_LENGTH} printable ASCII characters", f".{name}")
    return value


REQUIRED: Final = ("url", "events")
_CHECKS: Final[Mapping[str, Callable[[object], Any]]] = {
    "url": _url,
    "events": _events,
    "secret": _secret,
    "active": _active,
    "retry_policy": _retry_policy,
    "headers": _headers,
}


def _as_text(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
