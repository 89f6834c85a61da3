"""Notices as log records of the logger `envoyou`. See the guide, "Logging and Monitoring"."""

from __future__ import annotations

import logging

from envoyou_core.inbox.records import Added, Status
from envoyou_core.observability.notices import (
    Accepted,
    HandlerFailed,
    HandlerOverdue,
    HandlerSkipped,
    HookFailed,
    InboxDown,
    InboxUp,
    LeaseLost,
    MoveRefused,
    NonceStoreFailed,
    NoSpool,
    Notice,
    Rejected,
    RetentionApplied,
    Settled,
    Spooled,
    SpoolFailed,
    WakeFailed,
    WorkerFailed,
    WorkerInterrupted,
    WorkerStarted,
    WorkerStopped,
)
from envoyou_core.observability.redacted import RedactedLogger

__all__ = ["log_notice"]

log = RedactedLogger("envoyou")

MAX_QUOTED = 200
"""Characters that are shown of what a sender wrote."""

_LEVEL_OF_STATUS = {Status.DEAD: logging.ERROR, Status.FAILED: logging.WARNING, Status.IGNORED: logging.WARNING}


def log_notice(notice: Notice) -> None:
    """Write one notice to the log: what an operator must see at warning or above, the rest at info or below."""
    # Looked up at each use: `logging.config` disables every logger that exists and that it does not name.
    match notice:
        case Accepted(event_id, event_type, Added.NEW):
            log.info("accepted %s (%s)", event_id, event_type)
        case Accepted(event_id, event_type, Added.REARMED):
            log.warning("accepted %s (%s) again: it was dead, and gets new attempts", event_id, event_type)
        case Accepted(event_id, event_type, Added.BODY_DIFFERS):
            log.warning("accepted %s (%s) again, with another body: the first one stays", event_id, event_type)
        case Accepted(event_id, event_type):
            log.info("accepted %s (%s) again: a duplicate, already stored", event_id, event_type)
        case Rejected(status, reason, detail):
            level = logging.ERROR if status >= 500 else logging.WARNING
            origin = _origin(notice)
            # Quoted, because none of it is proven.
            template = "answered %d: %s (%s)" + "".join(f", {name} %r" for name in origin)
            log.log(level, template, status, reason, detail, *origin.values())
        case NonceStoreFailed(detail):
            log.error("the nonce store failed (%s): accepting on the inbox's unique key alone", detail)
        case HandlerFailed(event_id, event_type, handler, attempt, error, traceback):
            log.log(
                logging.WARNING,
                "handler %s failed for %s (%s), attempt %d",
                handler,
                event_id,
                event_type,
                attempt,
                exc_info=error,
                traceback=traceback,
            )
        case HandlerOverdue(event_id, event_type, handler, seconds):
            log.error(
                "handler %s has passed its time limit of %g s with %s (%s), and cannot be stopped",
                handler,
                seconds,
                event_id,
                event_type,
            )
        case HandlerSkipped(event_id, event_type, handler):
            log.info("handler %s left out %s (%s): a newer event was applied before", handler, event_id, event_type)
        case HookFailed(hook, event_id, error, traceback):
            log.log(logging.ERROR, "on_dead hook %s failed for %s", hook, event_id, exc_info=error, traceback=traceback)
        case Settled(event_id, event_type, status, attempt, retry_in, error, seconds):
            log.log(
                _LEVEL_OF_STATUS.get(status, logging.INFO),
                "%s %s (%s) after attempt %d, %.3f s%s%s",
                status.value,
                event_id,
                event_type,
                attempt,
                seconds,
                "" if retry_in is None else f"; next attempt in {retry_in:g} s",
                "" if error is None else f": {error}",
                exc_info=notice.exception if status is Status.DEAD else None,
                traceback=notice.traceback if status is Status.DEAD else "",
            )
        case LeaseLost(event_id, event_type):
            log.error("the lease of %s (%s) passed to another worker before the attempt ended", event_id, event_type)
        case RetentionApplied(name, scrubbed, pruned, marks):
            log.info("cleared up in %s: %d payloads, %d events, %d marks deleted", name, scrubbed, pruned, marks)
        case WakeFailed(name, detail):
            log.error("the handoff of %s failed: %s; the event waits in the inbox", name, detail)
        case NoSpool(name):
            log.warning(
                "the inbox of %s lies behind a network, and there is no spool: events that are delivered while it is "
                "away for longer than the sender tries, some fifteen seconds, are lost",
                name,
            )
        case InboxDown(name, detail):
            log.error("the inbox of %s is away (%s): events go to the spool until it is back", name, detail)
        case Spooled(event_id, event_type):
            log.info("spooled %s (%s)", event_id, event_type)
        case InboxUp(name, moved):
            log.warning("the inbox of %s is back; %d events were moved from the spool", name, moved)
        case MoveRefused(event_id, event_type, error, retry_in):
            log.error(
                "%s (%s) stays in the spool, the inbox refuses it: %s; next try in %g s",
                event_id,
                event_type,
                error,
                retry_in,
            )
        case SpoolFailed(name, detail, retry_in):
            log.error(
                "the spool of %s cannot be used, next try %s: %s",
                name,
                "with the next drain" if retry_in is None else f"in {retry_in:g} s",
                detail,
            )
        case WorkerInterrupted(name, times):
            log.warning(
                "worker %s was ended or frozen %d times while events were due, and events may wait for ever: this host "
                "does not keep it running between requests, or a handler blocks its event loop. On such a host, set "
                "handoff='manual' and call drain() on a schedule, or run `envoyou worker` elsewhere. See the page "
                "'Serverless' of the documentation",
                name,
                times,
            )
        case WorkerStarted(name, kind, inbox):
            log.info("worker %s started (%s), inbox %s", name, kind, inbox)
        case WorkerStopped(name, unfinished):
            log.info("worker %s stopped, %d events unfinished", name, unfinished)
        case WorkerFailed(name, detail, retry_in):
            log.error(
                "worker %s cannot work, next try %s: %s",
                name,
                "with the next event" if retry_in is None else f"in {retry_in:g} s",
                detail,
            )


def _origin(rejected: Rejected) -> dict[str, str]:
    """Which endpoint was addressed, where and by whom, as far as that is known."""
    values = {"webhook id": rejected.webhook_id, "path": rejected.path, "peer": rejected.peer}
    return {name: value[:MAX_QUOTED] for name, value in values.items() if value}
