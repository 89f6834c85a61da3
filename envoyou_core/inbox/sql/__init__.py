"""The inbox in a SQL database, on SQLAlchemy Core: SQLite by default, PostgreSQL and MariaDB by URL."""

from __future__ import annotations

from envoyou_core.inbox.sql.inbox import SqlInbox

__all__ = ["SqlInbox"]
