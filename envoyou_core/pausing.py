"""Pauses: events of a type or a handler stay in the inbox, in all processes, until they are resumed."""

from __future__ import annotations

from envoyou_core.lifecycle import Lifecycle
from envoyou_core.observability.redacted import RedactedLogger

__all__ = ["Pausing"]

log = RedactedLogger("envoyou")


class Pausing(Lifecycle):
    """Pauses and resumes the processing of events."""

    def pause(self, *, type: str | None = None, handler: str | None = None) -> None:
        """Leave events in the inbox, in all processes, until `resume`. They are still accepted.

        An event is paused as a whole, with all its handlers, even if only one of them is paused. Attempts that have
        begun are finished; other processes learn of the pause within about a second.

        Args:
            type: an event type: exact (`user.created`), by prefix (`user.*`), or all (`*`).
            handler: the name of a handler, instead of a type.

        Raises:
            ValueError: not exactly one of them was given.
            ConfigurationError: the type is malformed.
        """
        subject = _subject_of(type, handler)
        if handler is not None and all(handler not in known.all_names for known in self._handlers):
            log.warning("paused the handler %r, which this process does not have", handler)
        self.inbox.pause(subject)
        self._engine.pauses.forget()

    def resume(self, *, type: str | None = None, handler: str | None = None) -> None:
        """Undo the `pause` with the same argument.

        Raises:
            ValueError: not exactly one of them was given.
            ConfigurationError: the type is malformed.
        """
        self.inbox.resume(_subject_of(type, handler))
        self._engine.pauses.forget()

    @property
    def paused(self) -> frozenset[str]:
        """The paused types and handlers, as `type:user.*` and `handler:welcome`."""
        return self.inbox.paused()


def _subject_of(type: str | None, handler: str | None) -> str:
    # Loaded with the plan of claims, which only workers need.
    from envoyou_core.worker.claim_plan import subject_of

    return subject_of(type=type, handler=handler)
