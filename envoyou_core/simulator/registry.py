"""The webhooks that are registered, in the simulator's database."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from envoyou_core.simulator.database import Database
from envoyou_core.simulator.schedule import RetrySchedule
from envoyou_core.simulator.webhook import Webhook

__all__ = ["Registry"]

RANDOM_BYTES = 32
"""In a secret that the platform makes."""


class Registry:
    """Creates, reads, changes and deletes webhooks.

    Args:
        database: where they are stored.
        clock: returns epoch seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def create(self, settings: Mapping[str, Any], *, webhook_id: str | None = None) -> Webhook:
        """Store a new webhook. `settings` are checked; without a secret or an id, a random one is made."""
        now = self._clock()
        secret = settings.get("secret") or f"whsec_{secrets.token_urlsafe(RANDOM_BYTES)}"
        webhook = Webhook(
            id=webhook_id or f"wh_{secrets.token_hex(8)}",
            **{**settings, "secret": secret},
            created_at=now,
            updated_at=now,
        )
        columns = _columns(webhook)
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        with self._database.transaction() as connection:
            connection.execute(
                f"INSERT INTO webhooks ({names}) VALUES ({marks})",  # noqa: S608 - names of columns
                tuple(columns.values()),
            )
        return webhook

    def get(self, webhook_id: str) -> Webhook | None:
        """Return a webhook, or `None` if there is none with this id."""
        rows = self._database.rows("SELECT * FROM webhooks WHERE id = ?", webhook_id)
        return _webhook(rows[0]) if rows else None

    def page(self, after: int, limit: int) -> tuple[list[Webhook], int | None]:
        """Return up to `limit` webhooks, the oldest first, and the position of the last if there are more.

        Args:
            after: the position of the last webhook of the page before; 0 for the first page.
            limit: the maximum number.
        """
        rows = self._database.rows(
            "SELECT * FROM webhooks WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit + 1
        )
        shown = rows[:limit]
        return [_webhook(row) for row in shown], shown[-1]["sequence"] if len(rows) > limit else None

    def subscribed(self, event_type: str) -> list[Webhook]:
        """Return the active webhooks that receive events of this type, the oldest first."""
        rows = self._database.rows("SELECT * FROM webhooks WHERE active ORDER BY sequence")
        return [webhook for row in rows if event_type in (webhook := _webhook(row)).events]

    def update(self, webhook_id: str, changes: Mapping[str, Any]) -> Webhook | None:
        """Change the settings in `changes`, which are checked, and return the webhook, or `None` if there is none."""
        with self._database.transaction() as connection:
            before = self.get(webhook_id)
            if before is None:
                return None
            webhook = replace(before, **changes, updated_at=self._clock())
            columns = _columns(webhook)
            connection.execute(
                f"UPDATE webhooks SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",  # noqa: S608
                (*columns.values(), webhook_id),
            )
        return webhook

    def delete(self, webhook_id: str) -> bool:
        """Delete a webhook, and return whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,)).rowcount > 0


def _columns(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": json.dumps(webhook.events),
        "secret": webhook.secret,
        "active": webhook.active,
        "retry_policy": json.dumps(asdict(webhook.retry_policy)),
        "headers": json.dumps(dict(webhook.headers)),
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
    }


def _webhook(row: sqlite3.Row) -> Webhook:
    return Webhook(
        id=row["id"],
        url=row["url"],
        events=tuple(json.loads(row["events"])),
        secret=row["secret"],
        active=bool(row["active"]),
        retry_policy=RetrySchedule(**json.loads(row["retry_policy"])),
        headers=json.loads(row["headers"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
