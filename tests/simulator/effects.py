"""Prints the id of the event of each effect of `faulty_app`."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

INBOX = os.environ["ENVOYOU_INBOX"].removeprefix("sqlite:///")
EFFECTS = Path(os.environ["EFFECTS"])

if __name__ == "__main__":
    with closing(sqlite3.connect(INBOX)) as database, suppress(sqlite3.OperationalError):
        for (event_id,) in database.execute("SELECT event_id FROM effects"):
            print(event_id)
    if EFFECTS.exists():
        print(EFFECTS.read_text(), end="")
