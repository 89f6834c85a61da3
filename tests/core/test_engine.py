"""One attempt at one event, run by `drain`, by `adrain`, or by a worker in a thread or on a loop."""

import asyncio
import contextlib
import contextvars
import threading
import time
from datetime import datetime
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from envoyou_core import (
    ConfigurationError,
    Handlers,
    HandlerTimeoutError,
    PermanentError,
    Retention,
    RetryLater,
    RetryPolicy,
    Webhooks,
)
from envoyou_core.errors import LeaseLostError
from envoyou_core.inbox import HandlerStatus, NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import HandlerFailed, HandlerOverdue, HandlerSkipped, LeaseLost, Settled
from envoyou_core.steps import CallHandler, run
from envoyou_core.testing import sample_event
from envoyou_core.worker import drain as drain_module
from tests.core.conftest import pause_until

PATIENCE = 20
AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0)


class App:
    """A `Webhooks` with an inbox in memory, and one way to run its handlers."""

    def __init__(self, way, clock, retry=None, inbox=None, **settings):
        self.way = way
        self.clock = clock
        self.inbox = inbox or MemoryInbox(clock=clock)
        self.webhooks = Webhooks(
            secret="s", inbox=self.inbox, handoff="auto" if "worker" in way else "manual", retry=retry, **settings
        )
        self.notices = []
        self.webhooks.subscribe(self.notices.append)

    def on(self, *types, **options):
        return self.webhooks.on(*types, **options)

    def add(self, id="evt_1", type="user.created", *, created=None, object=None, **details):
        event = sample_event(type, id=id, created=created, object=object)
        return self.inbox.add(NewEvent(event, **details)).result(PATIENCE)

    def work(self):
        """Handle due events until none is left; returns how many attempts were settled."""
        before = len(self.settled())
        if self.way == "drain":
            assert self.webhooks.drain() == len(self.settled()) - before
        elif self.way == "adrain":
            assert asyncio.run(self.webhooks.adrain()) == len(self.settled()) - before
        elif self.way == "worker in a thread":
            self.webhooks.start()
            try:
                pause_until(self.is_idle)
            finally:
                self.webhooks.stop()
        else:
            asyncio.run(self.work_on_a_loop())
        return len(self.settled()) - before

    async def work_on_a_loop(self):
        async with self.webhooks.lifespan(), asyncio.timeout(PATIENCE):
            while not self.is_idle():  # noqa: ASYNC110 - other threads bring it about
                await asyncio.sleep(0.005)

    def is_idle(self):
        # An attempt that begins or ends between two questions would make either answer wrong: ask until nothing moved.
        before = self.progress()
        until_due = self.inbox.seconds_until_due()
        if before != self.progress() or Status.PROCESSING in {status for _, status, _ in before}:
            return False
        return until_due is None or until_due > 0

    def progress(self):
        return [(record.event.id, record.status, record.attempts) for record in self.inbox.list()]

    def settled(self):
        return self.notices_of(Settled)

    def notices_of(self, kind):
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def record(self, id="evt_1"):
        return self.inbox.get(id)

    def status(self, id="evt_1"):
        return self.record(id).status


WAYS = ["drain", "adrain", "worker in a thread", "worker on a loop"]


@pytest.fixture(params=WAYS)
def make_app(request, clock):
    def make(**settings):
        return App(request.param, clock, **settings)

    return make


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture(params=["sync", "async"])
def kind(request):
    """Turns a plain function into a sync or an async handler."""

    def make(function):
        if request.param == "sync":
            return function

        async def handler(event, attempt, delivery):
            await asyncio.sleep(0)
            return function(event, attempt, delivery)

        return handler

    return make


def fail_until(succeeds, calls):
    def handler(event, attempt, delivery):
        calls.append(attempt)
        if attempt < succeeds:
            raise ValueError(f"attempt {attempt}")

    return handler


# What becomes of an event


def test_a_handler_that_returns_has_processed_the_event(app, kind):
    seen = []
    app.on("user.*", name="h")(kind(lambda event, attempt, delivery: seen.append(event)))
    app.add()
    assert app.work() == 1
    assert [event.id for event in seen] == ["evt_1"]
    record = app.record()
    assert (record.status, record.attempts, record.last_error) == (Status.PROCESSED, 1, None)
    assert dict(record.progress) == {"h": HandlerStatus.DONE}
    assert app.work() == 0


def test_return_value_of_a_handler_is_ignored(app):
    app.on("*")(lambda event: object())
    app.add()
    app.work()
    assert app.status() is Status.PROCESSED


def test_event_without_handlers_is_ignored(app):
    app.on("user.deleted")(lambda event: None)
    app.add()
    assert app.work() == 1
    record = app.record()
    assert (record.status, record.attempts) == (Status.IGNORED, 0)


def test_handlers_run_in_the_order_of_registration(app):
    order = []
    names = [f"handler {number}" for number in (7, 3, 9, 1, 8, 2, 6, 4, 5, 0)]
    for name in names:
        app.on("*", name=name)(lambda event, name=name: order.append(name))
    for number in range(3):
        app.add(f"evt_{number}")
        app.work()
    assert order == names * 3


def test_sync_and_async_handlers_of_one_event_run_in_order(app):
    order = []

    @app.on("*")
    def first(event):
        order.append("first")

    @app.on("*")
    async def second(event):
        await asyncio.sleep(0.001)
        order.append("second")

    @app.on("*")
    def third(event):
        order.append("third")

    app.add()
    app.work()
    assert order == ["first", "second", "third"]


def test_failed_event_is_retried_by_the_default_policy_and_then_dead(app, kind):
    calls = []
    app.on("*", name="h")(kind(fail_until(99, calls)))
    app.add()
    for attempt, delay in ((1, 2.0), (2, 4.0)):
        assert app.work() == 1
        record = app.record()
        assert (record.status, record.attempts) == (Status.FAILED, attempt)
        assert record.next_attempt_at == app.clock.moment(delay)
        assert record.last_error == f"ValueError: attempt {attempt}"
        app.clock.advance(delay - 0.001)
        assert app.work() == 0
        app.clock.advance(0.001)
    assert app.work() == 1
    record = app.record()
    assert (record.status, record.attempts, record.last_error) == (Status.DEAD, 3, "ValueError: attempt 3")
    assert calls == [1, 2, 3]
    app.clock.advance(1e6)
    assert app.work() == 0


