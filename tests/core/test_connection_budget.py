"""Handlers leave connections of a bounded pool to acceptance and to settlements."""

import threading

import pytest
from sqlalchemy import create_engine

from envoyou_core import ConfigurationError, WebhookRequest, Webhooks
from envoyou_core.inbox import Added, NewEvent, Status
from envoyou_core.inbox.connection_budget import RESERVED, ConnectionBudget
from envoyou_core.inbox.sql.engines import close_engine
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import DatabaseFailed, HandlersBounded
from envoyou_core.reception import receiver
from envoyou_core.testing import sample_event, sign_delivery

PATIENCE = 20
SECRET = "whsec_test"


@pytest.mark.parametrize(("total", "handlers"), [(None, None), (2, 1), (RESERVED + 1, 1), (RESERVED + 3, 3)])
def test_handlers_leave_a_few_connections_free(total, handlers):
    assert ConnectionBudget(total).handlers == handlers


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
