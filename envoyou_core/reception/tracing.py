"""The seam for traces: a trace context that is stored with an event, so that its attempts can be linked to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from envoyou_core.event import Event
from envoyou_core.inbox.records import Added
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.steps import Flow

__all__ = ["AcceptanceTracer", "TracedAcceptance", "trace"]

log = RedactedLogger("envoyou")


class TracedAcceptance(Protocol):
    """The acceptance of one event while it is stored."""

    @property
    def traceparent(self) -> str | None:
        """The context to store, as in W3C Trace Context; `None` for none."""

    def end(self, added: Added | None, error: BaseException | None) -> None:
        """The event is stored, or that has failed."""


AcceptanceTracer = Callable[[Event], TracedAcceptance]
"""Called with each proven event before it is stored."""


def trace(
    tracer: AcceptanceTracer, event: Event, store: Callable[[str | None], Flow[Added]]
) -> Flow[tuple[Added, str | None]]:
    """Store an event with the trace context of its acceptance, and return that as well.

    A tracer that fails does not affect the acceptance.
    """
    try:
        traced = tracer(event)
        traceparent = traced.traceparent
    except Exception as error:
        log.warning("an acceptance was not traced", exc_info=error)
        return (yield from store(None)), None
    try:
        added = yield from store(traceparent)
    except BaseException as error:
        _end(traced, None, error)
        raise
    _end(traced, added, None)
    return added, traceparent


def _end(traced: TracedAcceptance, added: Added | None, failure: BaseException | None) -> None:
    try:
        traced.end(added, failure)
    except Exception as error:
        log.warning("an acceptance was not traced", exc_info=error)