def test_a_later_attempt_that_succeeds_has_processed_the_event(make_app, kind):
    app = make_app(retry=AT_ONCE)
    calls = []
    app.on("*", name="h")(kind(fail_until(3, calls)))
    app.add()
    assert app.work() == 3
    assert calls == [1, 2, 3]
    record = app.record()
    assert (record.status, record.attempts, record.last_error) == (Status.PROCESSED, 3, None)


def test_a_retry_runs_only_what_has_not_succeeded(make_app, kind):
    app = make_app(retry=AT_ONCE)
    calls = []
    app.on("*", name="before")(lambda event: calls.append("before"))
    app.on("*", name="fails twice")(kind(fail_until(3, calls)))
    app.on("*", name="after")(lambda event: calls.append("after"))
    app.add()
    app.work()
    assert calls == ["before", 1, "after", 2, 3]
    assert app.status() is Status.PROCESSED
    assert set(app.record().progress) == {"before", "fails twice", "after"}


def test_all_handlers_run_and_each_failure_is_named(app):
    for name, error in (("a", ValueError("one")), ("b", KeyError("two")), ("c", None)):

        def handler(event, error=error):
            if error:
                raise error

        app.on("*", name=name)(handler)
    app.add()
    app.work()
    assert app.record().last_error == "ValueError: one; KeyError: 'two'"
    failed = [notice for notice in app.notices if isinstance(notice, HandlerFailed)]
    assert [(notice.handler, notice.attempt, type(notice.error)) for notice in failed] == [
        ("a", 1, ValueError),
        ("b", 1, KeyError),
    ]
    assert dict(app.record().progress) == {"c": HandlerStatus.DONE}


def test_a_policy_of_one_attempt_is_dead_at_once(make_app):
    app = make_app(retry=RetryPolicy(max_attempts=1))
    app.on("*")(lambda event: 1 / 0)
    app.add()
    app.work()
    assert app.status() is Status.DEAD


def test_notice_of_a_settled_attempt_is_complete(app):
    app.on("*")(lambda event: 1 / 0)
    app.add()
    app.work()
    [notice] = app.settled()
    assert (notice.event_id, notice.event_type, notice.status) == ("evt_1", "user.created", Status.FAILED)
    assert (notice.attempt, notice.retry_in) == (1, 2.0)
    assert notice.error == "ZeroDivisionError: division by zero"
    assert 0 <= notice.seconds < PATIENCE


# Errors that instruct


def test_a_permanent_error_is_dead_without_further_attempts(app, kind):
    calls = []

    def handler(event, attempt, delivery):
        calls.append(attempt)
        raise PermanentError("no such user")

    app.on("*", name="h")(kind(handler))
    app.add()
    app.work()
    record = app.record()
    assert (record.status, record.attempts, record.last_error) == (Status.DEAD, 1, "PermanentError: no such user")
    assert dict(record.progress) == {"h": HandlerStatus.GIVEN_UP}
    assert calls == [1]


def test_permanent_error_of_one_handler_does_not_stop_the_others(make_app):
    app = make_app(retry=AT_ONCE)
    calls = []

    @app.on("*")
    def gives_up(event):
        calls.append("gives up")
        raise PermanentError

    app.on("*", name="h")(lambda event, attempt: fail_until(3, calls)(event, attempt, None))
    app.add()
    app.work()
    assert calls == ["gives up", 1, 2, 3]
    record = app.record()
    assert record.status is Status.DEAD
    assert set(record.progress.values()) == {HandlerStatus.DONE, HandlerStatus.GIVEN_UP}


def test_requeued_a_given_up_handler_runs_again_and_a_done_one_does_not(app):
    calls = []
    broken = [True]

    @app.on("*", name="mended")
    def mended(event):
        calls.append("mended")
        if broken:
            raise PermanentError

    app.on("*", name="done")(lambda event: calls.append("done"))
    app.add()
    app.work()
    assert app.status() is Status.DEAD
    broken.clear()
    assert app.inbox.requeue("evt_1") == 1
    app.work()
    assert calls == ["mended", "done", "mended"]
    assert app.status() is Status.PROCESSED


def test_retry_later_sets_the_delay_and_uses_up_an_attempt(app, kind):
    def handler(event, attempt, delivery):
        raise RetryLater(60)

    app.on("*", name="h")(kind(handler))
    app.add()
    app.work()
    record = app.record()
    assert (record.status, record.attempts, record.next_attempt_at) == (Status.FAILED, 1, app.clock.moment(60))
    for _ in range(2):
        app.clock.advance(60)
        app.work()
    assert (app.status(), app.record().attempts) == (Status.DEAD, 3)


@pytest.mark.parametrize(
    ("errors", "delay"),
    [
        ([RetryLater(0)], 0),
        ([RetryLater(0.5)], 0.5),
        ([RetryLater(1), ValueError()], 2.0),
        ([RetryLater(10), RetryLater(30), ValueError()], 30),
        ([PermanentError(), RetryLater(7)], 7),
        ([PermanentError(), ValueError()], 2.0),
    ],
)
def test_longest_delay_of_several_failures_applies(clock, errors, delay):
    app = App("drain", clock, retry=RetryPolicy(max_attempts=9))
    for number, error in enumerate(errors):

        def handler(event, attempt, error=error):
            if attempt == 1:
                raise error

        app.on("*", name=f"h{number}")(handler)
    app.add()
    claim = app.inbox.claim(1, 60)[0]
    engine = app.webhooks._engine
    attempt = engine.new_attempt(claim)
    run(engine.run_handlers(attempt))
    assert (attempt.settlement.status, attempt.settlement.retry_in) == (Status.FAILED, delay)


# Errors that a test wants to see


