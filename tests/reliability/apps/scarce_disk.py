"""A disk that is full while the file `disk-full` exists: SQLite cannot add a page to its database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import event

from envoyou_core import Webhooks

FOLDER = Path(os.environ["EFFECTS_FOLDER"])
NO_LIMIT = 1_073_741_823


def install(webhooks: Webhooks) -> None:
    """Limit the size of the database before each transaction of the inbox."""
    inbox: Any = webhooks.inbox
    if inbox._engine.dialect.name != "sqlite":
        return

    @event.listens_for(inbox._engine, "begin", insert=True)
    def limit_pages(connection: Any) -> None:
        # SQLite raises a limit below the current size to the current size.
        pages = 1 if (FOLDER / "disk-full").exists() else NO_LIMIT
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
