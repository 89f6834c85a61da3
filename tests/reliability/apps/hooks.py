"""Handlers with two kinds of effects: rows that share the inbox's transaction, and lines in a file."""

from __future__ import annotations

import os
from pathlib import Path

import crash_points
from sqlalchemy import Connection, text

from envoyou_core import Event, Webhooks

FOLDER = Path(os.environ["EFFECTS_FOLDER"])

webhooks = Webhooks.from_env()
crash_points.install(webhooks)


@webhooks.on("user.*", name="plain")
def plain(event: Event) -> None:
    with (FOLDER / "effects").open("a") as effects:
        effects.write(f"{event.id}\n")


@webhooks.on("user.*", name="transactional")
def transactional(event: Event, connection: Connection) -> None:
    connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
    crash_points.crash_point("in a handler")


@webhooks.on("system.incident")
def poison(event: Event) -> None:
    with (FOLDER / "poisoned").open("a") as poisoned:
        poisoned.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), 9)
