"""How long finished events are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import msgspec

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.protocol import WorkerInbox

__all__ = ["Retention", "RetentionReport", "apply_retention", "preview_retention"]

MAX_DAYS = 36_500
"""100 years: a date further back may be out of range for `datetime`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long finished events are kept. Unfinished and dead events are kept until they are requeued or finished.

    Attributes:
        payload_days: days after which the payload and the error texts of a processed or ignored event are deleted. An
            ignored event cannot be requeued after that. Rejected deliveries are deleted after as many days.
        id_days: days after which the event itself is deleted. Until then a redelivery is recognised as a duplicate.
        mark_days: days for which the inbox remembers when the newest event of each object was created, which
            `stale="skip"` needs. They count from the event's `created`.
        scrub_processed: delete payloads as soon as their events are processed.

    Raises:
        ConfigurationError: a value is out of range, or smaller than the one before it.
    """

    payload_days: float = 30
    id_days: float = 90
    mark_days: float = 365
    scrub_processed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.payload_days <= self.id_days <= self.mark_days <= MAX_DAYS:
            raise ConfigurationError(
                "payload_days, id_days and mark_days must be more than 0 and at most 36500, and none may be smaller "
                "than the one before it"
            )


class RetentionReport(msgspec.Struct, frozen=True):
    """How much was deleted.

    Attributes:
        scrubbed: deleted payloads.
        pruned: deleted events.
        marks: deleted watermarks, each the `created` of an object's newest event.
        rejected: deleted rejected deliveries.
    """

    scrubbed: int = 0
    pruned: int = 0
    marks: int = 0
    rejected: int = 0


def apply_retention(retention: Retention, inbox: WorkerInbox) -> RetentionReport:
    """Delete from `inbox` what `retention` no longer keeps."""
    # Events first: there is no need to delete the payload of an event that is deleted anyway.
    pruned = inbox.prune(timedelta(days=retention.id_days))
    scrubbed = inbox.scrub(timedelta(days=retention.payload_days))
    marks = inbox.prune_watermarks(timedelta(days=retention.mark_days))
    rejected = inbox.prune_rejected(timedelta(days=retention.payload_days))
    return RetentionReport(scrubbed, pruned, marks, rejected)


def preview_retention(retention: Retention, inbox: WorkerInbox) -> RetentionReport:
    """Count what `apply_retention` would delete from `inbox`."""
    pruned = inbox.prune(timedelta(days=retention.id_days), dry_run=True)
    # These include the payloads of the events above, which are deleted with their events.
    with_payload = inbox.scrub(timedelta(days=retention.payload_days), dry_run=True)
    of_pruned = inbox.scrub(timedelta(days=retention.id_days), dry_run=True)
    marks = inbox.prune_watermarks(timedelta(days=retention.mark_days), dry_run=True)
    rejected = inbox.prune_rejected(timedelta(days=retention.payload_days), dry_run=True)
    return RetentionReport(with_payload - of_pruned, pruned, marks, rejected)
