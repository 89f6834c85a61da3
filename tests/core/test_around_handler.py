"""Context managers of the application around its handlers."""

import asyncio
import contextvars
import threading
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from envoyou_core import ConfigurationError, Handlers
from envoyou_core.inbox import HandlerStatus, Status
from envoyou_core.observability import HandlerFailed
from tests.core.test_engine import WAYS, App

tenant = contextvars.ContextVar("tenant", default=None)
KINDS = ["sync", "async"]


@pytest.fixture(params=WAYS)
def app(request, clock):
    return App(request.param, clock)


@pytest.fixture
def drained(clock):
    return App("drain", clock)


def as_kind(kind, function):
    """Turn a function of the event into a sync or an async handler."""
    if kind == "sync":
        return function

    async def handler(event):
        await asyncio.sleep(0)
        return function(event)

    return handler


def noting(calls, name, kind):
    """Return a context that notes when it is entered, when it is exited, and the exception that it sees."""

    def note_exit(error):
        calls.append(f"exit {name}" if error is None else f"exit {name}: {error}")

    if kind == "async":

        @asynccontextmanager
        async def context(event, handler, attempt):
            await asyncio.sleep(0)
            calls.append(f"enter {name}")
            try:
                yield
            except ValueError as error:
                await asyncio.sleep(0)
                note_exit(error)
                raise
            note_exit(None)

    else:

        @contextmanager
        def context(event, handler, attempt):
            calls.append(f"enter {name}")
            try:
                yield
            except ValueError as error:
                note_exit(error)
                raise
            note_exit(None)

    return context


@pytest.mark.parametrize("handler", KINDS)
def test_contexts_of_both_kinds_are_nested_and_their_variables_reach_the_handler(app, handler):
    calls = []

    @app.webhooks.around_handler
    @contextmanager
    def select(event, handler, attempt):
        token = tenant.set((event.id, handler, attempt))
        yield
        tenant.reset(token)

    @app.webhooks.around_handler
    @asynccontextmanager
    async def extend(event, handler, attempt):
        loop = asyncio.get_running_loop()
        token = tenant.set((*tenant.get(), "extended"))
        yield
        tenant.reset(token)
        assert asyncio.get_running_loop() is loop

    for name in ("outer", "inner"):
        app.webhooks.around_handler(noting(calls, name, "sync" if name == "outer" else "async"))
    app.on("*", name="h")(as_kind(handler, lambda event: calls.append(tenant.get())))
    app.add()
    app.work()
    assert app.status() is Status.PROCESSED
    handled = ("evt_1", "h", 1, "extended")
    assert calls == ["enter outer", "enter inner", handled, "exit inner", "exit outer"]
    assert tenant.get() is None


@pytest.mark.parametrize("context", KINDS)
@pytest.mark.parametrize("handler", KINDS)
def test_a_context_sees_the_exception_of_the_handler(drained, context, handler):
    calls = []

    def fail(event):
        raise ValueError("why")

    drained.webhooks.around_handler(noting(calls, "context", context))
    drained.on("*", name="h")(as_kind(handler, fail))
    drained.add()
    drained.work()
    assert calls == ["enter context", "exit context: why"]
    failure = drained.record().history[0].failures[0]
    assert (drained.status(), failure.error) == (Status.FAILED, "ValueError: why")
    assert "around.py" not in failure.traceback


@pytest.mark.parametrize("when", ["entry", "exit"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_a_context_fails_the_handler_and_no_other(drained, kind, when):
    called = []

    @drained.webhooks.around_handler
    @contextmanager
    def break_one(event, handler, attempt):
        if handler == "broken" and when == "entry":
            raise LookupError("no such tenant")
        yield
        if handler == "broken":
            raise LookupError("no such tenant")

    for name in ("broken", "sound"):
        drained.on("*", name=name)(as_kind(kind, lambda event, name=name: called.append(name)))
    drained.add()
    drained.work()
    assert called == (["sound"] if when == "entry" else ["broken", "sound"])
    assert drained.record().progress == {"sound": HandlerStatus.DONE}
    failure = drained.record().history[0].failures[0]
    assert failure.error == "LookupError: no such tenant"
    assert ", in break_one\n" in failure.traceback
    assert "raised by the context test_an_exception_of_a_context_fails" in failure.traceback
    assert drained.notices_of(HandlerFailed)[0].handler == "broken"


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_that_fails_for_a_handler_that_failed_is_named_beside_its_exception(drained, kind):
    @drained.webhooks.around_handler
    def flush(event, handler, attempt):
        try:
            yield
        finally:
            if handler == "broken":
                raise OSError("no tracer")

    class RaiseAgain:
        def __enter__(self): ...

        def __exit__(self, kind, error, traceback):
            if error is not None:
                raise error

    drained.webhooks.around_handler(lambda event, handler, attempt: RaiseAgain())
    drained.on("*", name="broken")(as_kind(kind, lambda event: 1 / 0))
    drained.on("*", name="fails")(as_kind(kind, lambda event: [][1]))
    drained.add()
    drained.work()
    broken, fails = drained.record().history[0].failures
    assert broken.error == "OSError: no tracer"
    assert broken.traceback.index("ZeroDivisionError") < broken.traceback.index(
        "OSError: no tracer\nraised by the context"
    )
    assert "raised by" not in fails.traceback


def test_a_context_that_suppresses_the_exception_lets_the_handler_succeed(drained):
    drained.webhooks.around_handler(lambda event, handler, attempt: suppress(ZeroDivisionError))
    drained.on("*")(lambda event: 1 / 0)
    drained.add()
    drained.work()
    assert drained.status() is Status.PROCESSED


def test_a_generator_function_needs_no_decorator(drained):
    calls = []

    @drained.webhooks.around_handler
    def plain(event, handler, attempt):
        calls.append("plain")
        yield

    @drained.webhooks.around_handler
    async def asynchronous(event, handler, attempt):
        calls.append("async")
        yield

    drained.on("*", name="h")(lambda event: calls.append("handler"))
    drained.add()
    drained.work()
    assert calls == ["plain", "async", "handler"]


def test_a_function_that_returns_no_context_fails_the_attempt_with_its_name(drained):
    @drained.webhooks.around_handler
    def returns_nothing(event, handler, attempt): ...

    drained.on("*")(lambda event: None)
    drained.add()
    drained.work()
    name = "test_a_function_that_returns_no_context_fails_the_attempt_with_its_name.<locals>.returns_nothing"
    assert drained.record().last_error == f"TypeError: expected a context manager from the context {name}, got NoneType"


async def coroutine(event, handler, attempt): ...


@pytest.mark.parametrize("wrong", [coroutine, lambda event: None, lambda *, event: None, None, contextmanager])
def test_what_cannot_be_put_around_a_handler_is_refused_at_once(wrong):
    with pytest.raises(ConfigurationError, match="around_handler"):
        Handlers().around_handler(wrong)


def test_the_contexts_of_a_registry_are_included(drained):
    calls = []
    handlers = Handlers()
    handlers.around_handler(noting(calls, "included", "sync"))
    drained.webhooks.include(handlers)
    drained.on("*")(lambda event: None)
    drained.add()
    drained.work()
    assert calls == ["enter included", "exit included"]


def test_a_context_runs_in_the_thread_of_its_sync_handler(app):
    threads = []

    @app.webhooks.around_handler
    def note(event, handler, attempt):
        threads.append(threading.get_ident())
        yield

    app.on("*")(lambda event: threads.append(threading.get_ident()))
    app.add()
    app.work()
    assert threads[0] == threads[1]
