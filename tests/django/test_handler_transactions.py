"""Handlers whose ORM work is committed together with the record of their success, so exactly once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, OperationalError, connections, models, transaction
from django.test import TestCase, override_settings

from envoyou_core import ConfigurationError, PermanentError, WebhookRequest
from envoyou_core.inbox import HandlerStatus, NewEvent, Status
from envoyou_core.observability import HandlerFailed
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.databases import in_a_thread, inbox_on, sqlite_database
from tests.django.members.models import Member

PATIENCE = 20.0
LEASE = 60.0


@pytest.fixture
def members(inbox_alias):
    """The names of the members in the inbox's database, read over a second connection."""
    exists = Member._meta.db_table in connections[inbox_alias].introspection.table_names()
    if not exists:
        with connections[inbox_alias].schema_editor() as editor:
            editor.create_model(Member)
    with ThreadPoolExecutor(1) as pool:

        def names():
            read = in_a_thread(pool, lambda: sorted(Member.objects.using(inbox_alias).values_list("name", flat=True)))
            return read.result(PATIENCE)

        yield names
    Member.objects.using(inbox_alias).all().delete()
    if not exists:
        with connections[inbox_alias].schema_editor() as editor:
            editor.delete_model(Member)


@pytest.fixture
def join(inbox_alias):
    return lambda name: Member.objects.using(inbox_alias).create(name=name)


@pytest.fixture
def project(clock):
    """Replaces the fixture of conftest.py; the clock is set by hand."""
    settings = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock, "RETRY_INITIAL_DELAY": 1, "HANDOFF": "manual"}
    with inbox_on("default"), override_settings(ENVOYOU=settings):
        yield


def accept(type="shop.opened"):
    event = sample_event(type)
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    return event


def record(event):
    return webhooks.inbox.get(event.id)


@pytest.fixture
def read_elsewhere(inbox_alias):
    """Reads an event's record over a second connection."""

    def read(event):
        with ThreadPoolExecutor(1) as pool:
            return in_a_thread(pool, lambda: record(event)).result(PATIENCE)

    return read


def test_the_handlers_work_its_record_and_the_events_status_are_committed_together(members, join, read_elsewhere):
    observed = []

    @webhooks.on("shop.opened", name="first")
    def first(event):
        join("Ada")
        observed.append((members(), dict(read_elsewhere(event).progress)))

    @webhooks.on("shop.opened", name="last")
    def last(event):
        join("Grace")
        observed.append((members(), dict(read_elsewhere(event).progress)))

    event = accept()
    assert webhooks.drain() == 1
    assert observed == [([], {}), (["Ada"], {"first": HandlerStatus.DONE})]
    assert members() == ["Ada", "Grace"]
    assert record(event).status is Status.PROCESSED


def test_a_handler_may_call_the_inbox(members, join, clock):
    """Its calls are part of its transaction, so none waits for a lock that the transaction holds."""
    seen = []

    @webhooks.on("user.deleted", name="forget")
    def forget(event, attempt):
        join(f"attempt {attempt}")
        webhooks.pause(type="auth.*")
        seen.append((webhooks.inbox.erase(event.object_id), webhooks.inbox.requeue(status="ignored"), webhooks.paused))
        webhooks.inbox.scrub(timedelta(0))
        webhooks.inbox.prune(timedelta(0))
        webhooks.resume(type="auth.*")
        if attempt == 1:
            raise RuntimeError("not yet")

    created, deleted = accept("user.created"), accept("user.deleted")
    assert created.object_id == deleted.object_id
    webhooks.drain()
    assert (record(deleted).status, record(deleted).last_error) == (Status.FAILED, "RuntimeError: not yet")
    assert record(created).event.data.object == created.data.object
    clock.advance(1)
    webhooks.drain()
    assert seen == [(2, 0, frozenset({"type:auth.*"}))] * 2
    assert members() == ["attempt 2"]
    assert (record(deleted).status, record(deleted).event.data.object) == (Status.PROCESSED, {})
    assert record(created) is None


def test_the_work_of_a_failing_handler_is_rolled_back_and_done_once_by_the_retry(members, join, clock):
    @webhooks.on("shop.opened", name="flaky")
    def flaky(event, attempt):
        join(f"flaky {attempt}")
        if attempt == 1:
            raise ValueError("not yet")

    @webhooks.on("shop.opened", name="steady")
    def steady(event):
        join("steady")

    event = accept()
    webhooks.drain()
    assert members() == ["steady"]
    assert record(event).status is Status.FAILED
    clock.advance(1)
    webhooks.drain()
    assert members() == ["flaky 2", "steady"]
    assert record(event).status is Status.PROCESSED


