"""Moves rejected deliveries from the spool to the inbox, once that is up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.rejected import NewRejection

if TYPE_CHECKING:
    from envoyou_core.spool.spool import Spool

__all__ = ["move_rejected"]

BATCH = 10
"""Their bodies are in memory together."""


def move_rejected(spool: Spool, inbox: WorkerInbox, timeout: float) -> None:
    """Move the rejected deliveries in the spool to the inbox, the oldest first, until none is left or the inbox fails.

    A crash in between leaves one in both. It is moved again then, and the inbox keeps each body once.

    Args:
        spool: where they are.
        inbox: where they belong.
        timeout: seconds within which the inbox must answer for each.
    """
    while deliveries := spool.oldest_rejected(BATCH):
        for delivery in deliveries:
            rejection = NewRejection(
                body=delivery.body,
                headers=delivery.headers,
                reason=delivery.reason,
                error=delivery.error,
                received_at=delivery.received_at,
                tenant=delivery.tenant,
            )
            try:
                inbox.keep_rejected(rejection).result(timeout)
            except Exception:
                # Events report that the inbox is down. This one waits for the next poll.
                return
            spool.discard_rejected(delivery.key)
