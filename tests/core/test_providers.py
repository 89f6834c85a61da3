"""What the application provides to handlers."""

import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated

import pytest

from envoyou_core import ConfigurationError, Handlers
from envoyou_core.inbox import Status
from envoyou_core.observability import WorkerFailed
from tests.core.conftest import pause_until
from tests.core.test_engine import WAYS, App


class Session:
    def __init__(self, calls=None):
        self.calls = [] if calls is None else calls


class Both:
    """A context manager that is sync and async."""

    def __enter__(self):
        return "sync"

    def __exit__(self, *_): ...

    async def __aenter__(self):
        return "async"

    async def __aexit__(self, *_): ...


@pytest.fixture(params=WAYS)
def app(request, clock):
    return App(request.param, clock)


@pytest.fixture
def drained(clock):
    return App("drain", clock)


def factories(calls):
    """Return a factory of each kind, by its name."""

    def function():
        return Session(calls)

    async def async_function():
        await asyncio.sleep(0)
        return Session(calls)

    def generator():
        yield Session(calls)
        calls.append("closed")

    async def async_generator():
        yield Session(calls)
        await asyncio.sleep(0)
        calls.append("closed")

    return {
        "function": function,
        "async function": async_function,
        "generator": generator,
        "async generator": async_generator,
        "context manager": contextmanager(generator),
        "async context manager": asynccontextmanager(async_generator),
        "class": Session,
    }


@pytest.mark.parametrize("kind", factories([]))
def test_a_factory_of_each_kind_serves_handlers_of_both_kinds_and_is_closed_after_them(app, kind):
    calls = []
    app.webhooks.provide("session", factories(calls)[kind])

    @app.on("*", name="sync")
    def handler(event, session, attempt):
        calls.append((type(session), attempt))

    @app.on("*", name="async")
    async def asynchronous(event, session):
        calls.append((type(session), event.id))

    app.add()
    app.work()
    assert app.status() is Status.PROCESSED
    closed = ["closed"] if "generator" in kind or "context" in kind else []
    assert calls == [(Session, 1), *closed, (Session, "evt_1"), *closed]


def test_a_provider_by_type_serves_annotated_parameters_of_any_name(drained):
    given = []
    drained.webhooks.provide(Session, partial(Session, given))

    @drained.on("*", name="h")
    def handler(event, one: Session, two: Annotated[Session, "note"], three: "Session", four: Session | None = None):
        given.append([one.calls, two.calls, three.calls, four])

    drained.add()
    drained.work()
    assert given == [[given, given, given, None]]


def test_a_name_precedes_a_type_a_later_provider_an_earlier_one_and_any_a_default(drained):
    seen = []
    for name in ("first", "second"):
        drained.webhooks.provide("db", lambda name=name: name)
    drained.webhooks.provide(Session, lambda: "by type")

    @drained.on("*")
    def handler(event, db: Session = None, other: Session = None, unknown="default"):
        seen.append((db, other, unknown))

    drained.add()
    drained.work()
    assert seen == [("second", "by type", "default")]


def test_a_context_manager_of_both_kinds_is_used_as_the_handler_is(drained):
    seen = []
    drained.webhooks.provide("both", Both)
    drained.on("*", name="sync")(lambda event, both: seen.append(both))

    @drained.on("*", name="async")
    async def asynchronous(event, both):
        seen.append(both)

    drained.add()
    drained.work()
    assert seen == ["sync", "async"]


def test_a_provider_sees_the_exception_of_the_handler_and_the_contexts_around(drained):
    calls = []

    @drained.webhooks.around_handler
    def around(event, handler, attempt):
        calls.append("enter")
        yield

    def session():
        calls.append("open")
        try:
            yield "session"
        except ValueError:
            calls.append("roll back")
            raise

    drained.webhooks.provide("session", session)

    @drained.on("*")
    def handler(event, session):
        raise ValueError("why")

    drained.add()
    drained.work()
    assert calls == ["enter", "open", "roll back"]
    assert drained.record().last_error == "ValueError: why"


