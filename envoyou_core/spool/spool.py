"""The spool: events wait in it, on this machine's disk, while the inbox is down.

It is an inbox itself, in a SQLite file and under its own name. Therefore it has the unique key, group commits, and
claims with leases: several processes can use one file, and each event is moved by one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import case, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.inbox.files import SqliteFile
from envoyou_core.inbox.records import Claim, Status
from envoyou_core.inbox.rejected import RejectedDelivery, rejected_of
from envoyou_core.inbox.rows import moment
from envoyou_core.inbox.sql import rejections
from envoyou_core.inbox.sql.claims import IS_HELD, lease_of
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.schema import inbox_table, rejected_table
from envoyou_core.inbox.urls import read_url

__all__ = ["Spool"]

SUFFIX = "/spool"
"""Appended to the name of the `Webhooks`: no worker claims spooled events, even if the file is also an inbox."""

_t = inbox_table.c


class Spool(SqlInbox):
    """An inbox for events that wait until they can be moved to another inbox.

    Args:
        url: a SQLite file on a disk of this machine, such as `sqlite:///spool.db`.
        name: of the `Webhooks` whose events wait.
        apart_from: the file of their inbox, if it has one. The spool must be a different file.
        clock: epoch seconds.

    Raises:
        ConfigurationError: the URL is not that of a SQLite file, or the file is the inbox.
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
            raise ConfigurationError("the spool must be a file of its own, got the file of the inbox")

    def open(self) -> None:
        """See `Inbox.open`.

        Raises:
            ConfigurationError: the file cannot be created, or is not a database of this library.
        """
        try:
            super().open()
        except SQLAlchemyError as error:
            raise ConfigurationError(f"the spool cannot be opened: {describe(error)}") from error

    def remove(self, claims: Sequence[Claim]) -> None:
        """Delete events that were moved. Events whose lease was lost stay, and another process moves them again."""
        if not claims:
            return
        with self._writing() as connection:
            connection.execute(delete(inbox_table).where(IS_HELD), [lease_of(claim) for claim in claims])

    def oldest_rejected(self, limit: int) -> list[RejectedDelivery]:
        """Return up to `limit` rejected deliveries with their bodies, oldest first."""
        self.open()
        query = select(rejected_table).where(rejections.matching(self.name)).order_by(rejected_table.c.key).limit(limit)
        with self._reading() as connection:
            return [rejected_of(row, key=row.key, moment=moment) for row in connection.execute(query)]

    def release(self, claims: Sequence[Claim]) -> None:
        """End the leases of events that could not be moved. They are due at once, after all other due events."""
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