@pytest.fixture(params=["drain", "adrain"])
def raising(request, clock):
    """An app whose handlers' exceptions are raised when its events are handled."""
    app = App(request.param, clock, retry=RetryPolicy(max_attempts=2, initial_delay=0))

    def work():
        if request.param == "drain":
            return app.webhooks.drain(raise_errors=True)
        return asyncio.run(app.webhooks.adrain(raise_errors=True))

    app.work = work
    return app


def test_an_exception_of_a_handler_is_raised_once_its_attempt_is_settled(raising, kind):
    def fail(event, attempt, delivery):
        raise KeyError("email")

    called = []
    raising.on("*", name="fails")(kind(fail))
    raising.on("*", name="succeeds")(lambda event: called.append(event.id))
    raising.add("evt_1")
    raising.add("evt_2")
    with pytest.raises(KeyError, match="email"):
        raising.work()
    assert called == ["evt_1"]
    assert (raising.status(), raising.record().attempts, raising.record("evt_2").attempts) == (Status.FAILED, 1, 0)


def test_exceptions_of_several_handlers_are_raised_as_a_group(raising):
    for name, error in (("a", ValueError()), ("b", KeyError())):

        def handler(event, error=error):
            raise error

        raising.on("*", name=name)(handler)
    raising.add()
    with pytest.raises(ExceptionGroup, match="several handlers failed for event evt_1") as raised:
        raising.work()
    assert [type(error) for error in raised.value.exceptions] == [ValueError, KeyError]


def test_retry_later_is_raised_only_if_no_attempt_is_left(raising, kind):
    def later(event, attempt, delivery):
        raise RetryLater(60)

    raising.on("*", name="h")(kind(later))
    raising.add()
    assert raising.work() == 1
    raising.clock.advance(60)
    with pytest.raises(RetryLater):
        raising.work()
    assert raising.status() is Status.DEAD


def test_without_failures_nothing_is_raised(raising):
    raising.on("*")(lambda event: None)
    raising.add()
    assert raising.work() == 1


# What a handler gets


def test_attempt_and_delivery_are_passed_to_handlers_with_these_parameters(make_app):
    app = make_app(retry=AT_ONCE)
    seen = []

    @app.on("*")
    def named(event, *, delivery, attempt):
        seen.append((attempt, delivery.tenant, delivery.webhook_id, delivery.received_at))
        if attempt < 2:
            raise ValueError

    received_at = app.clock.moment()
    app.add(tenant="acme", webhook_id="wh_1")
    app.work()
    assert seen == [(1, "acme", "wh_1", received_at), (2, "acme", "wh_1", received_at)]
    assert isinstance(received_at, datetime)


def test_handlers_from_a_registry_are_called_too(app):
    handlers = Handlers()
    seen = []
    handlers.on("*", name="h")(lambda event: seen.append(event.id))
    app.webhooks.include(handlers)
    app.add()
    app.work()
    assert seen == ["evt_1"]


# Handlers that leave in odd ways


