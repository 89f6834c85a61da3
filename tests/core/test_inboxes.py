"""The inbox contract over every inbox of the core."""

import pytest

from envoyou_core.inbox.memory import MemoryInbox
from tests.inbox_contract import DurableInboxContract, InboxContract


class TestMemoryInbox(InboxContract):
    @pytest.fixture
    def make_inbox(self):
        def make(clock, name="default"):
            return MemoryInbox(name=name, clock=clock)

        return make


class TestSqliteInbox(DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, sqlite_url):
        def make(clock, name="default"):
            return sql_inboxes(sqlite_url, clock, name)

        return make


class TestPostgresInbox(DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, postgres_inbox_url):
        def make(clock, name="default"):
            return sql_inboxes(postgres_inbox_url, clock, name)

        return make


class TestMariadbInbox(DurableInboxContract):
    @pytest.fixture
    def make_inbox(self, sql_inboxes, mariadb_inbox_url):
        def make(clock, name="default"):
            return sql_inboxes(mariadb_inbox_url, clock, name)

        return make
