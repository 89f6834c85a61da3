"""The inbox contract over every inbox of the core."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from sqlalchemy import Column, MetaData, String, Table, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.inbox import Inbox, WorkerInbox
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox
from tests.inbox.acts import PATIENCE
from tests.inbox.contract import DurableInboxContract, InboxContract
from tests.inbox.handler_contract import HandlerContract, HandlerTransactionContract
from tests.inbox.transaction_contract import TransactionContract
from tests.inbox.unreadable_contract import UnreadableContract


def test_an_inbox_without_the_methods_for_workers_is_rejected():
    methods = {name for name in dir(Inbox) if not name.startswith("_")}
    users_half = type("UsersHalf", (), dict.fromkeys(methods, lambda self: None) | {"name": "default"})()
    assert isinstance(users_half, Inbox)
    assert not isinstance(users_half, WorkerInbox)
    with pytest.raises(ConfigurationError, match="inbox must be a URL or an inbox, got UsersHalf"):
        Webhooks(secret="whsec_test", inbox=users_half)


class TestMemoryInbox(HandlerContract, InboxContract):
    @pytest.fixture
    def make_inbox(self):
        def make(clock, name="default"):
            return MemoryInbox(name=name, clock=clock)

        return make


class SqlTransactionContract(TransactionContract):
    """What handlers do in a transaction of the SQL inbox: statements, on its connection."""

    @pytest.fixture
    def works(self, inbox):
        works = Table("works", MetaData(), Column("text", String(64)))
        with inbox._engine.begin() as connection:
            works.create(connection)
        return works

    @pytest.fixture
    def write(self, works):
        return lambda connection, text: connection.execute(works.insert().values(text=text))

    @pytest.fixture
    def written(self, inbox, works):
        def written():
            # A connection of its own: a call of the inbox in a handler's transaction also sees what is not committed.
            with inbox._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                return sorted(connection.scalars(works.select()))

        return written


class SqlUnreadableContract(UnreadableContract):
    """Rows are overwritten by statements that the inbox knows nothing of."""

    @pytest.fixture
    def damage(self, inbox):
        def damage(id, column, value):
            with inbox._engine.begin() as connection:
                statement = text(f"UPDATE envoyou_inbox SET {column} = :value WHERE event_id = :id")
                assert connection.execute(statement, {"value": value, "id": id}).rowcount == 1

        return damage

    @pytest.fixture
    def stored(self, inbox):
        def stored(id, column):
            with inbox._reading() as connection:
                return connection.scalar(text(f"SELECT {column} FROM envoyou_inbox WHERE event_id = :id"), {"id": id})

        return stored


class SqlHandlerContract(HandlerTransactionContract, SqlTransactionContract, SqlUnreadableContract):
    pass


class TestSqliteInbox(SqlHandlerContract, DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, sqlite_url):
        def make(clock, name="default"):
            return sql_inboxes(sqlite_url, clock, name)

        return make


class TestPostgresInbox(
    HandlerTransactionContract, SqlTransactionContract, SqlUnreadableContract, DurableInboxContract
):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, emptied_postgres_url):
        def make(clock, name="default"):
            return sql_inboxes(emptied_postgres_url, clock, name)

        return make


class TestMariadbInbox(SqlTransactionContract, SqlUnreadableContract, DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, emptied_mariadb_url):
        def make(clock, name="default"):
            return sql_inboxes(emptied_mariadb_url, clock, name)

        return make


class OnALoop(AsyncSqlInbox):
    """Its transactions are those that async handlers share, on the event loop `loop` of another thread."""

    def on_loop(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(PATIENCE)

    @contextmanager
    def transaction(self, claim, progress, settlement=None):
        begun = Future()
        end = self.loop.create_future()

        async def hold():
            async with self.async_transaction(claim, progress, settlement) as given:
                begun.set_result(given["connection"])
                await end

        held = asyncio.run_coroutine_threadsafe(hold(), self.loop)
        try:
            yield begun.result(PATIENCE)
        except Exception as error:
            self.loop.call_soon_threadsafe(end.set_exception, error)
        else:
            self.loop.call_soon_threadsafe(end.set_result, None)
        held.result(PATIENCE)


class AsyncTransactionContract(SqlTransactionContract):
    @pytest.fixture
    def inbox(self, url, clock):
        inbox = OnALoop(self.make_engine(make_url(url)), url=url, clock=clock)
        inbox.open()
        inbox.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=inbox.loop.run_forever)
        thread.start()
        yield inbox
        inbox.on_loop(inbox._async_engine.dispose())
        inbox.close()
        inbox.loop.call_soon_threadsafe(inbox.loop.stop)
        thread.join(PATIENCE)
        inbox.loop.close()

    @pytest.fixture
    def write(self, inbox, works):
        return lambda connection, text: inbox.on_loop(connection.execute(works.insert().values(text=text)))


class TestSqliteTransactionsOnALoop(AsyncTransactionContract):
    @pytest.fixture
    def url(self, sqlite_url):
        return sqlite_url

    def make_engine(self, url):
        return create_async_engine(url.set(drivername="sqlite+aiosqlite"))


class TestPsycopgTransactionsOnALoop(AsyncTransactionContract):
    @pytest.fixture
    def url(self, emptied_postgres_url):
        return emptied_postgres_url

    def make_engine(self, url):
        return create_async_engine(url.set(drivername="postgresql+psycopg"))


class TestAsyncpgTransactionsOnALoop(TestPsycopgTransactionsOnALoop):
    def make_engine(self, url):
        # Each driver has its own way to name the schema.
        schema = url.query["options"].removeprefix("-csearch_path=")
        return create_async_engine(
            url.difference_update_query(["options"]).set(drivername="postgresql+asyncpg"),
            connect_args={"server_settings": {"search_path": schema}},
        )
