"""The SQLite database of the simulator: one connection, shared by its threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envoyou_core.errors import ConfigurationError, EnvoyouError
from envoyou_core.inbox.files import SqliteFile

__all__ = ["Database"]

MEMORY = ":memory:"
VERSION = 1
"""Of the tables, in `PRAGMA user_version`."""

SCHEMA = """
CREATE TABLE webhooks (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    secret TEXT NOT NULL,
    active INTEGER NOT NULL,
    retry_policy TEXT NOT NULL,
    headers TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE deliveries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event INTEGER NOT NULL REFERENCES events (sequence),
    webhook_id TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (state, due_at, sequence);
CREATE INDEX deliveries_of_event ON deliveries (event);
CREATE TABLE attempts (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery INTEGER NOT NULL REFERENCES deliveries (sequence),
    number INTEGER NOT NULL,
    sent_at REAL NOT NULL,
    seconds REAL NOT NULL,
    status INTEGER,
    answer TEXT NOT NULL,
    error TEXT NOT NULL,
    delivered INTEGER NOT NULL
);
CREATE INDEX attempts_of_delivery ON attempts (delivery);
"""


class Database:
    """A SQLite database that several threads use in turn.

    Args:
        file: its path; `None` keeps it in memory.

    Raises:
        ConfigurationError: the file cannot be opened, or is another program's database.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self._lock = threading.RLock()
        self._is_open = True
        name = MEMORY if file is None else str(file)
        if file is not None:
            # It contains the webhooks' secrets.
            SqliteFile.at(name).create()
        try:
            self._connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            try:
                self._prepare(name)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise ConfigurationError(f"cannot open the simulator's database {name}: {error}") from error

    def _prepare(self, name: str) -> None:
        [version] = self._connection.execute("PRAGMA user_version").fetchone()
        [tables] = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != VERSION and tables:
            raise ConfigurationError(f"{name} is not a database of the simulator")
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A power failure may lose the newest attempts; a killed process loses none.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements in one transaction, which is rolled back if the block raises.

        Raises:
            EnvoyouError: the database is closed.
        """
        with self._lock:
            self._check_open()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows that a statement selects.

        Raises:
            EnvoyouError: the database is closed.
        """
        with self._lock:
            self._check_open()
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._is_open = False
            self._connection.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise EnvoyouError("the platform has stopped, and its database is closed")
