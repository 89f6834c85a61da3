"""Decides from an exception whether the database failed, or the code that used it.

No driver is imported: the exceptions of each are recognised by SQLSTATE, by error number, or by the name of the class.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

from envoyou_core.errors import EnvoyouError

__all__ = ["is_database_failure"]

FAILURES: Final = ("08", "53", "57P", "58", "40001", "40003", "40P01", "55P03", "25006")
"""The beginnings of the SQLSTATEs of PostgreSQL with which the database fails: connection lost, too many connections or
no space, shutdown, I/O error, serialization failure, deadlock, lock timeout, and a server that is read-only."""

CANCELLED: Final = "57014"
"""The SQLSTATE of a statement that was cancelled, mostly by a time limit."""

MARIADB_FAILURES: Final = frozenset(
    {
        *(0, 2002, 2003, 2006, 2013, 2014, 2055),  # not connected, or the connection was lost
        *(1040, 1203, 1226, 1129),  # too many connections
        *(1041, 1021, 1114),  # no memory, no space
        *(1053, 1077, 1079, 1927, 4031),  # the server shuts down, or has closed the connection
        *(1020, 1205, 1213),  # the record has changed, lock timeout, deadlock
        *(1290, 1792, 1836),  # the server is read-only
    }
)
MARIADB_CANCELLED: Final = frozenset({1317, 1969, 3024})

SQLITE_FAILURES: Final = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
        *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
    }
)
SQLITE_LOCKED_TEXT: Final = "database is locked"
TOO_LONG_TEXT: Final = re.compile("terminating connection due to (idle-in-transaction|transaction) timeout")
"""What earlier releases of psycopg report without the SQLSTATE, 25P03 or 25P04."""

MARIADB_DRIVERS: Final = frozenset({"pymysql", "MySQLdb", "aiomysql", "asyncmy", "mysql", "mariadb"})
LIBRARIES: Final = MARIADB_DRIVERS | {"psycopg", "psycopg2", "psycopg_pool", "asyncpg", "django"}
"""The top-level modules of the classes `OperationalError` and `InterfaceError` that may mean a lost connection."""


def is_database_failure(error: BaseException, *, in_inbox: bool = False) -> bool:
    """Whether the database has failed: refused, locked, no space, serialization failure, deadlock, connection lost.

    A violated constraint, a transaction that an earlier error has aborted, and a transaction that took too long are
    failures of the code.

    Args:
        error: the exception. Its causes are considered too, because libraries wrap the exceptions of drivers.
        in_inbox: whether a statement of the inbox has failed. A cancelled one is the database's failure then; otherwise
            it was too slow.
    """
    chain = list(_chain(error))
    if any(isinstance(link, EnvoyouError) for link in chain):
        # The handler has decided itself, or exceeded a limit of this library.
        return False
    # The innermost exception knows most: it is the driver's.
    for link in reversed(chain):
        verdict = _verdict(link, in_inbox=in_inbox)
        if verdict is not None:
            return verdict
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes. The context is left out: an exception raised there has other reasons."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        wrapped = getattr(link, "orig", None)
        link = link.__cause__ or (wrapped if isinstance(wrapped, BaseException) else None)


def _verdict(error: BaseException, *, in_inbox: bool) -> bool | None:
    """Return whether one exception means that the database failed; `None` if it does not show that."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_database_failure(part, in_inbox=in_inbox) for part in error.exceptions)
    if isinstance(error, sqlite3.Error):
        return _sqlite_verdict(error)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if _library(type(error)) in MARIADB_DRIVERS:
        number = error.args[0] if error.args else None
        return number in MARIADB_FAILURES or (in_inbox and number in MARIADB_CANCELLED)
    if isinstance(state, str):
        return state.startswith(FAILURES) or (in_inbox and state == CANCELLED)
    if TOO_LONG_TEXT.search(str(error)):
        return False
    return _is_disconnected(error) or None


def _sqlite_verdict(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return SQLITE_LOCKED_TEXT in str(error)
    # The low byte of an extended code is the primary code.
    return code & 0xFF in SQLITE_FAILURES


def _is_disconnected(error: BaseException) -> bool:
    """Whether an exception without a code means that there is no connection."""
    if getattr(error, "connection_invalidated", False):
        # SQLAlchemy has seen the connection break.
        return True
    classes = type(error).__mro__
    if any(cls.__name__ == "OperationalError" and _library(cls) in LIBRARIES for cls in classes):
        return True
    if any(cls.__name__ == "InterfaceError" and _library(cls) in LIBRARIES for cls in classes):
        return "clos" in str(error) and ("connection" in str(error) or "pool" in str(error))
    return any(cls.__name__ == "TimeoutError" and cls.__module__ == "sqlalchemy.exc" for cls in classes)


def _library(cls: type) -> str:
    return cls.__module__.partition(".")[0]
