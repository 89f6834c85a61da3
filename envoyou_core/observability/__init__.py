"""What the suite tells of itself: one stream of lifecycle notices, and those who listen to it.

The engine knows none of its listeners. See the guide, "Logging and Monitoring".
"""

from __future__ import annotations

from envoyou_core.observability.logs import log_notice
from envoyou_core.observability.notices import (
    Accepted,
    HandlerFailed,
    HandlerOverdue,
    HandlerSkipped,
    HookFailed,
    InboxDown,
    InboxUp,
    LeaseLost,
    Listener,
    MoveRefused,
    NonceStoreFailed,
    NoSpool,
    Notice,
    Notices,
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

__all__ = [
    "Accepted",
    "HandlerFailed",
    "HandlerOverdue",
    "HandlerSkipped",
    "HookFailed",
    "InboxDown",
    "InboxUp",
    "LeaseLost",
    "Listener",
    "MoveRefused",
    "NoSpool",
    "NonceStoreFailed",
    "Notice",
    "Notices",
    "Rejected",
    "RetentionApplied",
    "Settled",
    "SpoolFailed",
    "Spooled",
    "WakeFailed",
    "WorkerFailed",
    "WorkerInterrupted",
    "WorkerStarted",
    "WorkerStopped",
    "log_notice",
]
