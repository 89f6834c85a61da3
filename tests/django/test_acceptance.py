"""A 200 in Django: the event is committed, once, in a transaction of its own."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event

import pytest
from django.db import OperationalError, connections, transaction
from django.test import Client, TestCase, override_settings

from envoyou_core import WebhookRequest
from envoyou_core.inbox import Added, NewEvent
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.inbox.commits import LOCK_TIMEOUT
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from tests.django.conftest import SECRET
from tests.django.members.models import Member

PATH = "/webhooks/envoyou"
THREADS = 8


def post(client, event):
    delivery = sign_delivery(event, secret=SECRET)
    return client.post(PATH, delivery.body, content_type="application/json", headers=delivery.headers)


def request_for(event):
    delivery = sign_delivery(event, secret=SECRET)
    return WebhookRequest.from_http("POST", delivery.headers, delivery.body)


def all_at_once(function):
    """Call the function in several threads, each with its own connection."""
    barrier = Barrier(THREADS)

    def call(number):
        try:
            barrier.wait(20)
            return function(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(call, range(THREADS)))


def test_one_of_many_concurrent_deliveries_is_new(inbox_alias):
    for _ in range(5):
        event = sample_event()
        added = all_at_once(lambda _, event=event: OrmInbox().add(NewEvent(event)).result())
        assert sorted(one.value for one in added) == ["duplicate"] * (THREADS - 1) + ["new"]
        event = sample_event()
        answers = all_at_once(lambda _, event=event: post(Client(), event).json())
        assert answers.count({"received": True}) == 1
        assert answers.count({"received": True, "duplicate": True}) == THREADS - 1
    assert ProcessedEvent.objects.using(inbox_alias).count() == 10


@pytest.mark.parametrize("before", [False, True], ids=["closed", "open"])
def test_opening_the_inbox_does_not_change_the_connection(inbox_alias, before):
    connection = connections[inbox_alias]
    connection.close()
    if before:
        connection.ensure_connection()
    OrmInbox().open()
    assert (connection.connection is not None) == before


def test_an_open_transaction_is_never_joined(inbox_alias):
    """A rollback would undo an event that was answered 200."""
    event = sample_event()
    with transaction.atomic(using=inbox_alias):
        assert webhooks.receive(request_for(event)).status == 503
    assert webhooks.inbox.get(event.id) is None
    assert webhooks.receive(request_for(event)).status == 200


def test_without_autocommit_nothing_is_accepted(inbox_alias):
    transaction.set_autocommit(False, using=inbox_alias)
    try:
        assert webhooks.receive(request_for(sample_event())).status == 503
        transaction.rollback(using=inbox_alias)
    finally:
        transaction.set_autocommit(True, using=inbox_alias)
    assert webhooks.inbox.stats().total == 0


def test_the_view_is_committed_when_it_answers(inbox_alias):
    """ATOMIC_REQUESTS is on for both databases."""
    assert connections.settings[inbox_alias]["ATOMIC_REQUESTS"]
    event = sample_event()
    assert post(Client(), event).status_code == 200
    seen = all_at_once(lambda _: webhooks.inbox.stats().total)
    assert seen == [1] * THREADS


def test_waiting_for_a_lock_ends_before_the_sender_gives_up(inbox_alias, monkeypatch):
    """Whatever lock timeout the project or the server has."""
    monkeypatch.setattr("envoyou_django.inbox.commits.LOCK_TIMEOUT", 1.0)
    held, over = Event(), Event()
    event = sample_event()

    def hold():
        try:
            with transaction.atomic(using=inbox_alias):
                OrmInbox()._rows.create(
                    name="default",
                    tenant="",
                    event_id=event.id,
                    type=event.type,
                    created=0,
                    body=event.body,
                    attempts=0,
                    crashes=0,
                    progress={},
                    received_at=datetime.now(UTC),
                )
                held.set()
                over.wait(20)
                transaction.set_rollback(True, using=inbox_alias)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        try:
            assert held.wait(20)
            with pytest.raises(OperationalError):
                OrmInbox().add(NewEvent(event)).result()
            assert not holding.done()
        finally:
            over.set()
        holding.result(20)
    assert OrmInbox().add(NewEvent(event)).result() is Added.NEW


@pytest.mark.parametrize(
    ("inbox_alias", "question", "limit"),
    [
        ("sqlite", "PRAGMA busy_timeout", LOCK_TIMEOUT * 1000),
        ("mariadb", "SELECT @@innodb_lock_wait_timeout", LOCK_TIMEOUT),
    ],
    indirect=["inbox_alias"],
)
def test_the_lock_timeout_of_the_project_is_restored(inbox_alias, question, limit):
    def waiting_time():
        with connections[inbox_alias].cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchone()[0]

    usual = waiting_time()
    assert usual > limit
    assert OrmInbox().add(NewEvent(sample_event())).result() is Added.NEW
    assert waiting_time() == usual


class AUsersTestCase(TestCase):
    """A test as a user would write it."""

    def test_handlers_run_within_the_transaction_of_the_test(self):
        event = sample_event("member.joined", object={"name": "Ada"})
        assert post(self.client, event).json() == {"received": True}
        assert post(self.client, event).json() == {"received": True, "duplicate": True}
        assert not Member.objects.exists()
        assert webhooks.drain() == 1
        assert Member.objects.get().name == "Ada"
        assert ProcessedEvent.objects.get().status == "processed"

    # The second of the two sees that the first left nothing behind.
    test_nothing_is_left_of_it = test_handlers_run_within_the_transaction_of_the_test

    def test_a_duplicate_does_not_spoil_the_transaction(self):
        event = sample_event()
        with transaction.atomic():
            Member.objects.create(name="Grace")
        assert [post(self.client, event).status_code for _ in range(3)] == [200] * 3
        assert Member.objects.count() == 1

    def test_retries_can_be_waited_for(self):
        attempts = []

        @webhooks.on("shop.failing")
        def fail_once(event, attempt):
            attempts.append(attempt)
            if attempt == 1:
                raise OSError

        with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "RETRY_INITIAL_DELAY": 0}):
            post(self.client, sample_event("shop.failing"))
            assert webhooks.drain(until_idle=True) == 2
        assert attempts == [1, 2]

    def test_a_handler_that_breaks_the_transaction_does_not_affect_others(self):
        @webhooks.on("shop.breaking")
        def store_twice(event):
            with transaction.atomic():
                Member.objects.create(id=1, name="Ada")
                Member.objects.create(id=1, name="Ada")

        post(self.client, event := sample_event("shop.breaking"))
        assert webhooks.drain() == 1
        record = webhooks.inbox.get(event.id)
        assert record.status == "failed"
        assert record.last_error.startswith("IntegrityError")


@pytest.mark.parametrize(("usual", "while_stored"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_on_sqlite_an_acceptance_reaches_the_disk_whatever_the_project_has_set(
    django_db_setup, django_db_blocker, usual, while_stored
):
    seen = []

    def look(execute, sql, params, many, context):
        if sql.startswith(("INSERT", "UPDATE")):
            seen.append((sql.split()[0], synchronous()))
        return execute(sql, params, many, context)

    def synchronous():
        return connections["default"].connection.execute("PRAGMA synchronous").fetchone()[0]

    with django_db_blocker.unblock():
        connections["default"].ensure_connection()
        try:
            connections["default"].connection.execute(f"PRAGMA synchronous = {usual}")
            entry = NewEvent(sample_event())
            with connections["default"].execute_wrapper(look):
                assert OrmInbox().add(entry).result() is Added.NEW
            assert seen == [("INSERT", while_stored)]
            ProcessedEvent.objects.mark_dead()
            with connections["default"].execute_wrapper(look):
                assert OrmInbox().add(entry).result() is Added.REARMED
            assert seen[1] == ("INSERT", while_stored)
            assert set(seen[2:]) == {("UPDATE", while_stored)}
            assert synchronous() == usual
        finally:
            connections.close_all()
            ProcessedEvent.objects.all().delete()
