"""Handlers leave connections of a bounded pool to acceptance and to settlements."""

import threading
import uuid

import pytest
from sqlalchemy import create_engine, make_url, text

from envoyou_core import ConfigurationError, WebhookRequest, Webhooks
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.inbox.connection_budget import RESERVED, ConnectionBudget, share_of_limit
from envoyou_core.inbox.sql.engines import close_engine
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import DatabaseFailed, HandlersBounded
from envoyou_core.reception import receiver
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_core.worker import heartbeat

PATIENCE = 20
SECRET = "whsec_test"


@pytest.mark.parametrize(("total", "handlers"), [(None, None), (2, 1), (RESERVED + 1, 1), (RESERVED + 3, 3)])
def test_handlers_leave_a_few_connections_free(total, handlers):
    assert ConnectionBudget(total).handlers == handlers


@pytest.mark.parametrize(
    ("limit", "workers", "others", "share"), [(20, 1, 0, 20), (20, 3, 1, 6), (8, 2, 0, 4), (3, 4, 9, 2), (20, 0, 0, 20)]
)
def test_the_limit_of_a_role_is_divided_among_the_workers(limit, workers, others, share):
    assert share_of_limit(limit, workers=workers, others=others) == share


def test_the_smaller_of_pool_and_share_counts():
    budget = ConnectionBudget(RESERVED + 6)
    budget.limit_to(RESERVED + 2)
    assert (budget.total, budget.handlers) == (RESERVED + 2, 2)
    budget.limit_to(RESERVED + 20)
    assert (budget.total, budget.handlers) == (RESERVED + 6, 6)


@pytest.fixture
def limited_role_url(postgres_inbox_url):
    """The URL of the inbox's database for a role that may open a few connections."""
    url = make_url(postgres_inbox_url)
    role = f"envoyou_few_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres_inbox_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'test' CONNECTION LIMIT {RESERVED + 3}"))
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        connection.execute(text(f'GRANT ALL ON SCHEMA "{schema}" TO {role}'))
        connection.execute(text(f'GRANT ALL ON ALL TABLES IN SCHEMA "{schema}" TO {role}'))
    yield url.set(username=role, password="test").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
        connection.execute(text(f"DROP ROLE {role}"))
    close_engine(engine)


def test_handlers_leave_free_what_a_role_may_open_besides(limited_role_url, until, monkeypatch):
    monkeypatch.setattr(heartbeat, "FIRST_BEAT", 0)
    webhooks = Webhooks(secret=SECRET, inbox=limited_role_url, concurrency=8)
    notices = []
    webhooks.subscribe(notices.append)

    @webhooks.on("*", name="writes")
    def writes(event, connection):
        pass

    webhooks.start()
    try:
        until(lambda: any(isinstance(notice, HandlersBounded) for notice in notices))
        assert webhooks.inbox.connection_limit() == RESERVED + 3
        assert webhooks.inbox.connection_budget.handlers == 3
    finally:
        webhooks.stop()
        webhooks.inbox.close()
    assert [notice for notice in notices if isinstance(notice, HandlersBounded)] == [
        HandlersBounded("default", 3, RESERVED + 3)
    ]


def test_a_pool_of_one_connection_is_refused(postgres_inbox_url):
    engine = create_engine(postgres_inbox_url, pool_size=1, max_overflow=0)
    with pytest.raises(ConfigurationError, match="at least 2 connections, got 1"):
        SqlInbox(engine)
    close_engine(engine)


@pytest.fixture
def small_pool(postgres_inbox_url):
    """An inbox over an engine of the application whose pool has room for two handlers, and gives up at once."""
    engine = create_engine(
        postgres_inbox_url, pool_size=2, max_overflow=RESERVED, pool_timeout=0.01, hide_parameters=True
    )
    inbox = SqlInbox(engine)
    yield inbox
    inbox.close()
    close_engine(engine)


def test_acceptance_and_settlements_go_on_while_all_handlers_hold_a_connection(small_pool, until):
    webhooks = Webhooks(secret=SECRET, inbox=small_pool, concurrency=8)
    notices, running, most = [], [], []
    webhooks.subscribe(notices.append)
    release = threading.Event()

    @webhooks.on("*", name="waits")
    def waits(event, connection):
        running.append(event.id)
        most.append(len(running))
        release.wait(PATIENCE)
        running.remove(event.id)

    events = [sample_event() for _ in range(6)]
    for event in events:
        small_pool.add(NewEvent(event)).result(PATIENCE)
    webhooks.start()
    try:
        until(lambda: len(running) == 2)
        assert small_pool.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
        release.set()
        until(lambda: small_pool.stats().by_status[Status.PROCESSED] == len(events) + 1)
    finally:
        release.set()
        webhooks.stop()
    assert max(most) == 2
    assert [notice for notice in notices if isinstance(notice, HandlersBounded)] == [HandlersBounded("default", 2, 6)]
    assert not any(isinstance(notice, DatabaseFailed) for notice in notices)


def test_a_503_because_of_an_exhausted_pool_names_the_pool(postgres_inbox_url, monkeypatch, caplog):
    monkeypatch.setattr(receiver, "ANSWER_BUDGET", 0.05)
    engine = create_engine(postgres_inbox_url, pool_size=2, max_overflow=0, pool_timeout=PATIENCE)
    inbox = SqlInbox(engine)
    webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual")
    delivery = sign_delivery(sample_event(), secret=SECRET)
    with engine.connect(), engine.connect():
        response = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert response.status == 503
    assert "all 2 connections of its pool are in use" in caplog.text
    inbox.close()
    close_engine(engine)
