"""The custom headers of deliveries: those that a request must have, and those that are kept with its event.

See the guide, "Configure Webhook Settings". The platform sends the custom headers of an endpoint with each delivery.
They are not signed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from envoyou_core.errors import ConfigurationError, EndpointHeaderError
from envoyou_core.http import (
    EVENT_TYPE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
    WebhookRequest,
)
from envoyou_core.reception.secret_text import check_secret_text
from envoyou_core.redaction import remember_secret

__all__ = ["NO_ENDPOINT_HEADERS", "EndpointHeaders", "HeaderValues"]

HeaderValues = Mapping[str, str | Sequence[str]]
"""The required value of each header, or several of which one is required, to change it without a refusal."""

MAX_KEPT: Final = 20
"""The number of headers that can be kept."""

MAX_KEPT_VALUE: Final = 1_024
"""Characters. A longer value is not kept."""

_SECURITY_HEADERS: Final = frozenset(
    name.lower() for name in (SIGNATURE_HEADER, TIMESTAMP_HEADER, WEBHOOK_ID_HEADER, EVENT_TYPE_HEADER, NONCE_HEADER)
)
_CREDENTIALS: Final = frozenset({SIGNATURE_HEADER.lower(), "authorization", "cookie", "proxy-authorization"})
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}").fullmatch


class EndpointHeaders(msgspec.Struct, frozen=True):
    """Checks and selects the custom headers of a request.

    Attributes:
        required: names and the accepted values of each. The values are secret.
        kept: the names of the headers that are kept.
    """

    required: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"EndpointHeaders(kept={self.kept!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("kept", self.kept)]

    @classmethod
    def of(cls, required: HeaderValues | None, kept: Iterable[str]) -> EndpointHeaders:
        """Check the settings.

        Raises:
            ConfigurationError: a name or a value is invalid. The error contains no value.
        """
        if required is not None and not isinstance(required, Mapping):
            raise ConfigurationError(f"endpoint_headers must be a mapping or None, got {type(required).__name__}")
        checked = tuple((_required_name(name), _values(name, value)) for name, value in (required or {}).items())
        names = tuple(dict.fromkeys(_kept_name(name) for name in ([kept] if isinstance(kept, str) else kept)))
        secret = {name.lower() for name, _ in checked}
        for name in names:
            if name.lower() in secret:
                raise ConfigurationError(f"kept_headers must not contain {name}, whose value is secret")
        if len(names) > MAX_KEPT:
            raise ConfigurationError(f"kept_headers must contain at most {MAX_KEPT} names, got {len(names)}")
        return cls(checked, names)

    def check(self, request: WebhookRequest) -> None:
        """Check that the request has the required headers. The time that it takes depends on no value.

        Raises:
            EndpointHeaderError: one is missing, or has another value.
        """
        wrong = [name for name, values in self.required if not _is_one_of(request.header(name) or b"", values)]
        if wrong:
            raise EndpointHeaderError(f"the header {wrong[0]} is missing, or its value is not the expected one")

    def keep(self, request: WebhookRequest) -> dict[str, str]:
        """Return the headers to keep, by their names in the setting. One that is missing or too long is left out."""
        if not self.kept:
            return {}
        found = {name: _text(request.header(name)) for name in self.kept}
        return {name: text for name, text in found.items() if text is not None}


NO_ENDPOINT_HEADERS: Final = EndpointHeaders()
"""No header is required, and none is kept."""


def _is_one_of(value: bytes, expected: tuple[bytes, ...]) -> bool:
    # All of them are compared, so that the time does not show which one it is.
    matches = [hmac.compare_digest(value, each) for each in expected]
    return any(matches)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    return text if len(text) <= MAX_KEPT_VALUE and text.isprintable() else None


def _required_name(name: object) -> str:
    text = _name(name, "endpoint_headers")
    if text.lower() in _SECURITY_HEADERS:
        raise ConfigurationError(f"endpoint_headers must not contain {text}, which is different in each delivery")
    return text


def _kept_name(name: object) -> str:
    text = _name(name, "kept_headers")
    if text.lower() in _CREDENTIALS:
        raise ConfigurationError(f"kept_headers must not contain {text}, which is a credential")
    return text


def _name(name: object, setting: str) -> str:
    if not isinstance(name, str) or not _is_name(name):
        raise ConfigurationError(f"{setting} must contain names of headers, such as X-Custom-Header")
    return name


def _values(name: str, value: object) -> tuple[bytes, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values or not all(isinstance(each, str) and each for each in values):
        raise ConfigurationError(f"the value of {name} in endpoint_headers must be text, or a list of several")
    for each in values:
        check_secret_text(each, f"the value of {name} in endpoint_headers")
        if not each.isascii():
            raise ConfigurationError(f"the value of {name} in endpoint_headers must consist of ASCII characters")
        remember_secret(each)
    return tuple(each.encode() for each in values)
