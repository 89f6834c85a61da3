"""An outage that is longer than a lease: what live processes hold costs neither a crash nor an attempt."""

import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import event as engine_event
from sqlalchemy.exc import OperationalError

from envoyou_core import RetryPolicy, Webhooks
from envoyou_core.inbox import HandlerStatus, NewEvent, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.observability import LeaseLost, WorkerFailed
from envoyou_core.testing import sample_event
from envoyou_core.worker import backoff, leases
from tests.core.conftest import pause_until
from tests.core.test_engine import App, TransactionalInbox

PATIENCE = 20
LEASE = 60
ONCE = RetryPolicy(max_attempts=1)


def lost():
    return OperationalError("SELECT 1", {}, Exception("the connection was lost"), connection_invalidated=True)


class Site:
    """A process of its own, as far as the inbox can tell, which can be cut off from the database."""

    def __init__(self, url, clock, **settings):
        self.inbox = SqlInbox(url, clock=clock)
        self.webhooks = Webhooks(secret="s", inbox=self.inbox, clock=clock, lease=LEASE, retry=ONCE, **settings)
        self.notices, self.runs, self.refusals, self.polls = [], [], 0, 0
        self.release = threading.Event()
        self.is_cut_off = False
        self.webhooks.subscribe(self.notices.append)
        self.webhooks.on("*", name="h")(self.handle)
        engine_event.listen(self.inbox._engine, "checkout", self.refuse)
        look = self.inbox.seconds_until_due
        self.inbox.seconds_until_due = lambda *args, **kwargs: (look(*args, **kwargs), self.note_poll())[0]

    def handle(self, event):
        self.runs.append(event.id)
        assert self.release.wait(PATIENCE)

    def refuse(self, *_):
        if self.is_cut_off:
            self.refusals += 1
            raise lost()

    def note_poll(self):
        self.polls += 1

    def notices_of(self, kind):
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def record(self):
        return self.inbox.get("evt_1")

    def accept(self):
        self.inbox.add(NewEvent(sample_event("user.created", id="evt_1"))).result(PATIENCE)

    def begin(self):
        """Start a worker whose handler runs until it is released."""
        self.webhooks.start()
        pause_until(lambda: self.runs)

    def wait_until_refused(self):
        refusals = self.refusals
        pause_until(lambda: self.refusals >= refusals + 3)

    def wait_until_polled(self):
        """Wait until the worker has asked what is due, and claimed it."""
        polls = self.polls
        pause_until(lambda: self.polls >= polls + 2)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def make_site(request, clock, monkeypatch):
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "emptied_postgres_url")
    # A worker that fails tries again soon.
    monkeypatch.setattr(backoff, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(backoff, "MAX_RETRY", 0.05)
    sites = []

    def make(**settings):
        sites.append(Site(url, clock, **settings))
        return sites[-1]

    yield make
    for site in sites:
        site.is_cut_off = False
        site.release.set()
        site.webhooks.stop()
        site.inbox.close()


@pytest.fixture
def without_renewals(monkeypatch):
    """No regular renewal: what a worker does before it claims must be enough."""
    monkeypatch.setattr(leases, "RENEWALS", 1e-3)


@contextmanager
def outage(clock, *sites):
    """Cut processes off for longer than a lease."""
    for site in sites:
        site.is_cut_off = True
    for site in sites:
        site.wait_until_refused()
    clock.advance(2 * LEASE)
    for site in sites:
        site.wait_until_refused()
    yield
    for site in sites:
        site.is_cut_off = False


def test_a_worker_does_not_take_over_what_it_holds_itself(make_site, clock, without_renewals):
    site = make_site()
    site.accept()
    site.begin()
    with outage(clock, site):
        pass
    site.wait_until_polled()
    site.release.set()
    pause_until(lambda: site.record().status is Status.PROCESSED)
    assert (site.runs, site.record().crashes, site.record().attempts) == (["evt_1"], 0, 1)


@pytest.mark.parametrize("make_site", ["sqlite"], indirect=True)
def test_nor_if_only_its_renewals_were_late(make_site, clock, without_renewals):
    """As after a jump of the clock."""
    site = make_site()
    site.accept()
    site.begin()
    clock.advance(2 * LEASE)
    site.wait_until_polled()
    site.release.set()
    pause_until(lambda: site.record().status is Status.PROCESSED)
    assert (site.runs, site.record().crashes) == (["evt_1"], 0)


def test_a_worker_that_was_cut_off_too_leaves_events_to_those_that_hold_them(make_site, clock, without_renewals):
    holder, other = make_site(), make_site()
    holder.accept()
    holder.begin()
    other.webhooks.start()
    other.wait_until_polled()
    with outage(clock, holder, other):
        # The handler ends during the outage.
        holder.release.set()
        other.is_cut_off = False
        other.wait_until_polled()
    pause_until(lambda: holder.record().status is Status.PROCESSED)
    assert (holder.runs, other.runs, holder.record().crashes) == (["evt_1"], [], 0)


def test_what_a_dead_process_held_is_taken_over_after_the_outage_and_counts(make_site, clock):
    other = make_site()
    other.release.set()
    other.accept()
    other.inbox.claim(1, LEASE)
    other.webhooks.start()
    with outage(clock, other):
        pass
    other.wait_until_polled()
    assert (other.runs, other.record().crashes) == ([], 0)
    clock.advance(LEASE / 3)
    pause_until(lambda: other.record().status is Status.PROCESSED)
    assert (other.runs, other.record().crashes) == (["evt_1"], 1)


def test_a_process_that_was_cut_off_alone_takes_the_crash_back(make_site, clock, without_renewals):
    holder, other = make_site(), make_site()
    holder.accept()
    holder.begin()
    with outage(clock, holder):
        other.release.set()
        other.webhooks.start()
        pause_until(lambda: other.record().status is Status.PROCESSED)
        assert other.record().crashes == 1
    holder.release.set()
    pause_until(lambda: other.record().crashes == 0)
    pause_until(lambda: holder.notices_of(LeaseLost))
    assert (other.record().status, other.record().attempts) == (Status.PROCESSED, 1)


# What could not be stored


class FailingInbox(MemoryInbox):
    """An inbox whose database fails in the named methods."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.failing = set()

    def fail(self, method):
        if method in self.failing:
            raise lost()

    def settle(self, claim, settlement):
        self.fail("settle")
        return super().settle(claim, settlement)

    def settle_all(self, settlements):
        self.fail("settle")
        return super().settle_all(settlements)

    def record(self, claim, progress):
        self.fail("record")
        return super().record(claim, progress)


@pytest.mark.parametrize("method", ["settle", "record"])
def test_a_worker_settles_however_long_the_outage_was(clock, monkeypatch, method):
    # The next retry would come after the end of the lease.
    monkeypatch.setattr(backoff, "FIRST_RETRY", 1.5)
    monkeypatch.setattr(backoff, "MAX_RETRY", 0.01)
    inbox = FailingInbox(clock=clock)
    webhooks = Webhooks(secret="s", inbox=inbox, clock=clock, lease=1, retry=ONCE)
    notices, runs = [], []
    webhooks.subscribe(notices.append)
    for name in ("first", "second"):
        webhooks.on("*", name=name)(lambda event, name=name: runs.append(name))
    inbox.failing.add(method)
    inbox.add(NewEvent(sample_event("user.created", id="evt_1"))).result(PATIENCE)
    webhooks.start()
    try:
        pause_until(lambda: len([notice for notice in notices if isinstance(notice, WorkerFailed)]) >= 3)
        clock.advance(LEASE)
        inbox.failing.clear()
        pause_until(lambda: inbox.get("evt_1").status is Status.PROCESSED)
    finally:
        webhooks.stop()
    assert (runs, inbox.get("evt_1").crashes) == (["first", "second"], 0)


@pytest.mark.parametrize("way", ["drain", "adrain"])
@pytest.mark.parametrize("method", ["settle", "record"])
def test_what_a_drain_could_not_store_is_stored_by_the_next_one(clock, monkeypatch, way, method):
    # A retry would come after the end of the lease.
    monkeypatch.setattr(backoff, "FIRST_RETRY", 2.0)
    app = App(way, clock, inbox=FailingInbox(clock=clock), retry=ONCE, lease=1)
    runs = []
    for name in ("first", "second"):
        app.on("*", name=name)(lambda event, name=name: runs.append(name))
    app.add()
    app.inbox.failing.add(method)
    for _ in range(2 if method == "settle" else 1):
        with pytest.raises(OperationalError):
            app.work()
    clock.advance(LEASE)
    app.inbox.failing.clear()
    app.work()
    assert (runs, app.status()) == (["first", "second"], Status.PROCESSED)
    assert (app.record().crashes, app.record().attempts) == (0, 1)


def test_a_drain_retries_a_settlement_for_as_long_as_its_lease(clock, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_RETRY", 0.01)
    app = App("drain", clock, inbox=FailingInbox(clock=clock))
    settle, failures = app.inbox.settle_all, iter([True, True])

    def fail_twice(settlements):
        if next(failures, False):
            raise lost()
        return settle(settlements)

    monkeypatch.setattr(app.inbox, "settle_all", fail_twice)
    runs = []
    app.on("*")(lambda event: runs.append(event.id))
    app.add()
    assert app.work() == 1
    assert (runs, app.status()) == (["evt_1"], Status.PROCESSED)


def test_a_drain_keeps_nothing_of_a_commit_that_may_have_succeeded(clock):
    """The event must not be returned over the record of a handler that has committed."""

    class CommitsWithoutAnswer(TransactionalInbox):
        is_down = True

        @contextmanager
        def transaction(self, claim, progress, settlement=None):
            yield object()
            assert self.record(claim, progress)
            raise lost()

        def get(self, event_id, *, tenant=None):
            if self.is_down:
                raise lost()
            return super().get(event_id, tenant=tenant)

    app = App("drain", clock, inbox=CommitsWithoutAnswer(clock=clock))
    runs = []

    @app.on("*", name="shares")
    def shares(event, connection):
        runs.append(event.id)

    app.add()
    with pytest.raises(OperationalError):
        app.work()
    app.inbox.is_down = False
    clock.advance(LEASE)
    app.work()
    assert (runs, app.status(), app.record().progress) == (["evt_1"], Status.PROCESSED, {"shares": HandlerStatus.DONE})
