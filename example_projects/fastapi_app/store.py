"""The application's own data, in SQLite. Every write may be repeated: it leaves what one would have left."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY, email TEXT, name TEXT, verified INTEGER, deleted INTEGER, changed INTEGER
);
CREATE TABLE IF NOT EXISTS audit (event_id TEXT PRIMARY KEY, user_id TEXT, what TEXT, address TEXT, at INTEGER);
CREATE TABLE IF NOT EXISTS notices (id TEXT PRIMARY KEY, what TEXT, title TEXT, changed INTEGER);
"""


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(os.environ.get("APP_DATABASE", "app.db"))) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(SCHEMA)
        with connection:
            yield connection


def put_user(user_id: str, *, email: str, name: str, verified: bool, changed: int) -> None:
    with transaction() as connection:
        connection.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?, 0, ?) ON CONFLICT (id) DO UPDATE SET email = excluded.email, "
            "name = excluded.name, verified = excluded.verified, changed = excluded.changed "
            "WHERE NOT deleted AND excluded.changed >= changed",
            (user_id, email, name, verified, changed),
        )


def delete_user(user_id: str, *, changed: int) -> None:
    # The row stays as a mark, so that a late update cannot bring the user back.
    with transaction() as connection:
        connection.execute(
            "INSERT INTO users VALUES (?, '', '', 0, 1, ?) ON CONFLICT (id) DO UPDATE SET email = '', name = '', "
            "verified = 0, deleted = 1, changed = excluded.changed",
            (user_id, changed),
        )


def user(user_id: str) -> dict[str, Any] | None:
    found = _rows("SELECT * FROM users WHERE id = ?", user_id)
    return found[0] | {"verified": bool(found[0]["verified"]), "deleted": bool(found[0]["deleted"])} if found else None


def put_audit_entry(event_id: str, *, user_id: str, what: str, address: str, at: int) -> None:
    with transaction() as connection:
        connection.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (event_id, user_id, what, address, at)
        )


def audit_trail(user_id: str) -> list[dict[str, Any]]:
    return _rows("SELECT what, address, at FROM audit WHERE user_id = ? ORDER BY at", user_id)


def put_notice(notice_id: str, *, what: str, title: str, changed: int) -> None:
    with transaction() as connection:
        connection.execute(
            "INSERT INTO notices VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET what = excluded.what, "
            "title = excluded.title, changed = excluded.changed WHERE excluded.changed >= changed",
            (notice_id, what, title, changed),
        )


def notice(notice_id: str) -> dict[str, Any] | None:
    found = _rows("SELECT * FROM notices WHERE id = ?", notice_id)
    return found[0] if found else None


def _rows(query: str, *parameters: object) -> list[dict[str, Any]]:
    with transaction() as connection:
        return [dict(row) for row in connection.execute(query, parameters)]
