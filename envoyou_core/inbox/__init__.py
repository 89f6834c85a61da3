"""The durable inbox: it keeps each accepted event until it is handled, and remembers it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from envoyou_core.inbox.handler_sets import HandlerSet
    from envoyou_core.inbox.history import Attempt, Failure
    from envoyou_core.inbox.memory import MemoryInbox
    from envoyou_core.inbox.processes import Process, ProcessKind
    from envoyou_core.inbox.protocol import (
        AsyncTransactionalInbox,
        Inbox,
        TelemetryInbox,
        TransactionalInbox,
        WorkerInbox,
    )
    from envoyou_core.inbox.records import (
        ANY,
        COUNTED,
        COUNTED_IN_PART,
        FINISHED,
        MAX_AWAITED,
        REQUEUABLE,
        Added,
        Claim,
        ClaimFilter,
        HandlerStatus,
        InboxRecord,
        InboxStats,
        NewEvent,
        Settlement,
        Status,
        check_handler_names,
        completed_handlers,
        is_applied,
        prunable_statuses,
        requeuable_statuses,
        stats_of,
    )
    from envoyou_core.inbox.rejected import NewRejection, RejectedDelivery
    from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox
    from envoyou_core.inbox.sql.inbox import SqlInbox

__all__ = [
    "ANY",
    "COUNTED",
    "COUNTED_IN_PART",
    "FINISHED",
    "MAX_AWAITED",
    "REQUEUABLE",
    "Added",
    "AsyncSqlInbox",
    "AsyncTransactionalInbox",
    "Attempt",
    "Claim",
    "ClaimFilter",
    "Failure",
    "HandlerSet",
    "HandlerStatus",
    "Inbox",
    "InboxRecord",
    "InboxStats",
    "MemoryInbox",
    "NewEvent",
    "NewRejection",
    "Process",
    "ProcessKind",
    "RejectedDelivery",
    "Settlement",
    "SqlInbox",
    "Status",
    "TelemetryInbox",
    "TransactionalInbox",
    "WorkerInbox",
    "check_handler_names",
    "completed_handlers",
    "is_applied",
    "open_inbox",
    "prunable_statuses",
    "requeuable_statuses",
    "stats_of",
]


def open_inbox(url: str, *, name: str = "default", clock: Callable[[], float] = time.time) -> WorkerInbox:
    """Make the inbox for a URL. It connects when it is first used.

    Args:
        url: `sqlite:///file.db`, `postgresql+psycopg://...`, `mariadb+pymysql://...`, or `memory:` for tests.
        name: separates several `Webhooks` in one database.
        clock: returns epoch seconds.

    Raises:
        ConfigurationError: the URL cannot be used, or a library that it needs is not installed.
    """
    if url.strip().rstrip("/") == "memory:":
        from envoyou_core.inbox.memory import MemoryInbox

        return MemoryInbox(name=name, clock=clock)
    try:
        from envoyou_core.inbox.sql.inbox import SqlInbox
    except ImportError as error:
        raise ConfigurationError("an inbox by URL needs SQLAlchemy 2: pip install 'envoyou-webhooks[sql]'") from error
    return SqlInbox(url, name=name, clock=clock)


_LOADED_ON_FIRST_USE = {
    "ANY": "envoyou_core.inbox.records",
    "Added": "envoyou_core.inbox.records",
    "AsyncSqlInbox": "envoyou_core.inbox.sql.async_inbox",
    "AsyncTransactionalInbox": "envoyou_core.inbox.protocol",
    "Attempt": "envoyou_core.inbox.history",
    "COUNTED": "envoyou_core.inbox.records",
    "COUNTED_IN_PART": "envoyou_core.inbox.records",
    "Claim": "envoyou_core.inbox.records",
    "ClaimFilter": "envoyou_core.inbox.records",
    "FINISHED": "envoyou_core.inbox.records",
    "Failure": "envoyou_core.inbox.history",
    "HandlerSet": "envoyou_core.inbox.handler_sets",
    "HandlerStatus": "envoyou_core.inbox.records",
    "Inbox": "envoyou_core.inbox.protocol",
    "InboxRecord": "envoyou_core.inbox.records",
    "InboxStats": "envoyou_core.inbox.records",
    "MAX_AWAITED": "envoyou_core.inbox.records",
    "MemoryInbox": "envoyou_core.inbox.memory",
    "NewEvent": "envoyou_core.inbox.records",
    "NewRejection": "envoyou_core.inbox.rejected",
    "Process": "envoyou_core.inbox.processes",
    "ProcessKind": "envoyou_core.inbox.processes",
    "REQUEUABLE": "envoyou_core.inbox.records",
    "RejectedDelivery": "envoyou_core.inbox.rejected",
    "Settlement": "envoyou_core.inbox.records",
    "SqlInbox": "envoyou_core.inbox.sql.inbox",
    "Status": "envoyou_core.inbox.records",
    "TelemetryInbox": "envoyou_core.inbox.protocol",
    "TransactionalInbox": "envoyou_core.inbox.protocol",
    "WorkerInbox": "envoyou_core.inbox.protocol",
    "check_handler_names": "envoyou_core.inbox.records",
    "completed_handlers": "envoyou_core.inbox.records",
    "is_applied": "envoyou_core.inbox.records",
    "prunable_statuses": "envoyou_core.inbox.records",
    "requeuable_statuses": "envoyou_core.inbox.records",
    "stats_of": "envoyou_core.inbox.records",
}


def __getattr__(name: str) -> Any:
    # SQLAlchemy is loaded only if an inbox needs it.
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LOADED_ON_FIRST_USE[name]), name)
    return value
