"""Notices of what happens to deliveries, events, workers and stores, and the listeners that receive them.

Logs, metrics, traces, signals and alerts are such listeners. The engine knows none of them. See the guide, "Logging and
Monitoring".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_LOADED_ON_FIRST_USE = {
    "Accepted": "envoyou_core.observability.delivery_notices",
    "AlertFired": "envoyou_core.observability.alert_notices",
    "AlertNotSent": "envoyou_core.observability.alert_notices",
    "AlertResolved": "envoyou_core.observability.alert_notices",
    "AlertsNotEvaluated": "envoyou_core.observability.alert_notices",
    "CaptureFailed": "envoyou_core.observability.delivery_notices",
    "Claimed": "envoyou_core.observability.worker_notices",
    "CountsNotStored": "envoyou_core.observability.storage_notices",
    "DatabaseFailed": "envoyou_core.observability.attempt_notices",
    "HandlerAwaited": "envoyou_core.observability.attempt_notices",
    "HandlerCall": "envoyou_core.observability.current",
    "HandlerDropped": "envoyou_core.observability.attempt_notices",
    "HandlerFailed": "envoyou_core.observability.attempt_notices",
    "HandlerFilter": "envoyou_core.observability.logs",
    "HandlerOverdue": "envoyou_core.observability.attempt_notices",
    "HandlerPostponed": "envoyou_core.observability.attempt_notices",
    "HandlerSkipped": "envoyou_core.observability.attempt_notices",
    "HandlerSucceeded": "envoyou_core.observability.attempt_notices",
    "HandlersBounded": "envoyou_core.observability.worker_notices",
    "HookFailed": "envoyou_core.observability.attempt_notices",
    "InboxDown": "envoyou_core.observability.storage_notices",
    "InboxUp": "envoyou_core.observability.storage_notices",
    "LeaseLost": "envoyou_core.observability.attempt_notices",
    "LeasesEnded": "envoyou_core.observability.worker_notices",
    "Listener": "envoyou_core.observability.notices",
    "MoveRefused": "envoyou_core.observability.storage_notices",
    "NoHandlers": "envoyou_core.observability.worker_notices",
    "NoSpool": "envoyou_core.observability.storage_notices",
    "NonceStoreFailed": "envoyou_core.observability.delivery_notices",
    "Notice": "envoyou_core.observability.notice",
    "Notices": "envoyou_core.observability.notices",
    "Rejected": "envoyou_core.observability.delivery_notices",
    "RejectedNotKept": "envoyou_core.observability.delivery_notices",
    "RejectedPruned": "envoyou_core.observability.delivery_notices",
    "RetentionApplied": "envoyou_core.observability.storage_notices",
    "Settled": "envoyou_core.observability.attempt_notices",
    "SpoolFailed": "envoyou_core.observability.storage_notices",
    "Spooled": "envoyou_core.observability.storage_notices",
    "WakeFailed": "envoyou_core.observability.worker_notices",
    "WorkerFailed": "envoyou_core.observability.worker_notices",
    "WorkerInterrupted": "envoyou_core.observability.worker_notices",
    "WorkerStarted": "envoyou_core.observability.worker_notices",
    "WorkerStopped": "envoyou_core.observability.worker_notices",
    "current_handler": "envoyou_core.observability.current",
    "handler_fields": "envoyou_core.observability.logs",
    "log_notice": "envoyou_core.observability.logs",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)
    return value
