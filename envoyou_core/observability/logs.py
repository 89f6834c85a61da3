"""Writes notices to the logger `envoyou`, with fields, and adds fields to the log lines of handlers.

See the guide, "Logging and Monitoring".
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Final

from envoyou_core.observability.current import current_handler
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import CleanText, RedactedLogger
from envoyou_core.worker.failures import traceback_of

__all__ = ["COMMON_FIELDS", "HandlerFilter", "handler_fields", "log_notice"]

log = RedactedLogger("envoyou")

_COPIED: Final = {
    "webhook_id": "webhook_id",
    "event_id": "event_id",
    "event_type": "event_type",
    "handler": "handler",
    "attempt": "attempt",
    "seconds": "duration",
    "reason": "reason",
    "body_size": "body_size",
    "tenant": "tenant",
}
"""Fields of notices that become attributes of the record, and the names of these."""

COMMON_FIELDS: Final = (*_COPIED.values(), "status", "outcome", "timestamp", "error")
"""The attributes that every record of a notice has; `None` where there is no such thing."""

_MAPPING: Final = "envoyou"
"""The attribute with what only some notices have: those names would clash with the ones of `logging`."""


def log_notice(notice: Notice) -> None:
    """Write one notice to the log: what an operator must see at warning or above, the rest at info or below.

    The record has the attributes `COMMON_FIELDS`. Its attribute `envoyou`, a mapping, has the notice's kind as `notice`
    and the notice's other fields. All of them are redacted.
    """
    level = notice.level
    if not log.isEnabledFor(level):
        # A server receives many notices for each one that is logged. The record's data is the costly part.
        return
    error, traceback = notice.failure()
    if error is not None and not traceback:
        traceback = traceback_of(error)
    given = notice.fields()
    # Most notices insert their fields, so that these need not be collected once more.
    arguments = given if type(notice).arguments is Notice.arguments else notice.arguments()
    fields = dict(given)
    extra = {attribute: fields.pop(name, None) for name, attribute in _COPIED.items()}
    if (status := notice.event_status) is not None:
        fields.pop("status", None)
    extra["status"] = status
    extra["outcome"] = notice.outcome
    extra["timestamp"] = _timestamp()
    extra["error"] = None
    if (texts := notice.error_texts()) is not None:
        fields.pop("error", None)
        fields.pop("message", None)
        message, stack = texts
        extra["error"] = {"message": message, "stack": CleanText(traceback or stack) or None}
    extra[_MAPPING] = {"notice": type(notice).__name__, **fields}
    log.log(level, notice.template, arguments, traceback=traceback, extra=extra)


def _timestamp() -> CleanText:
    """The time as the guide's example writes it: JavaScript's `toISOString`."""
    moment = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return CleanText(moment.removesuffix("+00:00") + "Z")


def handler_fields() -> dict[str, object]:
    """Return the event, handler and attempt that the calling code works for, for its log lines; all `None` elsewhere.

    For libraries that do not use the filters of `logging`, such as structlog.
    """
    call = current_handler()
    if call is None:
        return dict.fromkeys(("webhook_id", "event_id", "event_type", "handler", "attempt", "tenant"))
    event = call.event
    return {
        "webhook_id": call.webhook_id,
        "event_id": event.id,
        "event_type": event.type,
        "handler": call.handler,
        "attempt": call.attempt,
        "tenant": call.tenant,
    }


class HandlerFilter(logging.Filter):
    """Adds `handler_fields` to the records that handlers, and what they call, write. It keeps every record.

    Add it to the handlers of `logging`, because a filter of a logger does not see the records of its children.

    Examples:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(HandlerFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what the record does not have yet."""
        for name, value in handler_fields().items():
            record.__dict__.setdefault(name, value)
        return True