@pytest.mark.parametrize("exit", [SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_an_exit_out_of_a_handler_is_a_failure_like_any_other(app, kind, exit):
    def handler(event, attempt, delivery):
        raise exit

    app.on("*", name="leaves")(kind(handler))
    app.on("*", name="stays")(lambda event: None)
    app.add()
    assert app.work() == 1
    record = app.record()
    assert (record.status, record.attempts) == (Status.FAILED, 1)
    assert record.last_error == f"RuntimeError: the handler raised {type(exit).__name__}"
    assert dict(record.progress) == {"stays": HandlerStatus.DONE}


def test_a_plain_function_that_returns_an_awaitable_has_failed(app):
    async def work(event):
        raise AssertionError("it ran")

    app.on("*", name="forgot async")(lambda event: work(event))
    app.add()
    app.work()
    assert app.status() is Status.FAILED
    assert "make it `async def`" in app.record().last_error


def test_awaitable_that_is_not_a_coroutine_is_detected(app):
    class Awaitable:
        def __await__(self):
            yield

    app.on("*", name="h")(lambda event: Awaitable())
    app.add()
    app.work()
    assert "make it `async def`" in app.record().last_error


# Crashes


def test_event_is_dead_after_too_many_crashes(make_app):
    app = make_app(retry=RetryPolicy(max_crashes=3))
    calls = []
    app.on("*", name="h")(lambda event: calls.append(event.id))
    app.add()
    for _ in range(3):
        assert len(app.inbox.claim(1, 60)) == 1
        app.clock.advance(60)
    assert app.work() == 1
    record = app.record()
    assert (record.status, record.attempts, record.crashes) == (Status.DEAD, 0, 3)
    assert "died 3 times" in record.last_error
    assert calls == []


def test_fewer_crashes_do_not_kill_a_healthy_event(make_app):
    app = make_app(retry=RetryPolicy(max_attempts=1, max_crashes=3))
    app.on("*", name="h")(lambda event: None)
    app.add()
    for _ in range(2):
        app.inbox.claim(1, 60)
        app.clock.advance(60)
    app.work()
    assert (app.status(), app.record().attempts, app.record().crashes) == (Status.PROCESSED, 1, 2)


def test_handlers_done_before_a_crash_do_not_run_again(app):
    calls = []
    app.on("*", name="first")(lambda event: calls.append("first"))
    app.on("*", name="second")(lambda event: calls.append("second"))
    app.add()
    [claim] = app.inbox.claim(1, 60)
    app.inbox.record(claim, {"first": HandlerStatus.DONE})
    app.clock.advance(60)
    app.work()
    assert calls == ["second"]
    assert app.status() is Status.PROCESSED


def test_each_success_is_recorded_before_the_next_handler_begins(app):
    seen = []
    app.on("*", name="first")(lambda event: None)
    app.on("*", name="second")(lambda event: seen.append(dict(app.record().progress)))
    app.on("*", name="third")(lambda event: seen.append(dict(app.record().progress)))
    app.add()
    app.work()
    assert seen == [{"first": HandlerStatus.DONE}, {"first": HandlerStatus.DONE, "second": HandlerStatus.DONE}]


def test_a_handler_that_gave_up_counts_even_if_this_process_does_not_have_it(app):
    app.on("*", name="present")(lambda event: None)
    app.add()
    [claim] = app.inbox.claim(1, 60)
    app.inbox.settle(claim, Settlement(Status.FAILED, 1, {"removed": HandlerStatus.GIVEN_UP}, 0.0, "no route"))
    app.work()
    assert (app.status(), app.record().last_error) == (Status.DEAD, "no route")


def test_lease_lost_during_the_attempt_is_reported_and_nothing_recorded(app):
    @app.on("*", name="slow")
    def slow(event):
        app.clock.advance(1000)
        [other] = app.inbox.claim(1, 60)
        app.inbox.settle(other, Settlement(Status.DEAD, 7))

    app.add()
    assert app.work() == 0
    assert [notice for notice in app.notices if isinstance(notice, LeaseLost)] == [LeaseLost("evt_1", "user.created")]
    assert (app.status(), app.record().attempts) == (Status.DEAD, 7)


# Order


def test_ordered_events_about_one_object_are_handled_as_they_were_created(app, kind):
    seen = []
    app.on("user.*", name="h", ordered=True)(kind(lambda event, attempt, delivery: seen.append(event.id)))
    for id, created in (("third", 30), ("first", 10), ("second", 20), ("second too", 20)):
        app.add(id, created=created)
    app.work()
    assert seen == ["first", "second", "second too", "third"]


def test_event_waiting_for_a_retry_holds_back_later_ones(clock):
    app = App("drain", clock)
    seen = []

    @app.on("user.*", name="h", ordered=True)
    def handler(event, attempt):
        seen.append((event.id, attempt))
        if (event.id, attempt) == ("first", 1):
            raise ValueError("not yet")

    app.add("first", created=10)
    app.add("second", created=20)
    app.add("of another", created=20, object={"id": "user_2"})
    assert app.work() == 2
    assert seen == [("first", 1), ("of another", 1)]
    app.clock.advance(2)
    app.work()
    assert seen[2:] == [("first", 2), ("second", 1)]


def test_events_that_no_ordered_handler_handles_are_not_held(clock):
    app = App("drain", clock)
    seen = []
    app.on("user.created", name="ordered", ordered=True)(lambda event: 1 / 0)
    app.on("user.updated", name="plain")(lambda event: seen.append(event.id))
    app.add("first", "user.created", created=10)
    app.add("second", "user.updated", created=20)
    app.work()
    assert seen == ["second"]


# What comes too late


def test_stale_event_is_skipped_only_by_handlers_with_stale_skip(app, kind):
    seen = []

    def note(name):
        return kind(lambda event, attempt, delivery: seen.append((name, event.id)))

    app.on("user.*", name="mirror", stale="skip")(note("mirror"))
    app.on("user.*", name="audit")(note("audit"))
    app.on("user.*", name="mirror too", stale="skip")(note("mirror too"))
    app.add("deleted", "user.deleted", created=20)
    app.work()
    seen.clear()
    app.add("late", "user.updated", created=19)
    app.work()
    assert seen == [("audit", "late")]
    record = app.record("late")
    assert (record.status, record.attempts) == (Status.PROCESSED, 1)
    assert record.progress == {
        "mirror": HandlerStatus.SKIPPED,
        "audit": HandlerStatus.DONE,
        "mirror too": HandlerStatus.SKIPPED,
    }
    assert app.notices_of(HandlerSkipped) == [
        HandlerSkipped("late", "user.updated", "mirror"),
        HandlerSkipped("late", "user.updated", "mirror too"),
    ]


@pytest.mark.parametrize(("created", "object"), [(20, None), (21, None), (5, {"id": "user_2"}), (5, {})])
def test_event_that_is_not_older_or_about_another_object_is_handled(clock, created, object):
    app = App("drain", clock)
    seen = []
    app.on("user.*", name="mirror", stale="skip")(lambda event: seen.append(event.id))
    app.add("newest", created=20)
    app.work()
    app.add("another", created=created, object=object)
    app.work()
    assert seen == ["newest", "another"]
    assert app.notices_of(HandlerSkipped) == []


def test_an_event_that_had_no_effect_makes_none_stale(clock):
    app = App("drain", clock, retry=RetryPolicy(max_attempts=1))
    seen = []

    @app.on("user.*", name="mirror", stale="skip")
    def mirror(event):
        seen.append(event.id)
        if event.id == "dead":
            raise ValueError("no")

    app.add("dead", created=20)
    app.work()
    assert app.status("dead") is Status.DEAD
    app.add("late", created=10)
    app.work()
    assert seen == ["dead", "late"]


def test_event_skipped_by_all_handlers_is_processed(app):
    app.on("user.*", name="mirror", stale="skip")(lambda event: None)
    app.add("newest", created=20)
    app.work()
    app.add("late", created=10)
    app.work()
    assert app.status("late") is Status.PROCESSED


def test_newest_applied_is_queried_at_most_once_in_an_attempt(clock):
    app = App("drain", clock)
    asked = []
    newest_applied = app.inbox.newest_applied
    app.inbox.newest_applied = lambda claim: (asked.append(claim.event.id), newest_applied(claim))[1]
    app.on("user.*", name="a", stale="skip")(lambda event: None)
    app.on("user.*", name="b", stale="skip")(lambda event: None)
    app.on("auth.*", name="c", ordered=True)(lambda event: None)
    app.add("user", "user.created")
    app.add("auth", "auth.login")
    app.work()
    assert asked == ["user"]


def test_retry_does_not_check_a_skipped_handler_again(make_app):
    app = make_app(retry=AT_ONCE)
    app.on("user.*", name="mirror", stale="skip")(lambda event: None)
    app.on("user.*", name="fails twice")(
        lambda event, attempt: fail_until(3, [])(event, attempt, None) if event.id == "late" else None
    )
    app.add("newest", created=20)
    app.work()
    app.add("late", created=10)
    app.work()
    assert (app.status("late"), app.record("late").attempts) == (Status.PROCESSED, 3)
    assert len(app.notices_of(HandlerSkipped)) == 1


def test_requeued_event_checks_a_skipped_handler_again(clock):
    app = App("drain", clock, retry=RetryPolicy(max_attempts=1))
    broken = [True]
    seen = []
    app.on("user.*", name="mirror", stale="skip")(lambda event: seen.append(event.id))
    app.on("user.*", name="breaks")(lambda event: 1 / 0 if broken and event.id == "late" else None)
    app.add("newest", created=20)
    app.work()
    app.add("late", created=10)
    app.work()
    assert app.status("late") is Status.DEAD
    broken.clear()
    app.inbox.requeue("late")
    app.work()
    assert (app.status("late"), seen) == (Status.PROCESSED, ["newest"])
    assert len(app.notices_of(HandlerSkipped)) == 2


# Time limits


def test_an_async_handler_past_its_time_limit_is_cancelled_and_has_failed(make_app):
    app = make_app(retry=AT_ONCE)
    ended, runs = [], []

    @app.on("*", name="slow", time_limit=0.3)
    async def slow(event, attempt):
        runs.append(attempt)
        try:
            await asyncio.sleep(PATIENCE if attempt < 3 else 0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    app.add()
    app.work()
    assert (runs, ended) == ([1, 2, 3], ["cancelled"] * 2)
    record = app.record()
    assert (record.status, record.attempts) == (Status.PROCESSED, 3)
    first = app.notices_of(HandlerFailed)[0]
    assert isinstance(first.error, HandlerTimeoutError)
    assert record.history[0].failures[0].error == "HandlerTimeoutError: cancelled after its time limit of 0.3 s"
    assert "asyncio.sleep" in record.history[0].failures[0].traceback


def test_timeout_raised_by_the_handler_is_not_reported_as_the_time_limit(app):
    @app.on("*", name="h", time_limit=PATIENCE)
    async def handler(event):
        raise TimeoutError("of the server")

    app.add()
    app.work()
    assert app.record().last_error == "TimeoutError: of the server"


def test_exception_of_an_async_handler_is_not_reported_as_a_timeout(app):
    @app.on("*", name="h", time_limit=PATIENCE)
    async def handler(event):
        raise asyncio.CancelledError

    app.add()
    app.work()
    assert app.record().last_error == "RuntimeError: the handler raised CancelledError"


def test_async_handler_within_its_time_limit_is_unaffected(app):
    @app.on("*", name="h", time_limit=PATIENCE)
    async def handler(event, attempt, *, delivery):
        await asyncio.sleep(0)

    app.add()
    app.work()
    assert app.status() is Status.PROCESSED


@pytest.mark.parametrize("way", ["drain", "adrain"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_drained_sync_handler_past_its_limit_is_reported_when_it_returns_and_counts(way, fails, clock):
    app = App(way, clock)
    release = threading.Event()

    @app.on("*", name="slow", time_limit=0.001)
    def slow(event):
        release.wait(0.02)
        assert app.notices_of(HandlerOverdue) == []
        if fails:
            raise ValueError("no")

    app.on("*", name="quick", time_limit=PATIENCE)(lambda event: None)
    app.add()
    app.work()
    assert app.notices_of(HandlerOverdue) == [HandlerOverdue("evt_1", "user.created", "slow", 0.001)]
    assert app.status() is (Status.FAILED if fails else Status.PROCESSED)


def test_step_of_a_sync_handler_names_its_handler_and_time_limit(clock):
    app = App("drain", clock)
    app.on("*", name="h", time_limit=7)(lambda event: None)
    app.add()
    [claim] = app.inbox.claim(1, 60)
    steps = []
    engine = app.webhooks._engine
    flow = engine.run_handlers(engine.new_attempt(claim))
    run(flow, call=lambda step: (steps.append(step), step.function())[1])
    [step] = [step for step in steps if isinstance(step, CallHandler)]
    assert (step.handler, step.event_id, step.event_type, step.time_limit) == ("h", "evt_1", "user.created", 7)


# History


def test_each_attempt_is_in_the_history_with_how_it_failed(make_app):
    app = make_app(retry=AT_ONCE)
    calls = []
    app.on("*", name="fails once")(lambda event, attempt: fail_until(2, calls)(event, attempt, None))

    @app.on("*", name="gives up")
    def gives_up(event):
        raise PermanentError("with password=hunter2")

    app.add()
    app.work()
    record = app.record()
    first, second = record.history
    assert [(failure.handler, failure.error) for failure in first.failures] == [
        ("fails once", "ValueError: attempt 1"),
        ("gives up", "PermanentError: with password=[redacted]"),
    ]
    assert all("Traceback (most recent call last)" in failure.traceback for failure in first.failures)
    assert "hunter2" not in str(record.history)
    assert (first.status, second.status, second.failures) == (Status.FAILED, Status.DEAD, ())
    assert record.last_traceback == first.failures[1].traceback


def test_last_error_contains_no_secrets(app):
    @app.on("*", name="h")
    def handler(event):
        raise ValueError(f"token=abc123 in {event.body.decode()}")

    app.add()
    app.work()
    assert app.record().last_error == "ValueError: token=[redacted] in [redacted]"
    assert app.settled()[0].error == app.record().last_error


def test_an_attempt_that_succeeded_is_in_the_history_with_its_time(app, kind):
    pause = 0.02
    app.on("*", name="h")(kind(lambda event, attempt, delivery: time.sleep(pause)))
    app.add()
    app.work()
    [attempt] = app.record().history
    assert (attempt.status, attempt.failures) == (Status.PROCESSED, ())
    assert pause <= attempt.seconds <= app.settled()[0].seconds
    assert attempt.ended_at == app.clock.moment()


def test_history_contains_attempts_only(make_app):
    app = make_app(retry=RetryPolicy(max_crashes=1))
    app.on("*", name="h")(lambda event: None)
    app.add("crashed")
    app.add("given back")
    [_, given_back] = app.inbox.claim(2, 60)
    app.webhooks._engine.return_to_inbox(given_back, {})
    assert app.record("given back").history == ()
    app.clock.advance(60)
    app.work()
    assert app.status("crashed") is Status.DEAD
    assert [attempt.status for attempt in app.record("crashed").history] == [None]
    assert [attempt.status for attempt in app.record("given back").history] == [Status.PROCESSED]


def test_an_ignored_event_has_no_history(app):
    app.on("auth.*", name="h")(lambda event: None)
    app.add()
    app.work()
    assert (app.status(), app.record().history) == (Status.IGNORED, ())


# Settling in the last handler's transaction


class TransactionalInbox(MemoryInbox):
    """Passes handlers a list as `connection`; its items are kept if the transaction commits."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.committed = []
        self.given = []
        self.settled_apart = []
        self.fails_at_the_end = None
        self.fails_after_commit = None

    @contextlib.contextmanager
    def transaction(self, claim, progress, settlement=None):
        written = []
        self.given.append(None)
        yield written
        self.given[-1] = settlement = settlement and settlement()
        if self.fails_at_the_end:
            raise self.fails_at_the_end
        held = self.record(claim, progress) if settlement is None else super().settle_all([(claim, settlement)])[0]
        if not held:
            raise LeaseLostError
        self.committed += written
        if self.fails_after_commit:
            raise self.fails_after_commit

    def settle_all(self, settlements):
        self.settled_apart += [settlement for _, settlement in settlements]
        return super().settle_all(settlements)


@pytest.fixture
def transactional(make_app, clock):
    return lambda **settings: make_app(inbox=TransactionalInbox(clock=clock), **settings)


def write(event, connection):
    connection.append(event.id)


def test_the_last_handler_that_shares_the_transaction_settles_in_it(transactional):
    app = transactional()
    app.on("*", name="before")(lambda event: None)
    app.on("*", name="earlier", stale="skip")(write)

    @app.on("*", name="last")
    def last(event, connection):
        time.sleep(0.02)
        write(event, connection)

    app.add()
    assert app.work() == 1
    assert app.inbox.committed == ["evt_1", "evt_1"]
    assert app.inbox.settled_apart == []
    earlier, settlement = app.inbox.given
    assert earlier is None
    done = dict.fromkeys(["before", "earlier", "last"], HandlerStatus.DONE)
    assert (settlement.status, settlement.attempts, settlement.progress) == (Status.PROCESSED, 1, done)
    record = app.record()
    assert (record.status, record.attempts, record.progress) == (Status.PROCESSED, 1, done)
    [attempt] = record.history
    assert (attempt.status, attempt.failures) == (Status.PROCESSED, ())
    assert 0.02 <= attempt.seconds <= app.settled()[0].seconds
    [notice] = app.settled()
    assert (notice.status, notice.attempt, notice.retry_in, notice.error) == (Status.PROCESSED, 1, None, None)


def test_atomic_handler_needs_no_connection_parameter(transactional):
    app = transactional()

    @app.on("*", name="first", atomic=True)
    def first(event):
        assert app.record().progress == {}

    @app.on("*", name="last", atomic=True)
    def last(event):
        assert app.record().progress == {"first": HandlerStatus.DONE}

    app.add()
    app.work()
    assert len(app.inbox.given) == 2
    assert app.inbox.settled_apart == []
    assert app.status() is Status.PROCESSED


def test_retry_of_only_the_transactional_handler_settles_in_its_transaction(transactional):
    app = transactional(retry=AT_ONCE)

    @app.on("*", name="last")
    def last(event, connection, attempt):
        write(event, connection)
        if attempt == 1:
            raise ValueError("not yet")

    app.add()
    assert app.work() == 2
    assert app.inbox.committed == ["evt_1"]
    assert [settlement.status for settlement in app.inbox.settled_apart] == [Status.FAILED]
    record = app.record()
    assert (record.status, record.attempts, len(record.history)) == (Status.PROCESSED, 2, 2)


@pytest.mark.parametrize("error", [ValueError("no"), PermanentError("no")], ids=repr)
def test_transaction_does_not_settle_if_an_earlier_handler_failed(transactional, error):
    app = transactional()

    @app.on("*", name="fails")
    def fails(event):
        raise error

    app.on("*", name="last")(write)
    app.add()
    app.work()
    assert app.inbox.given == [None]
    assert app.inbox.committed == ["evt_1"]
    assert app.status() is (Status.DEAD if isinstance(error, PermanentError) else Status.FAILED)
    assert app.record().progress["last"] is HandlerStatus.DONE


def test_transaction_does_not_settle_if_a_handler_was_given_up_in_an_earlier_attempt(transactional):
    app = transactional(retry=AT_ONCE)

    @app.on("*", name="gives up")
    def gives_up(event):
        raise PermanentError("no")

    @app.on("*", name="last")
    def last(event, connection, attempt):
        if attempt == 1:
            raise ValueError("not yet")

    app.add()
    app.work()
    assert app.inbox.given == [None, None]
    assert app.status() is Status.DEAD


def test_transaction_does_not_settle_if_another_handler_follows(transactional):
    app = transactional()
    app.on("*", name="shares")(write)
    app.on("*", name="last")(lambda event: None)
    app.add()
    app.work()
    assert app.inbox.given == [None]
    assert app.status() is Status.PROCESSED


def test_failed_transaction_settles_only_the_failure(transactional):
    app = transactional(retry=RetryPolicy(max_attempts=1))
    app.inbox.fails_at_the_end = OSError("the disk is full")
    app.on("*", name="last")(write)
    app.add()
    assert app.work() == 1
    record = app.record()
    assert (record.status, record.last_error, record.progress) == (Status.DEAD, "OSError: the disk is full", {})
    assert app.inbox.committed == []


@pytest.mark.parametrize("fails_before", [0, 1], ids=["the last one", "another follows"])
def test_commit_counts_even_if_its_answer_was_lost(transactional, fails_before):
    """If it counted as a failure, the work would be done again."""
    app = transactional(retry=AT_ONCE)
    app.inbox.fails_after_commit = OSError("the connection was lost")
    app.on("*", name="commits")(write)
    if fails_before:

        @app.on("*", name="flaky")
        def flaky(event, attempt):
            if attempt == 1:
                raise ValueError("not yet")

    app.add()
    assert app.work() == 1 + fails_before
    assert app.inbox.committed == ["evt_1"]
    assert app.status() is Status.PROCESSED
    assert [notice.status for notice in app.settled()] == [Status.FAILED] * fails_before + [Status.PROCESSED]


def test_transaction_settles_nothing_if_the_lease_was_lost(transactional):
    app = transactional()

    @app.on("*", name="last")
    def last(event, connection):
        write(event, connection)
        app.clock.advance(1000)
        [other] = app.inbox.claim(1, 60)
        MemoryInbox.settle(app.inbox, other, Settlement(Status.DEAD, 7))

    app.add()
    assert app.work() == 0
    assert app.inbox.committed == []
    assert app.notices_of(LeaseLost) == [LeaseLost("evt_1", "user.created")]
    assert (app.status(), app.record().attempts) == (Status.DEAD, 7)


def test_payloads_may_be_deleted_as_soon_as_they_are_processed(transactional):
    app = transactional(retention=Retention(scrub_processed=True))
    app.on("user.created", name="shares")(write)
    app.on("user.updated", name="plain")(lambda event: None)
    app.on("user.deleted", name="fails")(lambda event: 1 / 0)
    for type in ("user.created", "user.updated", "user.deleted", "auth.login"):
        app.add(type, type)
    app.work()
    scrubbed = {record.event.id: record.event.data.object == {} for record in app.inbox.list()}
    assert scrubbed == {"user.created": True, "user.updated": True, "user.deleted": False, "auth.login": False}


# Settling elsewhere


@pytest.mark.parametrize("held", [True, False])
def test_the_caller_settles_an_attempt_before_it_is_reported(clock, held):
    app = App("drain", clock)
    app.on("*", name="h")(lambda event: None)
    app.add()
    [claim] = app.inbox.claim(1, 60)
    engine = app.webhooks._engine
    attempt = engine.new_attempt(claim)
    run(engine.run_handlers(attempt))
    assert (attempt.settlement.status, attempt.is_settled) == (Status.PROCESSED, False)
    assert app.status() is Status.PROCESSING
    run(engine.report(attempt, held))
    assert [notice.status for notice in app.settled()] == ([Status.PROCESSED] if held else [])
    assert len(app.notices_of(LeaseLost)) == (not held)


def test_several_attempts_are_settled_in_one_call(clock):
    app = App("drain", clock)
    for number in range(3):
        app.add(f"evt_{number}")
    first, second, third = app.inbox.claim(3, 60)
    lost = Settlement(Status.DEAD, 1)
    app.inbox.settle(second, lost)
    engine = app.webhooks._engine
    settlements = [(claim, Settlement(Status.PROCESSED, 1)) for claim in (first, second, third)]
    assert engine.settle_all(settlements) == [True, False, True]
    assert app.status("evt_1") is Status.DEAD


# Limits


def test_claim_respects_the_limits_of_the_handlers(clock):
    app = App("drain", clock)
    app.on("user.*", name="limited", concurrency=2)(lambda event: None)
    app.on("*", name="all")(lambda event: None)
    for number in range(4):
        app.add(f"user_{number}", "user.created")
        app.add(f"auth_{number}", "auth.login")
    engine = app.webhooks._engine
    claims = engine.claim(6, ())
    assert sum(claim.event.type == "user.created" for claim in claims) == 2
    assert len(claims) == 6
    assert engine.claim(6, claims) == []
    finished = next(claim for claim in claims if claim.event.type == "user.created")
    [claim] = engine.claim(6, [claim for claim in claims if claim is not finished])
    assert claim.event.type == "user.created"


def test_events_claimed_before_the_inbox_failed_are_returned(clock):
    app = App("drain", clock)
    app.on("user.*", name="limited", concurrency=1)(lambda event: None)
    app.add("limited", "user.created")
    app.add("other", "auth.login")
    engine = app.webhooks._engine
    claim_of_the_inbox = app.inbox.claim
    answers = [claim_of_the_inbox]

    def claim(*arguments):
        if not answers:
            raise OSError("away")
        return answers.pop()(*arguments)

    app.inbox.claim = claim
    assert [claim.event.id for claim in engine.claim(5, ())] == ["limited"]
    with pytest.raises(OSError, match="away"):
        engine.claim(5, ())


# HandlerContext


def test_contexts_are_entered_around_every_handler(app, kind):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    @contextlib.contextmanager
    def contexts():
        token = variable.set("inside")
        try:
            yield
        finally:
            variable.reset(token)

    app.webhooks.add_context(contexts)
    app.on("*", name="h")(kind(lambda event, attempt, delivery: seen.append(variable.get())))
    app.add()
    app.work()
    assert seen == ["inside"]
    assert app.status() is Status.PROCESSED
    assert variable.get() == "outside"


def test_contexts_that_fail_fail_the_handler(app):
    entered = []

    @contextlib.contextmanager
    def contexts():
        entered.append(True)
        yield
        if len(entered) == handlers_turn[0]:
            raise ValueError("at the end")

    handlers_turn = [0]

    @app.on("*", name="h")
    def handler(event):
        handlers_turn[0] = len(entered)

    app.webhooks.add_context(contexts)
    app.add()
    app.work()
    assert app.status() is Status.FAILED
    assert app.record().last_error == "ValueError: at the end"


# Draining


def test_drain_inside_a_running_loop_names_adrain(clock):
    app = App("drain", clock)
    app.on("*")(lambda event: None)

    async def main():
        with pytest.raises(ConfigurationError, match="adrain"):
            app.webhooks.drain()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_drain_until_idle_waits_for_retries(way):
    webhooks = Webhooks(
        secret="s", inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=3, initial_delay=0.01)
    )
    calls = []
    webhooks.on("*", name="h")(lambda event, attempt: fail_until(3, calls)(event, attempt, None))
    webhooks.inbox.add(NewEvent(sample_event(id="evt_1"))).result(PATIENCE)
    drained = webhooks.drain(until_idle=True) if way == "drain" else asyncio.run(webhooks.adrain(until_idle=True))
    assert (drained, calls) == (3, [1, 2, 3])
    assert webhooks.inbox.get("evt_1").status is Status.PROCESSED


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_drain_starts_no_event_after_its_time(way, monkeypatch):
    """A task must end even if new events keep arriving: here, each event brings another one."""
    webhooks = Webhooks(secret="s", inbox="memory:", handoff="manual")
    handled = []
    seconds = [0]
    monkeypatch.setattr(drain_module, "time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=time.sleep))

    @webhooks.on("*")
    def bring_another(event):
        handled.append(event.id)
        if len(handled) < 100:
            webhooks.inbox.add(NewEvent(sample_event())).result(20)
        seconds[0] += 1

    webhooks.inbox.add(NewEvent(sample_event())).result(20)

    def drained(**how):
        return webhooks.drain(**how) if way == "drain" else asyncio.run(webhooks.adrain(**how))

    assert drained(within=3) == len(handled) == 3
    assert webhooks.inbox.stats().by_status["received"] == 1
    assert drained(within=0) == 0
    assert drained(within=2, until_idle=True) == 2


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_a_drain_that_could_not_settle_holds_the_event_no_longer_than_its_lease(way):
    class AwayInbox(MemoryInbox):
        away = True

        def settle(self, claim, settlement):
            if self.away:
                raise OSError("away")
            return super().settle(claim, settlement)

    app = App(way, None, inbox=AwayInbox(), lease=1)
    app.on("*", name="h")(lambda event: None)
    app.add()
    with pytest.raises(OSError, match="away"):
        app.work()
    app.inbox.away = False
    pause_until(lambda: app.inbox.seconds_until_due() <= 0)
    assert app.work() == 1


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_draining_an_empty_inbox_settles_nothing(way, clock):
    app = App(way, clock)
    app.on("*")(lambda event: None)
    assert app.work() == 0


def test_adrain_keeps_the_loop_free_while_a_sync_handler_blocks(clock):
    app = App("adrain", clock)
    release = threading.Event()
    app.on("*")(lambda event: release.wait(PATIENCE))
    app.add()

    async def main():
        draining = asyncio.create_task(app.webhooks.adrain())
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert not draining.done()
        release.set()
        return await draining

    assert asyncio.run(main()) == 1


def test_a_sync_handler_that_runs_a_loop_of_its_own_can_be_drained(clock):
    app = App("drain", clock)
    seen = []
    app.on("*")(lambda event: seen.append(asyncio.run(asyncio.sleep(0, "result"))))
    app.add()
    app.work()
    assert seen == ["result"]


def test_the_lease_is_kept_while_a_drained_handler_runs_on():
    webhooks = Webhooks(secret="s", inbox="memory:", handoff="manual", lease=1.0)
    renewed = threading.Event()
    renew = webhooks.inbox.renew

    def listen(claims, lease):
        renew(claims, lease)
        renewed.set()

    webhooks.inbox.renew = listen
    webhooks.on("*")(lambda event: None if renewed.wait(PATIENCE) else 1 / 0)
    webhooks.inbox.add(NewEvent(sample_event(id="evt_1"))).result(PATIENCE)
    assert webhooks.drain() == 1
    record = webhooks.inbox.get("evt_1")
    assert (record.status, record.crashes) == (Status.PROCESSED, 0)


# Unreadable rows


@pytest.fixture
def sqlite_app(sqlite_url, sql_inboxes, clock):
    return lambda way: App(way, clock, inbox=sql_inboxes(sqlite_url, clock), retry=AT_ONCE)


@pytest.mark.parametrize("way", WAYS)
def test_an_unreadable_event_fails_by_the_retry_policy_and_delays_no_other(sqlite_app, way):
    app = sqlite_app(way)
    seen, dead = [], []
    app.on("*", name="see")(lambda event: seen.append(event.id))
    app.webhooks.on_dead(lambda event, error: dead.append((event.id, error, event.data.object)))
    app.webhooks.on_dead(lambda event, error: dead.append((event.id, error)))
    for number in range(5):
        app.add(f"evt_{number}")
    overwrite(app.inbox, "evt_1", "body", b"{{")
    app.work()
    assert sorted(seen) == ["evt_0", "evt_2", "evt_3", "evt_4"]
    ended = [(notice.status, notice.attempt) for notice in app.settled() if notice.event_id == "evt_1"]
    assert ended == [(Status.FAILED, 1), (Status.FAILED, 2), (Status.DEAD, 3)]
    record = app.record("evt_1")
    assert (record.status, record.attempts, len(record.history)) == (Status.DEAD, 3, 3)
    assert record.last_error.startswith("the stored event is unreadable: the body is not JSON")
    assert dead == [("evt_1", record.last_error)], "the first hook read the payload, and failed"
    overwrite(app.inbox, "evt_1", "body", sample_event(id="evt_1").body)
    assert app.inbox.requeue("evt_1") == 1
    app.work()
    assert app.status("evt_1") is Status.PROCESSED
    assert seen[-1] == "evt_1"


def test_unreadable_event_without_handlers_is_not_ignored(sqlite_app):
    app = sqlite_app("drain")
    app.on("user.deleted")(lambda event: None)
    app.add()
    overwrite(app.inbox, "evt_1", "body", b"{{")
    app.work()
    assert app.status() is Status.DEAD


def test_unreadable_event_returned_to_the_inbox_keeps_its_progress(sqlite_app):
    app = sqlite_app("drain")
    app.add()
    overwrite(app.inbox, "evt_1", "progress", '{"welcome": "postponed"}')
    (claim,) = app.inbox.claim(1, 60)
    app.webhooks._engine.return_to_inbox(claim, dict(claim.progress))
    with app.inbox._reading() as connection:
        assert "postponed" in connection.scalar(text("SELECT progress FROM envoyou_inbox"))


def overwrite(inbox, id, column, value):
    with inbox._engine.begin() as connection:
        statement = text(f"UPDATE envoyou_inbox SET {column} = :value WHERE event_id = :id")
        assert connection.execute(statement, {"value": value, "id": id}).rowcount == 1
