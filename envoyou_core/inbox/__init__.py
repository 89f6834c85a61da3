"""The durable inbox: where an accepted event lives until it is handled, and is remembered afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.history import Attempt, Failure
from envoyou_core.inbox.protocol import AsyncTransactionalInbox, Inbox, TransactionalInbox
from envoyou_core.inbox.records import (
    ANY,
    FINISHED,
    REQUEUABLE,
    Added,
    Claim,
    Entry,
    InboxRecord,
    InboxStats,
    Progress,
    Selection,
    Settlement,
    Status,
    is_applied,
    prunable_statuses,
    requeuable_statuses,
    unfinished_progress,
)

__all__ = [
    "ANY",
    "FINISHED",
    "REQUEUABLE",
    "Added",
    "AsyncTransactionalInbox",
    "Attempt",
    "Claim",
    "Entry",
    "Failure",
    "Inbox",
    "InboxRecord",
    "InboxStats",
    "Progress",
    "Selection",
    "Settlement",
    "Status",
    "TransactionalInbox",
    "is_applied",
    "open_inbox",
    "prunable_statuses",
    "requeuable_statuses",
    "unfinished_progress",
]


def open_inbox(url: str, *, name: str = "default", clock: Callable[[], float] = time.time) -> Inbox:
    """The inbox that `url` stands for; it connects when it is first used.

    Args:
        url: `sqlite:///file.db`, `postgresql+psycopg://...`, or `memory:` for tests.
        name: keeps several `Webhooks` on one database apart.
        clock: epoch seconds.

    Raises:
        ConfigurationError: the URL cannot be used, or a library that it needs is not installed.
    """
    if url.rstrip("/") == "memory:":
        from envoyou_core.inbox.memory import MemoryInbox

        return MemoryInbox(name=name, clock=clock)
    try:
        from envoyou_core.inbox.sql import SqlInbox
    except ImportError as error:
        raise ConfigurationError(
            f"the inbox {url.partition(':')[0]}: needs SQLAlchemy 2: pip install 'envoyou-webhooks[sql]'"
        ) from error
    return SqlInbox(url, name=name, clock=clock)
