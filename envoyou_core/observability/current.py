"""Which handler is running in this thread or task: for log lines, spans and reports that a handler causes."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime

import msgspec

from envoyou_core.event import Event

__all__ = ["CURRENT", "HandlerCall", "current_handler"]


class HandlerCall(msgspec.Struct, frozen=True):
    """One call of one handler.

    Attributes:
        event: the event that it handles.
        handler: the handler's name.
        attempt: counted from 1.
        received_at: when the event was accepted, in UTC.
        webhook_id: of the endpoint that the event was delivered to; `None` if it is unknown.
        tenant: of the event.
        traceparent: the trace context of the acceptance, as in W3C Trace Context; `None` if it was not traced.
    """

    event: Event
    handler: str
    attempt: int
    received_at: datetime
    webhook_id: str | None = None
    tenant: str = ""
    traceparent: str | None = None


CURRENT: ContextVar[HandlerCall | None] = ContextVar("envoyou_handler", default=None)
"""Set around each handler, and around the contexts of `around_handler`."""


def current_handler() -> HandlerCall | None:
    """Return the call of the handler that is running in this thread or task; `None` outside of handlers."""
    return CURRENT.get()