def test_a_constraint_violation_fails_the_attempt_and_is_rolled_back(members, join, inbox_alias):
    @webhooks.on("shop.opened", name="twice")
    def twice(event):
        member = join("Ada")
        Member.objects.using(inbox_alias).create(id=member.id, name="Ada again")

    event = accept()
    webhooks.drain()
    assert members() == []
    assert (record(event).status, record(event).attempts) == (Status.FAILED, 1)
    assert record(event).last_error.startswith("IntegrityError")


class Card(models.Model):
    """Belongs to a member; the foreign key is checked at the commit."""

    member = models.ForeignKey(Member, models.CASCADE)

    class Meta:
        app_label = "in_no_app"


@pytest.fixture
def cards(members, inbox_alias):
    with connections[inbox_alias].schema_editor() as editor:
        editor.create_model(Card)
    yield Card.objects.using(inbox_alias)
    with connections[inbox_alias].schema_editor() as editor:
        editor.delete_model(Card)


@pytest.mark.parametrize("inbox_alias", ["sqlite", "postgresql"], indirect=True)
def test_a_constraint_violation_at_the_commit_fails_the_attempt_and_is_rolled_back(members, join, cards):
    @webhooks.on("shop.opened", name="without member")
    def without_member(event):
        join("Ada")
        cards.create(member_id=0)

    event = accept()
    webhooks.drain()
    assert members() == []
    assert not cards.exists()
    assert (record(event).status, record(event).attempts) == (Status.FAILED, 1)
    assert record(event).last_error.startswith("IntegrityError")


def test_a_handler_that_catches_a_violation_fails_if_the_transaction_is_broken(members, join, inbox_alias):
    """The handler continues after the violation, without an `atomic()` of its own around it."""

    @webhooks.on("shop.opened", name="careless")
    def careless(event):
        member = join("Ada")
        try:
            Member.objects.using(inbox_alias).create(id=member.id, name="Ada again")
        except IntegrityError:
            transaction.set_rollback(True, using=inbox_alias)

    event = accept()
    webhooks.drain()
    assert members() == []
    assert record(event).status is Status.FAILED


def test_a_handler_can_continue_after_a_violation_in_its_own_savepoint(members, join, inbox_alias):
    @webhooks.on("shop.opened", name="careful")
    def careful(event):
        member = join("Ada")
        with pytest.raises(IntegrityError), transaction.atomic(using=inbox_alias):
            Member.objects.using(inbox_alias).create(id=member.id, name="Ada again")
        join("Grace")

    event = accept()
    webhooks.drain()
    assert members() == ["Ada", "Grace"]
    assert record(event).status is Status.PROCESSED


def test_a_permanent_error_rolls_back_only_its_own_handler(members, join):
    @webhooks.on("shop.opened", name="hopeless")
    def hopeless(event):
        join("hopeless")
        raise PermanentError("never")

    @webhooks.on("shop.opened", name="steady")
    def steady(event):
        join("steady")

    event = accept()
    webhooks.drain()
    assert members() == ["steady"]
    assert record(event).status is Status.DEAD
    assert record(event).progress == {"hopeless": HandlerStatus.GIVEN_UP, "steady": HandlerStatus.DONE}


def test_a_handler_that_is_not_atomic_keeps_its_work_if_it_fails(members, join, inbox_alias):
    inside = []

    @webhooks.on("shop.opened", name="plain", atomic=False)
    def plain(event, attempt):
        inside.append(connections[inbox_alias].in_atomic_block)
        join(f"plain {attempt}")
        raise ValueError("too late")

    event = accept()
    webhooks.drain()
    assert inside == [False]
    assert members() == ["plain 1"]
    assert record(event).status is Status.FAILED


def test_an_async_handler_is_not_atomic(members, inbox_alias):
    inside = []

    @webhooks.on("shop.opened", name="asynchronous")
    async def asynchronous(event):
        inside.append(await sync_to_async(lambda: connections[inbox_alias].in_atomic_block)())
        await Member.objects.using(inbox_alias).acreate(name="Ada")
        raise ValueError("too late")

    event = accept()
    webhooks.drain()
    assert inside == [False]
    assert members() == ["Ada"]
    assert record(event).status is Status.FAILED


def test_an_async_handler_cannot_be_declared_atomic():
    with pytest.raises(ConfigurationError, match="cannot be atomic"):

        @webhooks.on("shop.opened", atomic=True)
        async def asynchronous(event): ...


def test_on_commit_callbacks_run_after_the_event_is_settled(members, join, inbox_alias, read_elsewhere):
    observed = []

    @webhooks.on("shop.opened", name="one")
    def one(event):
        join("Ada")
        transaction.on_commit(lambda: observed.append((members(), read_elsewhere(event).status)), using=inbox_alias)

    accept()
    webhooks.drain()
    assert observed == [(["Ada"], Status.PROCESSED)]


