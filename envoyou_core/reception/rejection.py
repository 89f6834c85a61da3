"""Converts a request that was rejected into what the inbox keeps of it, and back into a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from envoyou_core.errors import InvalidPayloadError
from envoyou_core.event import Event
from envoyou_core.http import WebhookRequest
from envoyou_core.redaction import one_line

if TYPE_CHECKING:
    from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery

__all__ = ["rejection_of", "request_of", "with_signed_headers"]

_KEPT_HEADERS: Final = ("signature", "timestamp", "webhook_id", "event_type", "nonce")
"""The fields of a request that verification reads."""


def rejection_of(request: WebhookRequest, tenant: str, now: float, error: InvalidPayloadError) -> NewRejection:
    """Describe an authenticated request that is rejected with `error`.

    Args:
        request: the request.
        tenant: the tenant whose secret has proven it.
        now: the time as of which it was authenticated, in epoch seconds.
        error: why it is rejected.
    """
    from envoyou_core.inbox.rejected import NewRejection

    headers = {field: value for field in _KEPT_HEADERS if (value := getattr(request, field)) is not None}
    return NewRejection(
        body=request.body,
        headers=headers,
        reason=error.reason,
        error=one_line(str(error)),
        received_at=datetime.fromtimestamp(now, UTC),
        tenant=tenant,
    )


def request_of(rejected: RejectedDelivery) -> WebhookRequest:
    """Return the request of a rejected delivery, as far as verification reads it."""
    return WebhookRequest(
        "POST",
        rejected.body,
        signature=rejected.headers.get("signature"),
        timestamp=rejected.headers.get("timestamp"),
        webhook_id=rejected.headers.get("webhook_id"),
        event_type=rejected.headers.get("event_type"),
        nonce=rejected.headers.get("nonce"),
    )


def with_signed_headers(request: WebhookRequest) -> WebhookRequest:
    """Replace the unsigned headers that name the event's type and endpoint by what the signed body says.

    The request must be verified afterwards, because the webhook id selects the secrets.

    Raises:
        InvalidPayloadError: the body is not an event.
    """
    event = Event.from_body(request.body)
    webhook_id = request.webhook_id if event.webhook_id is None else event.webhook_id.encode()
    return replace(request, event_type=event.type.encode(), webhook_id=webhook_id)
