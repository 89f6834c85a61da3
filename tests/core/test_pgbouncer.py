"""Tests of the inbox behind a real PgBouncer in transaction mode, which may switch connections between transactions."""

import asyncio
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from envoyou_core import RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.inbox import ClaimFilter, Settlement, Status
from envoyou_core.inbox.sql.async_inbox import AsyncSqlInbox
from envoyou_core.testing import sample_event, sign_delivery
from tests.core.test_inboxes import SqlTransactionContract
from tests.inbox.acts import LEASE, PATIENCE, entry

SECRET = "whsec_test"
WORKERS = 4
"""More than PgBouncer has server connections, so that transactions switch between them."""

pytestmark = pytest.mark.service


class TestTransactionsBehindPgbouncer(SqlTransactionContract):
    @pytest.fixture
    def inbox(self, sql_inboxes, pgbouncer_inbox_url, clock):
        return sql_inboxes(pgbouncer_inbox_url, clock)

    @pytest.fixture
    def works(self, inbox):
        with inbox._engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS works"))
        return super().works.__wrapped__(self, inbox)


def test_transactions_use_several_server_connections(sql_inboxes, pgbouncer_inbox_url):
    inbox = sql_inboxes(pgbouncer_inbox_url)
    pid = text("SELECT pg_backend_pid()")
    with inbox._engine.connect() as first, inbox._engine.connect() as second:
        with first.begin(), second.begin():
            pids = {connection.scalar(pid) for connection in (first, second)}
        assert len(pids) == 2


def test_concurrent_adding_claiming_and_settling(sql_inboxes, pgbouncer_inbox_url):
    inboxes = [sql_inboxes(pgbouncer_inbox_url) for _ in range(WORKERS)]
    ordered = ClaimFilter(ordered=("*",))

    def work(number):
        inbox = inboxes[number]
        for stored in [inbox.add(entry(f"evt_{number}_{index}")) for index in range(15)]:
            stored.result(PATIENCE)
        claimed = []
        # Plain claims and exclusive ones, often enough that the driver would prepare each statement by default.
        for turn in range(40):
            claims = inbox.claim(3, LEASE, ordered) if turn % 2 else inbox.claim(3, LEASE)
            inbox.renew(claims, LEASE)
            inbox.settle_all([(claim, Settlement(Status.PROCESSED, attempts=1)) for claim in claims])
            claimed += [claim.event.id for claim in claims]
            inbox.seconds_until_due()
        return claimed

    with ThreadPoolExecutor(WORKERS) as pool:
        claimed = Counter(id for ids in pool.map(work, range(WORKERS)) for id in ids)
    assert set(claimed.values()) == {1}
    assert len(claimed) == inboxes[0].stats().by_status[Status.PROCESSED] == 15 * WORKERS


def test_several_workers_drain_one_inbox(pgbouncer_inbox_url):
    all_webhooks = [
        Webhooks(secret=SECRET, inbox=pgbouncer_inbox_url, handoff="manual", retry=RetryPolicy(delays=(0.01,)))
        for _ in range(WORKERS)
    ]
    handled = Counter()
    for webhooks in all_webhooks:

        @webhooks.on("user.created", name="first")
        def first(event, connection):
            assert connection.scalar(text("SELECT 1")) == 1

        @webhooks.on("user.created", name="second", ordered=True)
        def second(event, attempt):
            if attempt == 1:
                raise OSError("not yet")
            handled[event.id] += 1

    for number in range(20):
        delivery = sign_delivery(sample_event(id=f"evt_{number}"), secret=SECRET)
        response = all_webhooks[0].receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
        assert response.status == 200, response
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda webhooks: webhooks.drain(until_idle=True), all_webhooks))
    assert handled == Counter({f"evt_{number}": 1 for number in range(20)})
    for webhooks in all_webhooks:
        webhooks.stop()
        webhooks.inbox.close()


def engine_of_application(url, driver):
    if driver == "psycopg":
        return create_async_engine(url, hide_parameters=True, connect_args={"prepare_threshold": None})
    # As documented.
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg").update_query_dict({"prepared_statement_cache_size": "0"}),
        hide_parameters=True,
        poolclass=NullPool,
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__asyncpg_{uuid.uuid4()}__",
        },
    )


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_handlers_share_transactions(driver, pgbouncer_inbox_url):
    handled = Counter()

    async def main():
        engine = engine_of_application(pgbouncer_inbox_url, driver)
        webhooks = Webhooks(secret=SECRET, inbox=AsyncSqlInbox(engine), handoff="manual")

        @webhooks.on("*")
        async def handle(event, connection, session):
            assert await connection.scalar(text("SELECT 1")) == 1
            assert await session.scalar(text("SELECT 2")) == 2
            handled[event.id] += 1

        await asyncio.gather(*(asyncio.wrap_future(webhooks.inbox.add(entry(f"evt_{index}"))) for index in range(20)))
        await asyncio.gather(*(webhooks.adrain() for _ in range(3)))
        assert webhooks.inbox.stats().by_status[Status.PROCESSED] == 20
        webhooks.inbox.close()
        await engine.dispose()

    asyncio.run(main())
    assert handled == Counter({f"evt_{index}": 1 for index in range(20)})


def test_concurrent_migrations(sql_inboxes, pgbouncer_inbox_url):
    inboxes = [sql_inboxes(pgbouncer_inbox_url) for _ in range(WORKERS)]
    with inboxes[0]._engine.begin() as connection:
        connection.execute(text("DROP TABLE envoyou_schema, envoyou_inbox, envoyou_marks, envoyou_paused"))
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda inbox: inbox.migrate(), inboxes))
    assert [inbox.stats().total for inbox in inboxes] == [0] * WORKERS


def test_driver_options_work(sql_inboxes, pgbouncer_inbox_url):
    url = f"{pgbouncer_inbox_url}?application_name=orders&connect_timeout=3&sslmode=prefer&target_session_attrs=any"
    with sql_inboxes(url)._reading() as connection:
        assert connection.scalar(text("SHOW application_name")) == "orders"


def test_no_session_state_is_left_on_shared_connections(sql_inboxes, pgbouncer_inbox_url):
    inbox = sql_inboxes(pgbouncer_inbox_url)
    for _ in range(10):
        inbox.claim(1, LEASE, ClaimFilter(ordered=("*",)))
    with inbox._reading() as connection:
        # Only the names of psycopg: statements prepared by asyncpg belong to the application.
        prepared = r"SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '\_pg3\_%'"
        assert connection.scalar(text(prepared)) == 0
        locks = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        ours = f"{locks} WHERE datname = current_database() AND locktype = 'advisory'"
        assert connection.scalar(text(ours)) == 0


def test_startup_options_are_rejected_by_pgbouncer(sql_inboxes, pgbouncer_inbox_url):
    inbox = sql_inboxes(f"{pgbouncer_inbox_url}?options=-cstatement_timeout%3D5000")
    with pytest.raises((OperationalError, psycopg.OperationalError), match="unsupported startup parameter: options"):
        inbox.open()
