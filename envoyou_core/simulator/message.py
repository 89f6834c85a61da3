"""The request that delivers an event, as the guide describes it. See the guide, "Security Headers"."""

from __future__ import annotations

import json
import uuid

from envoyou_core.simulator.outbox import DueDelivery
from envoyou_core.simulator.trouble import Trouble
from envoyou_core.simulator.webhook import Webhook
from envoyou_core.testing.deliveries import Delivery, sign_delivery

__all__ = ["compose"]

INDENTATION = 2


def compose(delivery: DueDelivery, webhook: Webhook, trouble: Trouble, now: float) -> Delivery:
    """Return the headers and the body of the next attempt of a delivery.

    Each attempt has a new timestamp and a new nonce, unless the nonces of the event are to be repeated.

    Args:
        delivery: what is delivered.
        webhook: where to; its `headers` are added.
        trouble: what is wrong with the request.
        now: epoch seconds.
    """
    number = delivery.attempts + 1
    document = {**json.loads(delivery.body), "webhook_id": webhook.id}
    indentation = INDENTATION if trouble.hits("pretty_bodies", delivery.event) else None
    body = json.dumps(document, indent=indentation).encode()
    repeats_nonce = trouble.hits("repeated_nonces", delivery.event)
    signed = sign_delivery(
        body,
        secret=webhook.secret,
        timestamp=int(now + trouble.clock_skew),
        nonce=str(uuid.uuid5(uuid.NAMESPACE_URL, document["id"])) if repeats_nonce else None,
        signed_content="canonical" if trouble.hits("canonical_signatures", delivery.sequence, number) else "raw",
    )
    return Delivery(headers={**webhook.headers, **signed.headers}, body=body)
