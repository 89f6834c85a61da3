"""Inboxes for one round each, in databases of their own."""

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
"""Makes one, gives its URL, and deletes it."""


def databases(run: Run) -> Mapping[str, Database]:
    """SQLite, and PostgreSQL where there is a server."""
    made: dict[str, Database] = {"SQLite": sqlite}
    if run.postgres is not None:
        made["PostgreSQL"] = partial(postgres, run.postgres)
    return made


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
