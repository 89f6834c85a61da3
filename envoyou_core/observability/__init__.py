"""Notices of what happens to deliveries, events, workers and stores, and the listeners that receive them.

Logs, metrics, traces, signals and alerts are such listeners. The engine knows none of them. See the guide, "Logging and
Monitoring".
"""

from __future__ import annotations

from envoyou_core.observability.alert_notices import AlertFired, AlertNotSent, AlertResolved, AlertsNotEvaluated
from envoyou_core.observability.attempt_notices import (
    DatabaseFailed,
    HandlerAwaited,
    HandlerDropped,
    HandlerFailed,
    HandlerOverdue,
    HandlerPostponed,
    HandlerSkipped,
    HandlerSucceeded,
    HookFailed,
    LeaseLost,
    Settled,
)
from envoyou_core.observability.current import HandlerCall, current_handler
from envoyou_core.observability.delivery_notices import (
    Accepted,
    CaptureFailed,
    NonceStoreFailed,
    Rejected,
    RejectedNotKept,
    RejectedPruned,
)
from envoyou_core.observability.logs import HandlerFilter, handler_fields, log_notice
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.notices import Listener, Notices
from envoyou_core.observability.storage_notices import (
    CountsNotStored,
    InboxDown,
    InboxUp,
    MoveRefused,
    NoSpool,
    RetentionApplied,
    Spooled,
    SpoolFailed,
)
from envoyou_core.observability.worker_notices import (
    Claimed,
    HandlersBounded,
    LeasesEnded,
    NoHandlers,
    WakeFailed,
    WorkerFailed,
    WorkerInterrupted,
    WorkerStarted,
    WorkerStopped,
)

__all__ = [
    "Accepted",
    "AlertFired",
    "AlertNotSent",
    "AlertResolved",
    "AlertsNotEvaluated",
    "CaptureFailed",
    "Claimed",
    "CountsNotStored",
    "DatabaseFailed",
    "HandlerAwaited",
    "HandlerCall",
    "HandlerDropped",
    "HandlerFailed",
    "HandlerFilter",
    "HandlerOverdue",
    "HandlerPostponed",
    "HandlerSkipped",
    "HandlerSucceeded",
    "HandlersBounded",
    "HookFailed",
    "InboxDown",
    "InboxUp",
    "LeaseLost",
    "LeasesEnded",
    "Listener",
    "MoveRefused",
    "NoHandlers",
    "NoSpool",
    "NonceStoreFailed",
    "Notice",
    "Notices",
    "Rejected",
    "RejectedNotKept",
    "RejectedPruned",
    "RetentionApplied",
    "Settled",
    "SpoolFailed",
    "Spooled",
    "WakeFailed",
    "WorkerFailed",
    "WorkerInterrupted",
    "WorkerStarted",
    "WorkerStopped",
    "current_handler",
    "handler_fields",
    "log_notice",
]