def test_on_commit_callbacks_of_a_failed_handler_never_run(join, members, inbox_alias):
    called = []

    @webhooks.on("shop.opened", name="one")
    def one(event):
        transaction.on_commit(lambda: called.append(event.id), using=inbox_alias)
        raise ValueError("no")

    accept()
    webhooks.drain()
    assert called == []


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), DatabaseError("no")], ids=repr)
def test_a_failing_on_commit_callback_is_logged_and_does_not_repeat_the_work(
    members, join, inbox_alias, clock, caplog, error
):
    """The handler's work is committed: as a failure of the handler, it would be done again."""

    def fail():
        raise error

    @webhooks.on("shop.opened", name="notifies")
    def notifies(event):
        join("Ada")
        transaction.on_commit(fail, using=inbox_alias)

    @webhooks.on("shop.opened", name="flaky")
    def flaky(event, attempt):
        transaction.on_commit(fail, using=inbox_alias)
        if attempt == 1:
            raise ValueError("not yet")
        join("Grace")

    event = accept()
    webhooks.drain()
    assert record(event).progress == {"notifies": HandlerStatus.DONE}
    clock.advance(1)
    webhooks.drain()
    assert members() == ["Ada", "Grace"]
    assert record(event).status is Status.PROCESSED
    assert caplog.text.count("an on_commit callback failed") == 2


def test_a_commit_whose_response_was_lost_is_not_repeated(members, join, inbox_alias, clock, monkeypatch):
    connection = connections[inbox_alias]
    commit, lost = connection._commit, []

    def commit_and_lose_the_response():
        commit()
        if joined and not lost:
            lost.append("response")
            raise OperationalError("the connection was lost")

    joined = []
    monkeypatch.setattr(connection, "_commit", commit_and_lose_the_response)

    @webhooks.on("shop.opened", name="joins")
    def joins(event):
        joined.append(join("Ada"))

    @webhooks.on("shop.opened", name="flaky")
    def flaky(event, attempt):
        if attempt == 1:
            raise ValueError("not yet")

    event = accept()
    webhooks.drain()
    clock.advance(1)
    webhooks.drain()
    assert lost == ["response"]
    assert members() == ["Ada"]
    assert record(event).status is Status.PROCESSED


def test_inside_an_open_transaction_each_handler_has_a_savepoint(members, join, inbox_alias):
    """As in a project's `TestCase`, on any database."""

    @webhooks.on("shop.opened", name="twice")
    def twice(event):
        member = join("Ada")
        Member.objects.using(inbox_alias).create(id=member.id, name="Ada again")

    @webhooks.on("shop.opened", name="once")
    def once(event):
        join("Grace")

    event = accept()
    with transaction.atomic(using=inbox_alias):
        assert webhooks.drain() == 1
        assert members() == []
        assert [member.name for member in Member.objects.using(inbox_alias).all()] == ["Grace"]
    assert members() == ["Grace"]
    assert record(event).progress == {"once": HandlerStatus.DONE}


@pytest.mark.parametrize("inbox_alias", ["postgresql", "mariadb"], indirect=True)
def test_the_events_row_is_not_locked_while_the_handler_runs(members, join):
    """Another thread must be able to renew the lease meanwhile."""
    event = accept()
    inbox = webhooks.inbox
    (claim,) = inbox.claim(1, LEASE)
    with ThreadPoolExecutor(1) as pool, inbox.transaction(claim, {"one": HandlerStatus.DONE}):
        join("Ada")
        in_a_thread(pool, lambda: inbox.renew([claim], 2 * LEASE)).result(PATIENCE)
    assert record(event).progress == {"one": HandlerStatus.DONE}
    assert members() == ["Ada"]


@pytest.mark.parametrize("inbox_alias", ["postgresql"], indirect=True)
def test_a_connection_closed_by_the_server_costs_no_attempt(members, join, inbox_alias):
    with connections[inbox_alias].cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()

        def end():
            with connections[inbox_alias].cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        event = accept()
        (claim,) = webhooks.inbox.claim(1, LEASE)
        in_a_thread(pool, end).result(PATIENCE)
        with webhooks.inbox.transaction(claim, {"one": HandlerStatus.DONE}):
            join("Ada")
    assert record(event).progress == {"one": HandlerStatus.DONE}
    assert members() == ["Ada"]


# SQLite, which allows one writer at a time


