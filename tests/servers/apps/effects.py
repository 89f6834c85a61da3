"""What the handlers of these apps do: leave a line in a file, some at once, some when they may, some slowly."""

from __future__ import annotations

import os
import time
from pathlib import Path

from envoyou_core import Event, Handlers

FOLDER = Path(os.environ["EFFECTS_FOLDER"])

handlers = Handlers()


@handlers.on("user.updated")
def at_once(event: Event) -> None:
    leave_effect(event)


@handlers.on("user.created")
def when_released(event: Event) -> None:
    (FOLDER / "begun").touch()
    while not (FOLDER / "released").exists():
        time.sleep(0.02)
    leave_effect(event)


@handlers.on("user.verified")
def slowly(event: Event) -> None:
    time.sleep(0.3)
    leave_effect(event)


# On SQLite, a transaction may not take as long.
@handlers.on("user.deleted", atomic=False)
def within_a_second(event: Event) -> None:
    (FOLDER / "begun").touch()
    time.sleep(1)
    leave_effect(event)


def leave_effect(event: Event) -> None:
    # One write of one short line: lines of several processes do not mix.
    with (FOLDER / "effects").open("a") as effects:
        effects.write(f"{event.id} {os.getpid()}\n")
