"""Rejected deliveries: genuine ones that were answered 400 and are kept to be retried. The rules of every inbox.

Only the platform can produce such a delivery, so it is worth keeping: a later release or another setting may accept it.
The functions are pure; an inbox adds its statements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from envoyou_core.errors import InvalidPayloadError
from envoyou_core.event import Event, EventData, object_key
from envoyou_core.inbox.rows import body_bytes
from envoyou_core.reception.strict_json import load_json

__all__ = [
    "MAX_REJECTED",
    "MAX_REJECTED_SIZE",
    "NewRejection",
    "RejectedDelivery",
    "keep",
    "rejected_of",
    "surplus",
]

MAX_REJECTED: Final = 1_000
"""The maximum number of rejected deliveries that an inbox keeps. The oldest are deleted first."""

MAX_REJECTED_SIZE: Final = 64 * 1_048_576
"""The maximum number of bytes that the bodies of an inbox's rejected deliveries have together."""

MAX_HEADER: Final = 1_024
"""Bytes of a header that are kept. A longer header cannot match a body, in which a name has 255 characters at most."""


@dataclass(frozen=True, slots=True, repr=False)
class NewRejection:
    """A genuine delivery that was answered 400, on its way into the inbox.

    Attributes:
        body: the authenticated bytes.
        headers: the headers that verification reads, by their field in `WebhookRequest`.
        reason: a stable word, such as `invalid_payload`.
        error: why it was rejected, for people.
        received_at: when it was authenticated, an aware datetime.
        tenant: the tenant whose secret has proven it.
    """

    body: bytes
    headers: Mapping[str, bytes]
    reason: str
    error: str
    received_at: datetime
    tenant: str = ""

    def __repr__(self) -> str:
        # Neither the body nor the signature may be logged.
        return f"NewRejection({self.reason!r}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True, repr=False)
class RejectedDelivery:
    """A genuine delivery that was answered 400, as the inbox keeps it. `webhooks.retry_rejected` verifies it anew.

    Attributes:
        key: identifies it in its inbox's database.
        body: the bytes as sent. They are personal data like the payload of an event.
        headers: the headers that verification reads, by their field in `WebhookRequest`; the signature is among them.
        reason: a stable word, such as `invalid_payload`.
        error: why it was rejected, for people.
        received_at: when it was received, in UTC.
        tenant: the tenant whose secret has proven it.
    """

    key: int
    body: bytes
    headers: Mapping[str, bytes]
    reason: str
    error: str
    received_at: datetime
    tenant: str = ""

    @property
    def size(self) -> int:
        """The size of the body, in bytes."""
        return len(self.body)

    @property
    def webhook_id(self) -> str | None:
        """The webhook id header as sent, which is not signed. Escape it before it is shown, like `event_type`."""
        return self._header("webhook_id")

    @property
    def event_type(self) -> str | None:
        """The event type header as sent, which is not signed."""
        return self._header("event_type")

    def _header(self, field: str) -> str | None:
        value = self.headers.get(field)
        return None if value is None else value.decode("utf-8", "replace")

    def __repr__(self) -> str:
        # Neither the body nor the signature may be logged.
        return f"RejectedDelivery({self.key}, {self.reason!r}, {self.size} bytes)"


def keep(rejection: NewRejection) -> dict[str, Any]:
    """The columns of a rejected delivery; the inbox adds its name. Times are datetimes.

    Name, tenant and digest are its key: a redelivery of the same body is kept once.

    Raises:
        ValueError: the body is larger than all that an inbox keeps.
    """
    size = len(rejection.body)
    if size > MAX_REJECTED_SIZE:
        raise ValueError(f"its body has {size} bytes, and at most {MAX_REJECTED_SIZE} are kept")
    # As JSON, which can express every byte in text that every database can store.
    headers = {field: value[:MAX_HEADER].decode("latin-1") for field, value in rejection.headers.items()}
    return {
        "tenant": rejection.tenant,
        "digest": hashlib.sha256(rejection.body).hexdigest(),
        "reason": rejection.reason,
        "error": rejection.error,
        "headers": json.dumps(headers),
        "received_at": rejection.received_at,
        "object_key": _object_key_in(rejection.body),
        "size": size,
        "body": rejection.body,
    }


def rejected_of(row: Any, *, key: int, moment: Callable[[Any], datetime]) -> RejectedDelivery:
    """Read a row. Headers that are unreadable are missing, so that a retry fails.

    Args:
        row: an object with the columns as attributes.
        key: the row's primary key.
        moment: converts a stored time.
    """
    return RejectedDelivery(
        key=key,
        body=body_bytes(row.body),
        headers=_headers_of(row.headers),
        reason=str(row.reason),
        error=str(row.error),
        received_at=moment(row.received_at),
        tenant=str(row.tenant),
    )


def surplus(kept: Iterable[tuple[int, int]]) -> list[int]:
    """Select the rejected deliveries that exceed the bounds.

    Args:
        kept: key and size of all that an inbox keeps, the newest first.

    Returns:
        The keys of those to delete.
    """
    keys = []
    total = 0
    for number, (key, size) in enumerate(kept, start=1):
        total += size
        if number > MAX_REJECTED or total > MAX_REJECTED_SIZE:
            keys.append(key)
    return keys


def _headers_of(stored: object) -> dict[str, bytes]:
    try:
        headers: Any = json.loads(str(stored))
        return {str(field): value.encode("latin-1") for field, value in headers.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _object_key_in(body: bytes) -> str:
    """Return the id of the object that a body is about, as far as it is in the usual place; empty if it is not."""
    try:
        return Event.from_body(body).object_id or ""
    except InvalidPayloadError:
        pass
    try:
        identity = EventData(b"", load_json(body)["data"]["object"]).identity()
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
    return "" if identity is None else object_key(identity)