@pytest.fixture(params=["WAL", "DELETE"])
def busy_sqlite(request, tmp_path, django_db_blocker, monkeypatch):
    """A new database with the inbox in each journal mode, for a worker in this process."""
    options = {"init_command": f"PRAGMA journal_mode={request.param}", "timeout": PATIENCE}
    monkeypatch.setitem(connections.settings["contract"], "OPTIONS", options)
    settings = {"WEBHOOK_SECRET": SECRET, "RETRY_MAX_ATTEMPTS": 1}
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "project.db"),
        inbox_on("contract"),
        override_settings(ENVOYOU=settings),
    ):
        yield "contract"
        webhooks.stop()


def deliver(event):
    delivery = sign_delivery(event, secret=SECRET)
    return webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body)).status


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def test_events_are_accepted_while_a_handler_sleeps_in_its_transaction(busy_sqlite):
    started, release = threading.Event(), threading.Event()
    refused = []

    @webhooks.on("shop.opened")
    def sleeps(event):
        Member.objects.using(busy_sqlite).create(name="before")
        started.set()
        release.wait(3 * PATIENCE)
        try:
            Member.objects.using(busy_sqlite).create(name="after")
        except DatabaseError as error:
            refused.append(error)

    webhooks.start()
    slow = sample_event("shop.opened")
    assert deliver(slow) == 200
    assert started.wait(PATIENCE)
    webhooks.on("shop.closed", name="next")(lambda event: Member.objects.using(busy_sqlite).create(name="next"))
    try:
        # One while the handler holds the lock, and one after the time limit took it away; both are handled meanwhile.
        for other in (sample_event("shop.closed"), sample_event("shop.closed")):
            assert deliver(other) == 200
            wait_until(lambda event=other: record(event).status is Status.PROCESSED)
    finally:
        release.set()
    wait_until(lambda: record(slow).status is Status.DEAD)
    assert "rolled back" in record(slow).last_error
    assert len(refused) == 1
    assert set(Member.objects.using(busy_sqlite).values_list("name", flat=True)) == {"next"}
    # The connection whose transaction was rolled back works again.
    after = sample_event("shop.closed")
    assert deliver(after) == 200
    wait_until(lambda: record(after).status is Status.PROCESSED)


def test_a_slow_on_commit_callback_blocks_no_other_handler(busy_sqlite):
    done = threading.Event()
    observed = []

    @webhooks.on("shop.opened")
    def notifies(event):
        transaction.on_commit(lambda: observed.append(done.wait(PATIENCE)), using=busy_sqlite)

    webhooks.on("shop.closed", name="next")(lambda event: transaction.on_commit(done.set, using=busy_sqlite))
    webhooks.start()
    assert deliver(sample_event("shop.opened")) == 200
    assert deliver(sample_event("shop.closed")) == 200
    wait_until(lambda: observed == [True])


def test_a_handler_that_reads_first_waits_for_another_writer(busy_sqlite):
    """In a transaction as Django begins it by default, the first write would fail at once."""
    event = sample_event("shop.opened")
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    (claim,) = webhooks.inbox.claim(1, LEASE)

    def write_between():
        Member.objects.using(busy_sqlite).create(name="between")

    with ThreadPoolExecutor(1) as pool:
        with webhooks.inbox.transaction(claim, {"one": HandlerStatus.DONE}):
            assert Member.objects.using(busy_sqlite).count() == 0
            between = in_a_thread(pool, write_between)
            time.sleep(0.1)
            Member.objects.using(busy_sqlite).create(name="ours")
        between.result(PATIENCE)
    assert list(Member.objects.using(busy_sqlite).values_list("name", flat=True)) == ["ours", "between"]


# In a test of a project


class InAProjectsTestCase(TestCase):
    def test_a_handler_that_violates_a_constraint_fails_alone(self):
        failed = []

        @webhooks.on("shop.opened", name="twice")
        def twice(event):
            Member.objects.create(id=1, name="Ada")
            Member.objects.create(id=1, name="Ada")

        @webhooks.on("shop.opened", name="once")
        def once(event):
            Member.objects.create(name="Grace")

        webhooks.subscribe(lambda notice: failed.append(notice) if isinstance(notice, HandlerFailed) else None)
        event = accept()
        assert webhooks.drain() == 1
        assert [notice.handler for notice in failed] == ["twice"]
        assert record(event).status is Status.FAILED
        assert Member.objects.get().name == "Grace"

    def test_only_the_handlers_on_commit_callbacks_are_captured(self):
        called = []

        @webhooks.on("shop.opened", name="notifies")
        def notifies(event):
            transaction.on_commit(lambda: called.append(event.id))

        event = accept()
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            webhooks.drain()
        assert called == [event.id]
        assert len(callbacks) == 1

    def test_a_slow_handler_exceeds_no_time_limit(self):
        """The whole test is one transaction, which holds the lock in any case."""
        webhooks.on("shop.opened", name="slow")(lambda event: time.sleep(1.2))
        event = accept()
        webhooks.drain()
        assert record(event).status is Status.PROCESSED
