"""The spool: where events wait on this machine's own disk while the inbox is away.

It is an inbox itself, in a SQLite file and under a name of its own. So it has what an inbox has: the unique key, shared
commits, and claims with leases, by which several processes use one file and each event is moved by one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import case, delete, make_url, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.inbox.records import Claim, Status
from envoyou_core.inbox.sql.claims import IS_HELD, lease_of
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.schema import inbox_table

__all__ = ["Spool"]

SUFFIX = "/spool"
"""Behind the name of the `Webhooks`: in a file that is the inbox of others, too, nobody works on what only waits."""

OWNER_ONLY = 0o600

_t = inbox_table.c


class Spool(SqlInbox):
    """An inbox for events that wait until they can be moved into another one.

    It holds payloads, so a file that it creates is readable by its owner only.

    Args:
        url: `sqlite:///spool.db`: a file on a disk of this machine.
        name: of the `Webhooks` whose events wait.
        apart_from: the URL of their inbox, which must be another file.
        clock: epoch seconds.

    Raises:
        ConfigurationError: it is not SQLite on a file, or it is the inbox's own file.
    """

    def __init__(
        self, url: str, *, name: str = "default", apart_from: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        file = _sqlite_file(url)
        if file is None:
            raise ConfigurationError("the spool is SQLite in a file of this machine, such as sqlite:///spool.db")
        if file == _sqlite_file(apart_from):
            raise ConfigurationError("the spool is the inbox itself: it needs a file of its own")
        super().__init__(url, name=name + SUFFIX, clock=clock)
        self._file = file

    def open(self) -> None:
        """See `Inbox.open`.

        Raises:
            ConfigurationError: the file cannot be created, or is not one of ours.
        """
        try:
            if not self._file.exists():
                # SQLite gives its other two files the rights of the first.
                self._file.touch(OWNER_ONLY)
            super().open()
        except (OSError, SQLAlchemyError) as error:
            raise ConfigurationError(f"the spool cannot be opened: {describe(error)}") from error

    def remove(self, claims: Sequence[Claim]) -> None:
        """Forget events that are elsewhere by now, but for those whose lease was lost: another moves them again."""
        if not claims:
            return
        with self._writing() as connection:
            connection.execute(delete(inbox_table).where(IS_HELD), [lease_of(claim) for claim in claims])

    def return_to_inbox(self, claims: Sequence[Claim]) -> None:
        """End the leases of events that could not be moved; they are due at once, behind all others."""
        if not claims:
            return
        statement = update(inbox_table).where(IS_HELD)
        values = {
            "status": case((_t.attempts > 0, Status.FAILED.value), else_=Status.RECEIVED.value),
            "due_at": self._now(),
            "lease_token": None,
        }
        with self._writing() as connection:
            connection.execute(statement.values(**values), [lease_of(claim) for claim in claims])


def _sqlite_file(url: str) -> Path | None:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    file = parsed.database
    # A name that begins so may be any of SQLite's own URLs, one for memory among them.
    if parsed.get_backend_name() != "sqlite" or not file or file.startswith((":", "file:")):
        return None
    return Path(file).resolve()
