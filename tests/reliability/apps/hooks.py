"""Handlers with two kinds of effects, rows that share the inbox's transaction and lines in a file; and two bad ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crash_points
import scarce_disk
from sqlalchemy import Connection, text

from envoyou_core import Event, Webhooks

FOLDER = Path(os.environ["EFFECTS_FOLDER"])
PLAIN_SECONDS = float(os.environ.get("PLAIN_SECONDS", "0"))
TRANSACTIONAL_SECONDS = float(os.environ.get("TRANSACTIONAL_SECONDS", "0"))

webhooks = Webhooks.from_env()
crash_points.install(webhooks)
scarce_disk.install(webhooks)


def plain(event: Event) -> None:
    with in_hand():
        time.sleep(PLAIN_SECONDS)
        leave_line("effects", event.id)


def transactional(event: Event, connection: Connection) -> None:
    with in_hand():
        connection.execute(text("INSERT INTO effects (event_id) VALUES (:id)"), {"id": event.id})
        crash_points.crash_point("in a handler")
        time.sleep(TRANSACTIONAL_SECONDS)


# The last one's end is the event's: of a plain one it is settled afterwards, of the other in the handler's transaction.
for handler in (transactional, plain) if os.environ.get("PLAIN_LAST") else (plain, transactional):
    webhooks.on("user.*")(handler)


@webhooks.on("auth.*", name="in turn", ordered=True)
def in_turn(event: Event, connection: Connection, attempt: int) -> None:
    user = event.data.object["user_id"]
    leave_line("turns", f"begin {user} {event.id}")
    with in_hand():
        time.sleep(PLAIN_SECONDS)
        if attempt == 1 and event.data.object["fails_at_first"]:
            leave_line("turns", f"end {user} {event.id}")
            raise ConnectionError("not at the first attempt")
        row = {"user": user, "created": event.created, "event_id": event.id}
        connection.execute(
            text("INSERT INTO turns (user_id, created, event_id) VALUES (:user, :created, :event_id)"), row
        )
    leave_line("turns", f"end {user} {event.id}")


@webhooks.on("system.incident")
def poison(event: Event) -> None:
    leave_line("poisoned", os.getpid())
    os.kill(os.getpid(), 9)


@webhooks.on("system.maintenance_start")
def endless(event: Event) -> None:
    leave_line("begun", os.getpid())
    while not (FOLDER / f"released-{os.getpid()}").exists() and not (FOLDER / "released").exists():
        time.sleep(0.02)
    leave_line("ended", os.getpid())


@contextmanager
def in_hand() -> Iterator[None]:
    leave_line("starts", os.getpid())
    try:
        yield
    finally:
        leave_line("ends", os.getpid())


def leave_line(file: str, what: object) -> None:
    # One write of one short line: lines of several processes do not mix.
    with (FOLDER / file).open("a") as lines:
        lines.write(f"{what}\n")
