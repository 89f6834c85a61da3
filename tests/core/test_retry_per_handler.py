"""Handlers with a retry policy of their own, and what they retry or give up on."""

import logging

import pytest

from envoyou_core import ConfigurationError, Handlers, PermanentError, RetryLater, RetryPolicy
from envoyou_core.inbox import HandlerStatus, Status
from envoyou_core.observability import HandlerFailed, HandlerPostponed, Settled
from tests.core.test_engine import App

TWICE = RetryPolicy(max_attempts=2, delays=[5])
FIVE_TIMES = RetryPolicy(max_attempts=5, delays=[30])


@pytest.fixture
def app(clock):
    return App("drain", clock, retry=RetryPolicy(max_attempts=3, delays=[10]))


def failing(error, calls, name):
    def handler(event, attempt):
        calls.append((name, attempt))
        raise error

    return handler


def work_until_finished(app):
    for _ in range(10):
        app.work()
        if app.status() is not Status.FAILED:
            return
        app.clock.advance(3600)


def test_each_handler_gives_up_after_the_attempts_of_its_own_policy(app):
    calls = []
    for name, retry in (("own", TWICE), ("longer", FIVE_TIMES), ("default", None)):
        app.on("*", name=name, retry=retry)(failing(ValueError(), calls, name))
    app.add()
    work_until_finished(app)
    attempts = {name: [attempt for called, attempt in calls if called == name] for name in ("own", "longer", "default")}
    assert attempts == {"own": [1, 2], "longer": [1, 2, 3, 4, 5], "default": [1, 2, 3]}
    assert (app.status(), app.record().attempts) == (Status.DEAD, 5)
    app.inbox.requeue("evt_1")
    calls.clear()
    app.work()
    assert calls == [("own", 1), ("longer", 1), ("default", 1)]


def test_the_event_waits_for_the_longest_delay_of_a_handler_that_goes_on(app):
    for name, retry in (("short", TWICE), ("long", FIVE_TIMES), ("default", None)):
        app.on("*", name=name, retry=retry)(failing(ValueError(), [], name))
    app.on("*", name="succeeds", retry=RetryPolicy(delays=[900]))(lambda event: None)
    once = RetryPolicy(max_attempts=1, delays=[900])
    app.on("*", name="once", retry=once)(failing(ValueError(), [], "once"))
    app.add()
    app.work()
    assert app.record().next_attempt_at == app.clock.moment(30)
    assert app.record().progress == {"succeeds": HandlerStatus.DONE, "once": HandlerStatus.GIVEN_UP}


def test_a_single_handler_has_more_attempts_than_the_webhooks(app):
    calls = []

    @app.on("*", retry=FIVE_TIMES)
    def handler(event, attempt):
        calls.append(attempt)
        if attempt < 5:
            raise ValueError

    app.add()
    work_until_finished(app)
    assert (calls, app.status()) == ([1, 2, 3, 4, 5], Status.PROCESSED)


@pytest.mark.parametrize(
    ("options", "error", "status"),
    [
        ({"retry_on": OSError}, ConnectionError(), Status.FAILED),
        ({"retry_on": (OSError, KeyError)}, ValueError(), Status.DEAD),
        ({"give_up_on": LookupError}, KeyError(), Status.DEAD),
        ({"give_up_on": [LookupError]}, ValueError(), Status.FAILED),
        ({"retry_on": OSError, "give_up_on": ConnectionError}, ConnectionResetError(), Status.DEAD),
        ({"retry_on": Exception}, PermanentError(), Status.DEAD),
        ({"retry_on": OSError, "give_up_on": Exception}, RetryLater(5), Status.FAILED),
    ],
)
def test_what_is_retried(app, options, error, status):
    app.on("*", name="h", **options)(failing(error, [], "h"))
    app.add()
    app.work()
    assert (app.status(), app.record().attempts) == (status, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": 5}, "retry must be a RetryPolicy or None, got int"),
        ({"retry_on": "OSError"}, "retry_on must be an exception type or a list of them, got 'OSError'"),
        ({"retry_on": KeyboardInterrupt}, "retry_on must be an exception type"),
        ({"give_up_on": [OSError()]}, "give_up_on must be an exception type"),
        ({"retry_on": []}, "retry_on expects at least one exception type"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Handlers().on("*", **options)


# RetryLater is a request


def test_retry_later_is_one_line_without_a_traceback_until_no_attempt_is_left(app, caplog):
    caplog.set_level(logging.INFO, "envoyou")
    app.on("*", name="h", retry=TWICE)(failing(RetryLater(60, "rate limited"), [], "h"))
    app.add()
    app.work()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "INFO",
            "handler h postponed event evt_1 (user.created) at attempt 1, by at least 60 s: RetryLater: rate limited",
        )
    ]
    assert app.notices_of(HandlerFailed) == []
    assert [notice.retry_in for notice in app.notices_of(HandlerPostponed)] == [60]
    assert app.notices_of(Settled)[0].is_postponed
    assert app.record().history[0].failures[0].traceback == ""

    app.clock.advance(60)
    app.work()
    assert [notice.handler for notice in app.notices_of(HandlerFailed)] == ["h"]
    assert not app.notices_of(Settled)[1].is_postponed
    assert app.status() is Status.DEAD


def test_an_attempt_that_also_failed_is_logged_as_failed(app):
    app.on("*", name="later")(failing(RetryLater(1), [], "later"))
    app.on("*", name="fails")(failing(ValueError(), [], "fails"))
    app.add()
    app.work()
    assert not app.notices_of(Settled)[0].is_postponed
    assert app.notices_of(Settled)[0].level == logging.WARNING
