"""In a process that serves, events that arrive at the same time share a commit; in a test's transaction none does."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import DataError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import AsyncClient, Client, TestCase, override_settings

from envoyou_core import WebhookRequest
from envoyou_core.inbox import Added, NewEvent, Settlement, Status, insert_statement
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.inbox import insert as insertion
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.inbox.insert import insert_new
from envoyou_django.models import ProcessedEvent
from envoyou_django.signals import event_received
from tests.django.conftest import SECRET
from tests.django.databases import empty, inbox_on

PATH = "/webhooks/envoyou"
PATIENCE = 20
WRITER = "envoyou-inbox-writer"


def request_for(event):
    delivery = sign_delivery(event, secret=SECRET)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


@pytest.fixture
def inbox(inbox_alias):
    inbox = OrmInbox()
    inbox.shares_commits = True
    yield inbox
    inbox.close()


@contextmanager
def held_up(inbox, monkeypatch):
    """The writer waits before its first commit until the block ends; yields the batches it has stored."""
    batches, begun, may_go_on = [], threading.Event(), threading.Event()
    store = inbox._store

    def noted(entries):
        if threading.current_thread().name == WRITER:
            begun.set()
            assert may_go_on.wait(PATIENCE)
            batches.append([entry.event.id for entry in entries])
        return store(entries)

    monkeypatch.setattr(inbox, "_store", noted)
    first = inbox.add(NewEvent(sample_event(id="evt_first")))
    assert begun.wait(PATIENCE)
    yield batches
    may_go_on.set()
    assert first.result(PATIENCE) is Added.NEW


def dead(inbox, event):
    inbox.add(NewEvent(event)).result(PATIENCE)
    [claim] = inbox.claim(1, 60)
    assert inbox.settle(claim, Settlement(Status.DEAD, attempts=3))


def test_what_arrives_during_a_commit_shares_the_next(inbox, monkeypatch):
    ids = ["evt_1", "evt_known", "evt_2", "evt_1", "evt_dead", "evt_dead"]
    events = {event_id: sample_event(id=event_id) for event_id in ids}
    dead(inbox, events["evt_dead"])
    inbox.add(NewEvent(events["evt_known"])).result(PATIENCE)
    with held_up(inbox, monkeypatch) as batches:
        added = [inbox.add(NewEvent(events[event_id])) for event_id in ids]
    assert [one.result(PATIENCE).value for one in added] == [
        "new",
        "duplicate",
        "new",
        "duplicate",
        "rearmed",
        "duplicate",
    ]
    assert batches == [["evt_first"], ids]
    assert inbox.get("evt_dead").status == "received"
    assert inbox.stats().total == 5


def test_an_event_that_the_database_refuses_fails_alone(inbox, monkeypatch):
    refused = sample_event(id="evt_refused")

    def insert(rows, using):
        if any(row["event_id"] == "evt_refused" for row in rows):
            raise DataError("out of range")
        return insert_new(rows, using)

    monkeypatch.setattr("envoyou_django.inbox.inbox.insert_new", insert)
    with held_up(inbox, monkeypatch):
        one, bad, other = (inbox.add(NewEvent(event)) for event in (sample_event(), refused, sample_event()))
    assert [one.result(PATIENCE), other.result(PATIENCE)] == [Added.NEW, Added.NEW]
    assert isinstance(bad.exception(PATIENCE), DataError)
    assert inbox.get("evt_refused") is None


def test_a_database_that_is_away_is_not_asked_for_each(inbox, monkeypatch):
    asked = []

    def insert(rows, using):
        asked.append(len(rows))
        if len(rows) > 1:
            raise OperationalError("gone away")
        return insert_new(rows, using)

    monkeypatch.setattr("envoyou_django.inbox.inbox.insert_new", insert)
    with held_up(inbox, monkeypatch):
        added = [inbox.add(NewEvent(sample_event())) for _ in range(3)]
    assert [type(one.exception(PATIENCE)) for one in added] == [OperationalError] * 3
    assert asked == [1, 3]
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW


def test_as_many_rows_as_one_statement_can_hold(inbox, monkeypatch):
    statements = []
    insert = insertion._insert

    def noted(rows, using):
        statements.append(len(rows))
        return insert(rows, using)

    monkeypatch.setattr(insertion, "_insert", noted)
    monkeypatch.setattr(insert_statement, "MAX_STATEMENT_SIZE", 1500)
    with held_up(inbox, monkeypatch) as batches:
        sizes = [100, 2000, 100, 100]
        added = [inbox.add(NewEvent(sample_event(object={"notes": "n" * size}))) for size in sizes]
    assert [one.result(PATIENCE) for one in added] == [Added.NEW] * 4
    assert len(batches) == 2
    assert sum(statements[1:]) == 4
    assert len(statements[1:]) > 1
    assert inbox.stats().total == 5


@pytest.fixture
def inbox_on_server(server_alias, django_db_blocker):
    with django_db_blocker.unblock(), inbox_on(server_alias):
        empty(server_alias)
        inbox = OrmInbox()
        inbox.shares_commits = True
        yield inbox
        inbox.close()
        empty(server_alias)


def test_the_writer_gets_over_a_connection_that_was_broken(server_alias, inbox_on_server, monkeypatch):
    """However long connections are kept, and though nobody has asked for health checks."""
    monkeypatch.setitem(connections.settings[server_alias], "CONN_MAX_AGE", None)
    inbox = inbox_on_server
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    end_connections_of_others(server_alias)
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW


def end_connections_of_others(alias):
    with connections[alias].cursor() as cursor:
        if connections[alias].vendor == "postgresql":
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone()[0] > 0
            return
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()")
        others = [row[0] for row in cursor.fetchall()]
        assert others
        for other in others:
            cursor.execute(f"KILL {int(other)}")


@pytest.fixture
def opened(monkeypatch):
    """The connections that the writer has opened."""
    found = []
    connect = BaseDatabaseWrapper.connect

    def noted(self):
        connect(self)
        if threading.current_thread().name == WRITER:
            found.append(self)

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", noted)
    return found


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_its_connection_is_closed_when_there_is_nothing_to_store(inbox, opened):
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    until(lambda: opened and all(each.connection is None for each in opened))


def test_its_connection_is_kept_for_its_age(inbox, inbox_alias, opened, monkeypatch):
    monkeypatch.setitem(connections.settings[inbox_alias], "CONN_MAX_AGE", 600)
    for _ in range(5):
        assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    assert len(opened) == 1
    inbox.close()
    until(lambda: opened[0].connection is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_writer_of_its_own(inbox, inbox_alias, monkeypatch):
    monkeypatch.setitem(connections.settings[inbox_alias], "CONN_MAX_AGE", None)
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    child = os.fork()
    if child == 0:
        try:
            added = inbox.add(NewEvent(sample_event())).result(PATIENCE)
        finally:
            os._exit(0 if added is Added.NEW else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # Its end has not taken its parent's connection with it.
    assert inbox.add(NewEvent(sample_event())).result(PATIENCE) is Added.NEW
    assert inbox.stats().total == 3


def test_while_events_are_stored_no_thread_waits(inbox_alias, monkeypatch):
    """More of them than there are threads to wait in."""
    count = 100
    monkeypatch.setattr("envoyou_core.reception.receiver.ANSWER_BUDGET", PATIENCE)
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}):
        webhooks.ensure_worker()

        async def receive_all():
            before = threading.active_count()
            with held_up(webhooks.inbox, monkeypatch):
                receiving = [asyncio.create_task(webhooks.areceive(request_for(sample_event()))) for _ in range(count)]
                waiting = webhooks.inbox._writer._queue
                await asyncio.to_thread(until, lambda: waiting.qsize() >= count)
                threads = threading.active_count() - before
            return threads, {(await one).status for one in receiving}

        threads, answers = asyncio.run(asyncio.wait_for(receive_all(), PATIENCE))
        assert answers == {200}
        # The writer, the one above, and the one in which it is asked whether a test has a transaction open.
        assert threads <= 4
        assert webhooks.inbox.stats().total == count + 1


def test_a_signal_of_what_came_to_the_loop_may_use_the_orm(inbox_alias):
    seen = []

    def note(sender, event_id, **_):
        seen.append((event_id, ProcessedEvent.objects.using(inbox_alias).filter(event_id=event_id).count()))

    event = sample_event()
    event_received.connect(note)
    try:
        with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}):
            webhooks.ensure_worker()
            assert asyncio.run(webhooks.areceive(request_for(event))).status == 200
            until(lambda: seen)
    finally:
        event_received.disconnect(note)
    assert seen == [(event.id, 1)]


@pytest.mark.parametrize("kind", ["receive", "areceive"])
def test_who_cannot_be_stored_in_time_is_told_so(inbox_alias, monkeypatch, kind):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual"}):
        webhooks.ensure_worker()
        with held_up(webhooks.inbox, monkeypatch):
            monkeypatch.setattr("envoyou_core.reception.receiver.ANSWER_BUDGET", 0.2)
            if kind == "receive":
                answer = webhooks.receive(request_for(sample_event()))
            else:
                answer = asyncio.run(webhooks.areceive(request_for(sample_event())))
        assert answer.status == 503
        monkeypatch.setattr("envoyou_core.reception.receiver.ANSWER_BUDGET", PATIENCE)
        # Who was answered so is not stored, for it comes again.
        assert webhooks.receive(request_for(sample_event())).status == 200
        assert webhooks.inbox.stats().total == 2


def test_with_a_transaction_open_nothing_is_accepted_though_the_process_serves(inbox, inbox_alias):
    with transaction.atomic(using=inbox_alias):
        assert isinstance(inbox.add(NewEvent(sample_event())).exception(PATIENCE), RuntimeError)
    transaction.set_autocommit(False, using=inbox_alias)
    try:
        assert isinstance(inbox.add(NewEvent(sample_event())).exception(PATIENCE), RuntimeError)
        transaction.rollback(using=inbox_alias)
    finally:
        transaction.set_autocommit(True, using=inbox_alias)


@pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared"])
def test_a_database_in_memory_is_of_the_thread_that_asks(monkeypatch, name):
    inbox = OrmInbox()
    inbox.shares_commits = True
    assert inbox.adds_together()
    monkeypatch.setitem(connections.settings["default"], "NAME", name)
    assert not inbox.adds_together()


def post_async(event):
    delivery = sign_delivery(event, secret=SECRET)
    headers = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
    return AsyncClient().post(PATH, delivery.body, content_type="application/json", headers=headers)


class InATransaction(TestCase):
    """A user's tests, in a process that has served before."""

    def setUp(self):
        webhooks.inbox.shares_commits = True
        self.addCleanup(setattr, webhooks.inbox, "shares_commits", False)

    def test_a_delivery_is_part_of_it(self):
        delivery = sign_delivery(sample_event(), secret=SECRET)
        headers = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
        for urls in ("tests.django.urls", "tests.django.async_urls"):
            with override_settings(ROOT_URLCONF=urls):
                answer = Client().post(PATH, delivery.body, content_type="application/json", headers=headers)
                assert answer.status_code == 200
        assert ProcessedEvent.objects.count() == 1

    async def test_so_is_one_to_the_async_view(self):
        with override_settings(ROOT_URLCONF="tests.django.async_urls"):
            assert (await post_async(sample_event())).status_code == 200
        assert await ProcessedEvent.objects.acount() == 1

    def tearDown(self):
        # Another connection sees nothing of it.
        def count():
            try:
                return ProcessedEvent.objects.count()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as elsewhere:
            assert elsewhere.submit(count).result(PATIENCE) == 0
