"""Sample events and signed deliveries. See the guide, "Webhook Payload Structure" and "Security Headers"."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoyou_core.event import Event
from envoyou_core.http import (
    EVENT_TYPE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
)
from envoyou_core.reception.signature import Secret, SignedContent, sign

__all__ = ["SAMPLE_WEBHOOK_ID", "Delivery", "sample_event", "sign_delivery"]

SAMPLE_WEBHOOK_ID = "wh_1234567890"
"""The endpoint's id in samples."""

_USER = {
    "id": "user_123",
    "email": "john.doe@example.com",
    "name": "John Doe",
    "email_verified": False,
    "created_at": "2024-01-01T00:00:00Z",
    "metadata": {},
}
_LOGIN = {
    "user_id": "user_123",
    "ip_address": "192.168.1.1",
    "user_agent": "Mozilla/5.0",
    "timestamp": "2024-01-01T00:01:00Z",
    "location": {"country": "US", "city": "New York"},
}
_SAMPLE_OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "user": _USER,
    "auth": _LOGIN,
    "api": {"id": "key_123", "user_id": "user_123", "limit": 1000, "used": 1000},
    "system": {"id": "inc_123", "title": "Degraded performance", "started_at": "2024-01-01T00:00:00Z"},
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """An HTTP request as the platform sends it.

    Attributes:
        headers: the content type and the guide's security headers.
        body: the raw bytes that were signed.
    """

    headers: dict[str, str]
    body: bytes


def sample_event(
    type: str = "user.created",
    *,
    id: str | None = None,
    created: int | None = None,
    object: Mapping[str, Any] | None = None,
    webhook_id: str | None = SAMPLE_WEBHOOK_ID,
) -> Event:
    """Make an event of `type`, with an object like those in the guide.

    Args:
        type: any event type, even one that the guide does not list.
        id: the event's id; a new one by default.
        created: epoch seconds; now by default.
        object: `data.object`; by default a sample for the type.
        webhook_id: the endpoint's id in the body; `None` to omit it.

    Raises:
        InvalidPayloadError: the values do not make a valid event.

    Examples:
        >>> sample_event("auth.login").data.object["user_id"]
        'user_123'
    """
    document: dict[str, Any] = {
        "id": id or f"evt_{uuid.uuid4().hex}",
        "type": type,
        "created": int(time.time()) if created is None else created,
        "data": {
            "object": dict(_SAMPLE_OBJECTS.get(type.partition(".")[0], {"id": "obj_123"}) if object is None else object)
        },
    }
    if webhook_id is not None:
        document["webhook_id"] = webhook_id
    return Event.from_body(json.dumps(document).encode())


def sign_delivery(
    event: Event | Mapping[str, Any] | bytes,
    *,
    secret: Secret,
    timestamp: int | None = None,
    nonce: str | None = None,
    signed_content: SignedContent = "raw",
    webhook_id: str | None = None,
    event_type: str | None = None,
) -> Delivery:
    """Sign `event` as the platform does. See the guide, "Security Headers".

    Args:
        event: an event, or any body: a mapping to serialize as JSON, or bytes, which need not be a valid event.
        secret: the endpoint's signing secret.
        timestamp: epoch seconds; now by default.
        nonce: the nonce header; a new one by default, omitted if empty.
        signed_content: what is signed, `raw` or `canonical`.
        webhook_id: the webhook id header; by default the id in the body, else the sample's; omitted if empty.
        event_type: the event type header; by default the type in the body; omitted if empty.

    Raises:
        ConfigurationError: the secret is empty.
        ValueError: `signed_content` is `canonical`, but the body has no canonical form.

    Examples:
        >>> sign_delivery(sample_event(), secret="whsec_test", timestamp=1640995200).headers["X-EnvoyOU-Timestamp"]
        '1640995200'
    """
    body = event.body if isinstance(event, Event) else event if isinstance(event, bytes) else json.dumps(event).encode()
    sent_at = int(time.time()) if timestamp is None else timestamp
    envelope = _envelope(body)
    optional = {
        WEBHOOK_ID_HEADER: webhook_id if webhook_id is not None else envelope.get("webhook_id", SAMPLE_WEBHOOK_ID),
        EVENT_TYPE_HEADER: event_type if event_type is not None else envelope.get("type", ""),
        NONCE_HEADER: nonce if nonce is not None else str(uuid.uuid4()),
    }
    return Delivery(
        headers={
            "Content-Type": "application/json",
            SIGNATURE_HEADER: sign(body, secret=secret, timestamp=sent_at, signed_content=signed_content),
            TIMESTAMP_HEADER: str(sent_at),
            **{name: value for name, value in optional.items() if value},
        },
        body=body,
    )


def _envelope(body: bytes) -> dict[str, str]:
    """The `type` and `webhook_id` of a body, if they are strings."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {name: value for name in ("type", "webhook_id") if isinstance(value := document.get(name), str)}
