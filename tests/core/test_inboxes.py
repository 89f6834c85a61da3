"""The inbox contract over every inbox of the core."""

import pytest
from sqlalchemy import Column, MetaData, String, Table

from envoyou_core.inbox.memory import MemoryInbox
from tests.inbox_contract import DurableInboxContract, InboxContract
from tests.inbox_transaction_contract import TransactionContract


class TestMemoryInbox(InboxContract):
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
            with inbox._reading() as connection:
                return sorted(connection.scalars(works.select()))

        return written


class TestSqliteInbox(SqlTransactionContract, DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, sqlite_url):
        def make(clock, name="default"):
            return sql_inboxes(sqlite_url, clock, name)

        return make


class TestPostgresInbox(SqlTransactionContract, DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, postgres_inbox_url):
        def make(clock, name="default"):
            return sql_inboxes(postgres_inbox_url, clock, name)

        return make


class TestMariadbInbox(SqlTransactionContract, DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, mariadb_inbox_url):
        def make(clock, name="default"):
            return sql_inboxes(mariadb_inbox_url, clock, name)

        return make
