"""Writes notices to the logger `envoyou`. See the guide, "Logging and Monitoring"."""

from __future__ import annotations

from envoyou_core.observability.notice import Notice
from envoyou_core.observability.redacted import RedactedLogger

__all__ = ["log_notice"]

log = RedactedLogger("envoyou")


def log_notice(notice: Notice) -> None:
    """Write one notice to the log: what an operator must see at warning or above, the rest at info or below.

    For structured logs, the record's attribute `envoyou` has the notice's kind as `notice` and its data, redacted.
    """
    if not log.isEnabledFor(notice.level):
        # A server receives many notices for each one that is logged. The record's data is the costly part.
        return
    error, traceback = notice.failure()
    extra = {"envoyou": {"notice": type(notice).__name__, **notice.fields()}}
    log.log(notice.level, notice.template, notice.arguments(), exc_info=error, traceback=traceback, extra=extra)