def test_a_provider_that_fails_fails_the_handler_and_is_named_in_the_traceback(drained):
    def session():
        raise OSError("no server")

    drained.webhooks.provide("session", session)
    drained.on("*")(lambda event, session: None)
    drained.add()
    drained.work()
    [failure] = drained.record().history[0].failures
    assert (drained.status(), failure.error) == (Status.FAILED, "OSError: no server")
    assert failure.traceback.endswith("OSError: no server\nraised by the provider of 'session'\n")


def test_providers_of_a_registry_are_included_whatever_the_order(drained):
    seen = []
    handlers = Handlers()
    handlers.on("*", name="h")(lambda event, db: seen.append(db))
    drained.webhooks.include(handlers)
    later = Handlers()
    later.provide("db", lambda: "the db")
    drained.webhooks.include(later)
    drained.add()
    drained.work()
    assert seen == ["the db"]


# What is missing


MISSING = r"handler 'h' has a required parameter 'db', which nothing provides: call webhooks\.provide\('db', \.\.\.\)"


@pytest.fixture
def lacking(drained):
    drained.webhooks.provide("cache", dict)
    drained.on("*", name="h")(lambda event, db: None)
    drained.add()
    return drained


async def enter_lifespan(webhooks):
    async with webhooks.lifespan():
        pass


@pytest.mark.parametrize(
    "begin",
    [
        lambda webhooks: webhooks.start(),
        lambda webhooks: webhooks.drain(),
        lambda webhooks: asyncio.run(webhooks.adrain()),
        lambda webhooks: webhooks.run_worker(),
        lambda webhooks: asyncio.run(enter_lifespan(webhooks)),
    ],
    ids=["start", "drain", "adrain", "run_worker", "lifespan"],
)
def test_a_missing_provider_is_an_error_when_the_worker_starts(clock, begin):
    app = App("worker in a thread", clock)
    app.webhooks.provide("cache", dict)
    app.on("*", name="h")(lambda event, db: None)
    app.add()
    with pytest.raises(ConfigurationError, match=f"{MISSING}.*provided: 'cache'"):
        begin(app.webhooks)
    assert app.record().attempts == 0


def test_a_worker_that_a_request_starts_reports_it_and_starts_once_it_is_provided(clock):
    app = App("worker in a thread", clock)
    seen = []
    app.on("*", name="h")(lambda event, db: seen.append(db))
    app.add()
    app.webhooks.wake()
    [failed] = app.notices_of(WorkerFailed)
    assert "'db', which nothing provides" in failed.detail
    app.webhooks.provide("db", lambda: "the db")
    app.webhooks.wake()
    pause_until(lambda: seen)
    app.webhooks.stop()


def test_a_handler_that_is_registered_later_fails_with_the_same_text(clock):
    app = App("worker in a thread", clock)
    app.on("*", name="first")(lambda event: None)
    app.webhooks.start()
    app.on("*", name="h")(lambda event, db: None)
    app.add()
    app.webhooks.wake()
    pause_until(lambda: app.record().last_error)
    app.webhooks.stop()
    assert "'db', which nothing provides" in app.record().last_error


# What is refused at once


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda event, attempts=1: None, "parameter 'attempts'; did you mean 'attempt'"),
        (lambda event, conection: None, "did you mean 'connection'"),
        (lambda event, db, /: None, "'db' that cannot be passed by name"),
        (lambda first, event: None, "first parameter of handler 'h' must be the event"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused_at_once(function, message):
    with pytest.raises(ConfigurationError, match=message):
        Handlers().on("*", name="h")(function)


@pytest.mark.parametrize(
    ("key", "factory", "message"),
    [
        ("attempt", dict, "cannot replace the parameter 'attempt'"),
        ("not a name", dict, "expects the name of a parameter"),
        (3, dict, "expects the name of a parameter or a class, got 3"),
        ("db", "a value", "expects a function for 'db', got str"),
        ("db", lambda request: None, "is called without arguments"),
    ],
)
def test_a_provider_that_cannot_be_used_is_refused(key, factory, message):
    with pytest.raises(ConfigurationError, match=message):
        Handlers().provide(key, factory)
