"""The spool: where events wait on this machine's own disk while the inbox is away.

It is an inbox itself, in a SQLite file and under a name of its own. So it has what an inbox has: the unique key, shared
commits, and claims with leases, by which several processes use one file and each event is moved by one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import case, delete, update
from sqlalchemy.exc import SQLAlchemyError

from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.inbox.files import SqliteFile
from envoyou_core.inbox.records import Claim, Status
from envoyou_core.inbox.sql.claims import IS_HELD, lease_of
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.schema import inbox_table
from envoyou_core.inbox.urls import read_url

__all__ = ["Spool"]

SUFFIX = "/spool"
"""Behind the name of the `Webhooks`: in a file that is the inbox of others, too, nobody works on what only waits."""

_t = inbox_table.c


class Spool(SqlInbox):
    """An inbox for events that wait until they can be moved into another one.

    Args:
        url: `sqlite:///spool.db`: a file on a disk of this machine.
        name: of the `Webhooks` whose events wait.
        apart_from: the file of their inbox, if it has one: the spool must be another.
        clock: epoch seconds.

    Raises:
        ConfigurationError: it is not SQLite on a file, or it is the inbox's own file.
    """

    kind = "spool"

    def __init__(
        self,
        url: str,
        *,
        name: str = "default",
        apart_from: SqliteFile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        file = read_url(url, kind=self.kind).file
        if file is None:
            raise ConfigurationError("the spool must be a SQLite file on this machine, such as sqlite:///spool.db")
        super().__init__(url, name=name + SUFFIX, clock=clock)
        if apart_from is not None and file.path.resolve() == apart_from.path.resolve():
            raise ConfigurationError("the spool is the inbox itself: it needs a file of its own")

    def open(self) -> None:
        """See `Inbox.open`.

        Raises:
            ConfigurationError: the file cannot be created, or is not one of ours.
        """
        try:
            super().open()
        except SQLAlchemyError as error:
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
