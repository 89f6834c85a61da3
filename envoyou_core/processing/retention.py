"""What is kept of finished events, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.protocol import Inbox

__all__ = ["Retention", "RetentionReport"]


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What was cleared.

    Attributes:
        scrubbed: payloads that were deleted.
        pruned: events that were deleted.
        marks: pruned events of which it was forgotten how new they were.
    """

    scrubbed: int
    pruned: int
    marks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long finished events are kept: payloads, which bear e-mail and IP addresses, shorter than ids.

    It is about processed and ignored events. Dead ones stay until somebody has seen to them, and so do those that wait.

    Attributes:
        payload_days: days after which a payload is deleted.
        id_days: days after which the rest of the row is, by which a redelivery is known as a duplicate.
        mark_days: days for which is remembered how new the newest event of an object was, for `stale="skip"`.
        scrub_processed: delete the payload of an event as soon as it is processed.

    Raises:
        ConfigurationError: a number that makes no sense.
    """

    payload_days: float = 30.0
    id_days: float = 90.0
    mark_days: float = 365.0
    scrub_processed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.payload_days <= self.id_days <= self.mark_days <= timedelta.max.days:
            raise ConfigurationError(
                "payload_days, id_days and mark_days are days, more than none, and none of them longer than the next"
            )

    def apply(self, inbox: Inbox) -> RetentionReport:
        """Clear the inbox, in small batches."""
        return RetentionReport(
            scrubbed=inbox.scrub(timedelta(days=self.payload_days)),
            pruned=inbox.prune(timedelta(days=self.id_days)),
            marks=inbox.prune_marks(timedelta(days=self.mark_days)),
        )
