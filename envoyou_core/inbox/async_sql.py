"""`AsyncSqlInbox`, at its documented import path."""

from __future__ import annotations

from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox

__all__ = ["AsyncSqlInbox"]
