"""The handlers that all apps share: a plain one that writes lines to files, and two misbehaving ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envoyou_core import Event, Handlers

FOLDER = Path(os.environ["EFFECTS_FOLDER"])
HANDLERS = os.environ.get("HANDLERS", "plain transactional").split()
"""The handlers of `user.*` that this process knows, in their order."""

PLAIN_SECONDS = float(os.environ.get("PLAIN_SECONDS", "0"))
TRANSACTIONAL_SECONDS = float(os.environ.get("TRANSACTIONAL_SECONDS", "0"))

bad_handlers = Handlers()


def plain(event: Event) -> None:
    with in_flight():
        time.sleep(PLAIN_SECONDS)
        leave_line("effects", event.id)


@bad_handlers.on("system.incident")
def poison(event: Event) -> None:
    leave_line("poisoned", os.getpid())
    os.kill(os.getpid(), 9)


@bad_handlers.on("system.maintenance_start")
def endless(event: Event) -> None:
    leave_line("begun", os.getpid())
    while not (FOLDER / f"released-{os.getpid()}").exists() and not (FOLDER / "released").exists():
        time.sleep(0.02)
    leave_line("ended", os.getpid())


@contextmanager
def in_flight() -> Iterator[None]:
    leave_line("starts", os.getpid())
    try:
        yield
    finally:
        leave_line("ends", os.getpid())


def leave_line(file: str, what: object) -> None:
    # One write of one short line: lines of several processes do not mix.
    with (FOLDER / file).open("a") as lines:
        lines.write(f"{what}\n")
