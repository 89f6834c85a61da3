"""The end of an attempt."""

from __future__ import annotations

from datetime import datetime

from envoyou_core.adapter import transitions
from envoyou_core.inbox import Claim, Settlement
from envoyou_django.inbox.cleanup import scrubbed
from envoyou_django.inbox.columns import encode
from envoyou_django.models import ProcessedEventQuerySet

__all__ = ["settle"]


def settle(held: ProcessedEventQuerySet, claim: Claim, settlement: Settlement, now: datetime) -> bool:
    """End an attempt; returns false, without a change, if the lease was lost.

    Args:
        held: the event of the claim, if the lease is still held.
        claim: the claim that ends.
        settlement: how it ends.
        now: when it ends.
    """
    changes = transitions.settle(claim, settlement, now)
    settled = encode(changes)
    settled_and_scrubbed = settled | scrubbed(claim.event, changes["history"], now)
    if transitions.deletes_payload(settlement, erase_requested=False):
        return bool(held.update(**settled_and_scrubbed))
    if not transitions.deletes_payload(settlement, erase_requested=True):
        return bool(held.update(**settled))
    unmarked, marked = held.filter(erase_requested_at__isnull=True), held.filter(erase_requested_at__isnull=False)
    return bool(unmarked.update(**settled) or marked.update(**settled_and_scrubbed))
