"""How long finished events are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.protocol import Inbox

__all__ = ["Retention", "RetentionReport", "apply_retention"]

LONGEST_DAYS = 36_500
"""A hundred years: what lies further back than a calendar reaches could not be looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is deleted of finished events, and when.

    Dead events, and those that wait, are kept until somebody sees to them.

    Attributes:
        payload_days: days after which the payload of a processed or ignored event is deleted, and what errors said. An
            ignored one can no longer be requeued then.
        id_days: days after which the rest of it is deleted, by which a redelivery is known as a duplicate.
        mark_days: days for which is known how new the newest event of each object was, from when that was created on;
            `stale="skip"` goes by it.
        scrub_processed: delete payloads as soon as they are processed.

    Raises:
        ConfigurationError: numbers that make no sense: they are more than zero, and each as long as the one before or
            longer.
    """

    payload_days: float = 30
    id_days: float = 90
    mark_days: float = 365
    scrub_processed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.payload_days <= self.id_days <= self.mark_days <= LONGEST_DAYS:
            raise ConfigurationError(
                "payload_days, id_days and mark_days are more than zero, each as long as the one before or longer, and "
                "no longer than a hundred years"
            )


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """How much was deleted.

    Attributes:
        scrubbed: payloads.
        pruned: events, as a whole.
        marks: of objects whose events are gone, how new they were.
    """

    scrubbed: int = 0
    pruned: int = 0
    marks: int = 0


def apply_retention(retention: Retention, inbox: Inbox) -> RetentionReport:
    """Delete from `inbox` what need not be kept any longer."""
    # In this order, so that no payload is deleted of what goes as a whole.
    pruned = inbox.prune(timedelta(days=retention.id_days))
    scrubbed = inbox.scrub(timedelta(days=retention.payload_days))
    marks = inbox.prune_marks(timedelta(days=retention.mark_days))
    return RetentionReport(scrubbed, pruned, marks)
