"""The SQL inbox in the database of an application that uses SQLAlchemy's `AsyncEngine`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from envoyou_core.errors import ConfigurationError, TransactionTimeoutError
from envoyou_core.inbox.deadlines import TRANSACTION_LIMIT
from envoyou_core.inbox.group_commit import MAX_BATCH
from envoyou_core.inbox.records import Claim, HandlerStatus, Settlement
from envoyou_core.inbox.sql import sessions
from envoyou_core.inbox.sql.inbox import SqlInbox

__all__ = ["AsyncSqlInbox"]

SYNC_DRIVERS: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "mariadb": "mariadb+pymysql",
    "mysql": "mariadb+pymysql",
}
"""The driver that the inbox itself uses in its threads, for each dialect."""

OF_BOTH_DRIVERS: Final[Mapping[str, Collection[str]]] = {
    # The directory of a socket is given as `host`.
    "asyncpg": {"host", "port", "sslmode"},
    "aiomysql": {"charset", "connect_timeout", "unix_socket"},
    "asyncmy": {"charset", "connect_timeout", "unix_socket"},
    "aiosqlite": {"timeout", "uri", "mode", "cache", "vfs"},
}
"""The URL options of each async driver that the inbox's own driver also accepts."""

OF_ASYNC_DRIVERS: Final = {"prepared_statement_cache_size", "prepared_statement_name_func"}
"""Options that concern only the connections of an async driver."""


class AsyncSqlInbox(SqlInbox):
    """An `SqlInbox` whose async handlers can share its transactions, through the application's own engine.

    The inbox stores, claims and settles through its own connections, in threads. Only the transactions of async
    handlers use `engine`, on the event loop: a handler takes the `connection`, an `AsyncConnection`, or the `session`,
    an `AsyncSession` on it. Sync handlers get the inbox's own `connection`, as with any `SqlInbox`.

    Args:
        engine: the application's engine. It must not be in AUTOCOMMIT. Create it with `hide_parameters=True`, because
            error texts, which are logged, contain the parameters of statements.
        url: the URL of the same database for a sync driver, if it cannot be derived from the engine's URL because that
            has options only its own driver accepts.
        name: keeps several `Webhooks` on one database apart.
        clock: returns epoch seconds.
        max_batch: the maximum number of events in one commit.

    Raises:
        ConfigurationError: as for `SqlInbox`, or the URL cannot be derived.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        url: str | URL | None = None,
        name: str = "default",
        clock: Callable[[], float] = time.time,
        max_batch: int = MAX_BATCH,
    ) -> None:
        super().__init__(sync_url(engine.url) if url is None else url, name=name, clock=clock, max_batch=max_batch)
        self._async_engine = engine

    @asynccontextmanager
    async def async_transaction(
        self,
        claim: Claim,
        progress: Mapping[str, HandlerStatus],
        settlement: Callable[[], Settlement] | None = None,
        *,
        wants: Collection[str] = ("connection",),
    ) -> AsyncIterator[Mapping[str, object]]:
        """See `AsyncTransactionalInbox.async_transaction`.

        On SQLite the handler is cancelled after `TRANSACTION_LIMIT` seconds, because it blocks every other writer. For
        the same reason, calls of the inbox in the block that write fail there.

        Raises:
            TransactionTimeoutError: on SQLite, the block took longer.
        """
        async with AsyncExitStack() as ends:
            slot = None if self.remote else await ends.enter_async_context(self._handler_queue.async_slot())
            connection = await ends.enter_async_context(self._async_engine.connect())
            await connection.run_sync(sessions.note_state)
            # The session is read once more after this context, which refuses statements after the commit.
            transaction = await ends.enter_async_context(AsyncExitStack())
            await transaction.enter_async_context(connection.begin())
            if slot is not None:
                await _lock_for_writing(connection)
                slot.lock_taken()
            async with self._limit(), AsyncExitStack() as orm_sessions:
                # The methods of the inbox block, so that they cannot use the connection, which belongs to the loop.
                orm_sessions.enter_context(self._joinable(None))
                given: dict[str, object] = {"connection": connection}
                if "session" in wants:
                    given["session"] = await orm_sessions.enter_async_context(_session_within(connection))
                yield {name: given[name] for name in given.keys() & set(wants)}
            end = partial(self._end_transaction, claim=claim, progress=progress, settlement=settlement)
            await _to_the_end(_commit(connection, transaction, end, ends.pop_all()))

    def _limit(self) -> AbstractAsyncContextManager[object]:
        return AsyncExitStack() if self.remote else _time_limit()


def sync_url(url: URL) -> URL:
    """Derive the URL for the inbox's own driver from that of an async engine.

    Raises:
        ConfigurationError: the URL has options that the inbox's own driver does not accept.
    """
    driver = SYNC_DRIVERS.get(url.get_backend_name(), url.drivername)
    options = {name: value for name, value in url.query.items() if name not in OF_ASYNC_DRIVERS}
    if url.get_driver_name() == "asyncpg" and "ssl" in options:
        options["sslmode"] = options.pop("ssl")
    accepted = OF_BOTH_DRIVERS.get(url.get_driver_name())
    unknown = [] if accepted is None else sorted(options.keys() - set(accepted))
    if unknown:
        raise ConfigurationError(
            f"the engine's URL has options of its driver ({', '.join(unknown)}): give the inbox a URL of "
            f"its own, AsyncSqlInbox(engine, url='{driver}://...')"
        )
    return url.set(drivername=driver, query=options)


async def _lock_for_writing(connection: AsyncConnection) -> None:
    # See `_begin_immediately`; the application's engine may do it itself.
    raw = await connection.get_raw_connection()
    if raw.driver_connection is None or not raw.driver_connection.in_transaction:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")


@asynccontextmanager
async def _session_within(connection: AsyncConnection) -> AsyncIterator[AsyncSession]:
    # A commit or rollback by the handler ends only a savepoint, not the transaction around it.
    options: dict[str, Any] = {"join_transaction_mode": "create_savepoint", "expire_on_commit": False}
    async with AsyncSession(connection, **options) as session:
        yield session
        await session.commit()


@asynccontextmanager
async def _time_limit() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TRANSACTION_LIMIT) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TransactionTimeoutError(
            f"a handler's transaction on SQLite was rolled back after {TRANSACTION_LIMIT:g} s, because it blocks all "
            "other writers. Do slow work in a handler without a connection"
        ) from error


async def _commit(
    connection: AsyncConnection, transaction: AsyncExitStack, end: Callable[[Connection], bool], ends: AsyncExitStack
) -> None:
    async with ends:
        is_changed = await connection.run_sync(end)
        await transaction.aclose()
        if is_changed:
            await connection.run_sync(sessions.close_if_changed)


async def _to_the_end(awaitable: Awaitable[None]) -> None:
    """Await the commit even if the task is cancelled meanwhile; the cancellation takes effect afterwards.

    It would be unknown whether a cancelled commit had happened, and the handler would run again. For the same reason
    nothing may be awaited between this commit and the update of the attempt's progress.
    """
    ending = asyncio.ensure_future(awaitable)
    cancelled = False
    while not ending.done():
        try:
            await asyncio.wait([ending])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        task.cancel()
    ending.result()
