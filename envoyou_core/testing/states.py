"""The states of an event as assertions read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoyou_core.inbox.records import Status

__all__ = ["States"]


class States:
    """Properties of something that has a `status`."""

    __slots__ = ()

    if TYPE_CHECKING:
        # At run time, a data class would take this for the default of its field.
        @property
        def status(self) -> Status | None:
            """The state of the event."""

    @property
    def processed(self) -> bool:
        """Whether all handlers of the event have succeeded."""
        return self.status is Status.PROCESSED

    @property
    def failed(self) -> bool:
        """Whether the last attempt failed, or was postponed, and the event will be retried."""
        return self.status is Status.FAILED

    @property
    def dead(self) -> bool:
        """Whether the event failed for good."""
        return self.status is Status.DEAD

    @property
    def ignored(self) -> bool:
        """Whether there is no handler for the event's type."""
        return self.status is Status.IGNORED

    @property
    def waiting(self) -> bool:
        """Whether no handler has run yet."""
        return self.status is Status.RECEIVED
