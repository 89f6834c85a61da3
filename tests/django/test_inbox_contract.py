"""The inbox contract over the ORM, on every database that is supported."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from envoyou_core.inbox import Status
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import PausedSubject
from envoyou_django.runtime import DjangoWebhooks
from tests.django.databases import empty, inbox_on
from tests.inbox.acceptance_contract import AcceptanceContract
from tests.inbox.acts import LEASE, add, claim_one, ids, settle
from tests.inbox.contract import DurableInboxContract
from tests.inbox.handler_contract import HandlerTransactionContract
from tests.inbox.history_contract import HistoryContract
from tests.inbox.recovery_contract import RecoveryContract
from tests.inbox.retention_contract import ScrubContract
from tests.inbox.transaction_contract import TransactionContract
from tests.inbox.unreadable_contract import UnreadableContract


class ThreadsThatHangUp(ThreadPoolExecutor):
    """A server closes the connections that its threads used; here nobody else does."""

    def submit(self, function, /, *args, **kwargs):
        def call():
            try:
                return function(*args, **kwargs)
            finally:
                connections.close_all()

        return super().submit(call)


class OrmInboxFixtures:
    serves = True
    """Whether the process is one that serves, whose acceptances share commits."""

    @pytest.fixture(autouse=True)
    def hang_up(self, monkeypatch):
        for module in ("acceptance_contract", "contract"):
            monkeypatch.setattr(f"tests.inbox.{module}.ThreadPoolExecutor", ThreadsThatHangUp)

    @pytest.fixture
    def make_inbox(self, alias):
        with inbox_on(alias):
            # Other tests of this process share the database.
            empty(alias)
            made = []

            def make(clock, name="default"):
                made.append(OrmInbox(name=name, clock=clock))
                made[-1].shares_commits = self.serves
                return made[-1]

            yield make
            for inbox in made:
                inbox.close()
            with transaction.atomic(using=alias):
                empty(alias)

    @pytest.fixture
    def damage(self, alias):
        def damage(id, column, value):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"UPDATE envoyou_processed_event SET {column} = %s WHERE event_id = %s", [value, id])
                assert cursor.rowcount == 1

        return damage

    @pytest.fixture
    def stored(self, alias):
        def stored(id, column):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"SELECT {column} FROM envoyou_processed_event WHERE event_id = %s", [id])
                return str(cursor.fetchone()[0])

        return stored

    @pytest.fixture
    def write(self, alias):
        # A handler finds the transaction on its thread's connection; any table does for its work.
        return lambda _, text: PausedSubject.objects.using(alias).create(name="effects", subject=text)

    @pytest.fixture
    def written(self, alias):
        with ThreadsThatHangUp(1) as pool:
            rows = PausedSubject.objects.using(alias).filter(name="effects").values_list("subject", flat=True)
            yield lambda: sorted(pool.submit(lambda: list(rows.all())).result(20))


def unreadable_time(inbox, damage, column, value):
    add(inbox, "evt_1")
    damage("evt_1", column, value)
    assert inbox.get("evt_1").unreadable == f"the column {column} holds a value that this release cannot read"
    assert inbox.seconds_until_due() == (None if column == "due_at" else 0)
    add(inbox, "evt_2")
    assert [record.unreadable is None for record in inbox.list()] == [True, False]
    assert "evt_2" in ids(inbox.claim(10, LEASE))
    assert inbox.stats().total == 2


class OnSqlite(OrmInboxFixtures):
    @pytest.fixture
    def alias(self, django_db_setup, django_db_blocker):
        with django_db_blocker.unblock():
            yield "default"

    @pytest.mark.parametrize("column", ["received_at", "due_at", "settled_at"])
    def test_a_time_that_does_not_exist_is_unreadable_and_disturbs_no_other(self, inbox, damage, column):
        unreadable_time(inbox, damage, column, "9999-13-45 00:00:00")


class OnPostgres(OrmInboxFixtures):
    @pytest.fixture
    def alias(self, postgres_alias, django_db_blocker):
        with django_db_blocker.unblock():
            yield postgres_alias

    @pytest.mark.parametrize("time", ["infinity", "-infinity"])
    @pytest.mark.parametrize("column", ["received_at", "due_at", "settled_at"])
    def test_an_infinite_time_is_unreadable_and_disturbs_no_other(self, inbox, damage, column, time):
        unreadable_time(inbox, damage, column, time)


class OrmHandlerContract(HandlerTransactionContract):
    webhooks_class = DjangoWebhooks
    takes_connection = False


class TestOnSqlite(OnSqlite, OrmHandlerContract, TransactionContract, UnreadableContract, DurableInboxContract):
    def test_a_count_that_is_none_is_unreadable(self, inbox, damage):
        add(inbox, "evt_1")
        damage("evt_1", "attempts", "many")
        claim = claim_one(inbox)
        assert claim.unreadable
        assert settle(inbox, claim, Status.DEAD)
        damage("evt_1", "attempts", "many")
        assert inbox.requeue("evt_1") == 1
        assert inbox.get("evt_1").unreadable is None


class TestOnPostgres(OnPostgres, OrmHandlerContract, TransactionContract, UnreadableContract, DurableInboxContract):
    pass


class TestOnMariadb(OrmInboxFixtures, TransactionContract, UnreadableContract, DurableInboxContract):
    @pytest.fixture
    def alias(self, mariadb_alias, django_db_blocker):
        with django_db_blocker.unblock():
            yield mariadb_alias


class TestWhereNothingIsServed(OnSqlite, AcceptanceContract):
    """Only acceptances depend on whether the process serves."""

    serves = False


class TimesContract(AcceptanceContract, RecoveryContract, HistoryContract, ScrubContract):
    """The parts of the contract in which times matter."""

    @pytest.fixture(autouse=True)
    def local_times(self, settings):
        settings.USE_TZ = False


class TestWithoutTimeZones(OnSqlite, TimesContract):
    """Times are exact if the project stores local ones, too."""


class TestWithoutTimeZonesOnPostgres(OnPostgres, TimesContract):
    pass
