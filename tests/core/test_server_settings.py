"""A PostgreSQL server whose defaults do not suit the inbox: it sets what it needs on its own transactions."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, event, make_url, text

from envoyou_core import RetryPolicy, Webhooks
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event
from tests import services

PATIENCE = 60
EVENTS = 60


@pytest.fixture(scope="module")
def unusual_url(postgres_server):
    """The URL of a database that is serializable and does not wait for the disk."""
    with services.database(postgres_server) as url:
        inbox = SqlInbox(url)
        inbox.migrate()
        with inbox._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.scalar(text("SELECT current_database()"))
            for setting in ("default_transaction_isolation = serializable", "synchronous_commit = off"):
                connection.execute(text(f"ALTER DATABASE {name} SET {setting}"))
        inbox.close()
        yield url


@pytest.fixture
def inbox(unusual_url):
    inbox = SqlInbox(unusual_url)
    yield inbox
    inbox.close()


def with_query(url, **values):
    """The URL of a server on a socket has a query already."""
    return make_url(url).update_query_dict(values)


def settings(connection):
    names = ("transaction_isolation", "synchronous_commit", "lock_timeout", "statement_timeout")
    return [connection.scalar(text(f"SELECT current_setting('{name}')")) for name in names]


def test_concurrent_acceptance_and_claims_do_not_conflict(unusual_url, inbox):
    """By its default the database would end some of these transactions because of one another."""
    webhooks = Webhooks(secret="s", inbox=inbox, handoff="manual", retry=RetryPolicy(max_attempts=1))
    webhooks.on("*", name="plain")(lambda event: None)
    webhooks.on("*", name="last")(lambda event: None)
    inboxes = [SqlInbox(unusual_url, max_batch=1) for _ in range(3)]

    def add(each):
        for _ in range(EVENTS):
            each.add(NewEvent(sample_event())).result(PATIENCE)

    def work(_):
        while inbox.stats().by_status[Status.PROCESSED] < EVENTS * len(inboxes):
            webhooks.drain()

    with ThreadPoolExecutor(6) as pool:
        for call in [*(pool.submit(add, each) for each in inboxes), *(pool.submit(work, each) for each in range(3))]:
            call.result(PATIENCE)
    assert inbox.stats().by_status[Status.DEAD] == 0
    for each in inboxes:
        each.close()


@pytest.fixture(params=["as it is", "with prepared statements", "the application's engine"])
def any_inbox(unusual_url, request):
    database = {
        "as it is": lambda: unusual_url,
        "with prepared statements": lambda: with_query(unusual_url, prepare_threshold="0"),
        "the application's engine": lambda: create_engine(unusual_url),
    }[request.param]()
    inbox = SqlInbox(database)
    yield inbox
    inbox.close()


def test_an_acceptance_is_committed_to_disk_within_the_answer_budget(any_inbox):
    inbox, seen = any_inbox, []
    event.listen(inbox._engine, "commit", lambda connection: seen.append(settings(connection)))
    inbox.add(NewEvent(sample_event())).result(PATIENCE)
    assert seen == [["read committed", "on", "2s", "2500ms"]]
    with inbox._engine.connect() as connection:
        assert settings(connection) == ["serializable", "off", "0", "0"]


def test_a_refused_acceptance_leaves_nothing_behind(any_inbox):
    """Whether the driver begins the transaction or the inbox does, a failure ends it."""
    unstorable = NewEvent(sample_event(), tenant="\0")
    for _ in range(3):
        with pytest.raises(Exception, match=r"NUL|0x00"):
            any_inbox.add(unstorable).result(PATIENCE)
    assert any_inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    with any_inbox._engine.connect() as connection:
        condition = "datname = current_database() AND state LIKE 'idle in%'"
        assert connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {condition}")) == 0


@pytest.mark.parametrize("level", ["local", "remote_apply"])
def test_another_level_of_durability_is_kept(unusual_url, level):
    inbox = SqlInbox(with_query(unusual_url, options=f"-csynchronous_commit={level}"))
    seen = []
    event.listen(inbox._engine, "commit", lambda connection: seen.append(settings(connection)[1]))
    inbox.add(NewEvent(sample_event())).result(PATIENCE)
    assert seen == [level]
    inbox.close()


def test_a_handlers_transaction_keeps_the_isolation_level_of_the_project(inbox):
    webhooks = Webhooks(secret="s", inbox=inbox, handoff="manual")
    seen = []

    @webhooks.on("*", name="reads")
    def reads(event, connection):
        seen.append(settings(connection)[:2])

    inbox.add(NewEvent(sample_event())).result(PATIENCE)
    webhooks.drain()
    assert seen[0] == ["serializable", "off"]
