"""The body of an event whose payload was deleted; it still identifies the event."""

from __future__ import annotations

import msgspec

from envoyou_core.event import Event

__all__ = ["scrubbed_body"]


def scrubbed_body(event: Event) -> bytes:
    """Make a body with the envelope of `event` and an empty object."""
    envelope = {"id": event.id, "type": event.type, "created": event.created, "data": {"object": {}}}
    if event.webhook_id is not None:
        envelope["webhook_id"] = event.webhook_id
    return msgspec.json.encode(envelope)
