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


def databases(run: Run) -> Mapping[str, Database]:
    """Return SQLite, and PostgreSQL if a server is available."""
    available: dict[str, Database] = {"SQLite": sqlite}
    if run.postgres is not None:
        available["PostgreSQL"] = partial(postgres, run.postgres)
    return available


@contextmanager
def sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/inbox.db"


@contextmanager
def postgres(server: str) -> Iterator[str]:
    with database(server) as url:
        with closing(SqlInbox(url)) as inbox:
            inbox.migrate()
        yield url
