"""Databases for the inbox of one round each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from benchmarks.measuring import Run
from envoyou_core.inbox.sql.inbox import SqlInbox
from tests.services import database

__all__ = ["databases"]

Database = Callable[[], AbstractContextManager[str]]
"""Creates a database, yields its URL and deletes the database."""


def databases(run: Run, *, migrated: bool = True) -> Mapping[str, Database]:
    """Return SQLite, and PostgreSQL if a server is available. `migrated`: whether it has the tables of the inbox."""
    available: dict[str, Database] = {"SQLite": sqlite}
    if run.postgres is not None:
        available["PostgreSQL"] = partial(postgres, run.postgres, migrated=migrated)
    return available


@contextmanager
def sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/inbox.db"


@contextmanager
def postgres(server: str, *, migrated: bool) -> Iterator[str]:
    with database(server) as url:
        if migrated:
            with closing(SqlInbox(url)) as inbox:
                inbox.migrate()
        yield url
