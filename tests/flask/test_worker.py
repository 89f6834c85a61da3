"""When the worker starts, and in which context handlers run."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import weakref
from queue import Queue

import pytest
from flask import Flask, current_app, g

from envoyou_core import ConfigurationError, Event, PermanentError, User, Webhooks
from envoyou_core.observability import NoHandlers
from envoyou_core.testing import sample_event
from envoyou_flask import create_blueprint
from tests.flask.conftest import deliver, make_app

PATIENCE = 20


@pytest.fixture
def webhooks(make_webhooks) -> Webhooks:
    return make_webhooks()


def test_a_request_to_any_page_starts_the_worker(webhooks, make_webhooks):
    earlier = make_webhooks(handoff="manual")
    event = sample_event()
    assert deliver(make_app(earlier), event).status_code == 200
    handled = Queue()
    webhooks.on("*")(lambda event: handled.put(event.id))
    app = make_app(webhooks)
    app.add_url_rule("/", view_func=lambda: "a page")

    assert app.test_client().get("/").text == "a page"
    assert handled.get(timeout=PATIENCE) == event.id


def test_importing_and_registering_start_nothing(webhooks):
    webhooks.on("*")(print)
    before = threading.enumerate()
    make_app(webhooks)
    assert threading.enumerate() == before


def test_a_missing_handler_is_an_error_in_the_log_and_not_on_every_page(webhooks, caplog):
    app = make_app(webhooks)
    app.add_url_rule("/", view_func=lambda: "a page")
    reported = threading.Event()
    webhooks.subscribe(lambda notice: isinstance(notice, NoHandlers) and reported.set())
    with caplog.at_level(logging.ERROR, "envoyou"):
        assert app.test_client().get("/").text == "a page"
        assert app.test_client().get("/").text == "a page"
    assert reported.wait(PATIENCE)
    (record,) = caplog.records
    assert "no handler is registered" in record.getMessage()

    handled = Queue()
    webhooks.on("*")(lambda event: handled.put(event.id))
    event = sample_event()
    assert deliver(app, event).status_code == 200
    assert handled.get(timeout=PATIENCE) == event.id


def test_the_first_request_of_each_process_wakes_the_worker(manual, monkeypatch):
    woken = []
    monkeypatch.setattr(manual, "wake", lambda: woken.append(os.getpid()))
    app = make_app(manual)
    app.register_blueprint(create_blueprint(manual), name="again", url_prefix="/again")
    for pid in (1, 1, 2, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        app.test_client().get("/")
    assert woken == [1, 2]


def test_handlers_run_in_the_context_of_the_app(webhooks):
    seen = Queue()

    @webhooks.on("user.created")
    def handle(event):
        g.mine = True
        seen.put(current_app.config["MARK"])

    @webhooks.on("user.created")
    async def handle_too(event):
        # A new context for each handler, with nothing of the previous one.
        seen.put((current_app.config["MARK"], "mine" in g))

    app = make_app(webhooks)
    app.config["MARK"] = "the app's"
    assert deliver(app).status_code == 200
    assert seen.get(timeout=PATIENCE) == "the app's"
    assert seen.get(timeout=PATIENCE) == ("the app's", False)


def test_contexts_around_handlers_run_in_the_context_of_the_app_and_of_each_handler(make_webhooks):
    webhooks = make_webhooks(handoff="manual")
    seen = []

    @webhooks.around_handler
    def select(event, handler, attempt):
        g.tenant = f"{current_app.config['MARK']} for {handler}"
        yield

    webhooks.on("*", name="sync")(lambda event: seen.append(g.tenant))

    @webhooks.on("*", name="async")
    async def handle(event):
        seen.append(g.tenant)

    app = make_app(webhooks)
    app.config["MARK"] = "the app's"
    deliver(app)
    assert webhooks.drain() == 1
    assert seen == ["the app's for sync", "the app's for async"]


def test_dead_hooks_run_in_the_context_of_the_app(make_webhooks):
    webhooks = make_webhooks(handoff="manual")
    seen = []

    @webhooks.on("*")
    def fail(event):
        raise PermanentError

    @webhooks.on_dead
    def alert(event, error):
        seen.append(current_app.name)

    @webhooks.on_dead
    async def alert_too(event, error):
        seen.append(current_app.name)

    app = make_app(webhooks, "one")
    deliver(app)
    assert webhooks.drain() == 1
    assert seen == ["one", "one"]


def test_handlers_get_the_annotated_type(make_webhooks):
    webhooks = make_webhooks(handoff="manual")
    seen = []

    @webhooks.on("user.created")
    def handle(event: Event[User]):
        seen.append((event.data.object.id, current_app.name))

    app = make_app(webhooks, "one")
    deliver(app, sample_event("user.created", object={"id": "user_1"}))
    assert webhooks.drain() == 1
    assert seen == [("user_1", "one")]


def test_the_context_is_torn_down_after_each_handler(manual):
    torn_down = []
    app = make_app(manual)
    app.teardown_appcontext(lambda error: torn_down.append(current_app.name))
    ran_before = []
    manual.on("*")(lambda event: ran_before.append(len(torn_down)))
    deliver(app)
    torn_down.clear()
    assert manual.drain() == 1
    assert len(torn_down) > ran_before[0]


def test_async_handlers_need_no_extra_of_flask(webhooks, monkeypatch):
    monkeypatch.setitem(sys.modules, "asgiref", None)
    monkeypatch.setitem(sys.modules, "asgiref.sync", None)
    handled = Queue()

    @webhooks.on("*")
    async def handle(event):
        handled.put(event.id)

    event = sample_event()
    assert deliver(make_app(webhooks), event).status_code == 200
    assert handled.get(timeout=PATIENCE) == event.id


def test_last_of_several_apps_provides_the_context(manual):
    seen = []
    manual.on("*")(lambda event: seen.append(current_app.name))
    apps = [make_app(manual, name) for name in ("first", "second", "third")]
    deliver(apps[0])
    assert manual.drain() == 1
    assert seen == ["third"]


def test_current_app_provides_the_context(manual):
    seen = []
    manual.on("*")(lambda event: seen.append((current_app.name, "mine" in g)))
    first, second, _third = [make_app(manual, name) for name in ("first", "second", "third")]
    with Flask("a stranger").app_context():
        deliver(second)
        assert manual.drain() == 1
    for app in (first, second):
        with app.app_context():
            g.mine = True
            deliver(app)
            assert manual.drain() == 1
    assert seen == [("third", False), ("first", False), ("second", False)]


def test_earlier_app_provides_the_context_if_a_later_one_is_gone(manual):
    seen = []
    manual.on("*")(lambda event: seen.append(current_app.name))
    app = make_app(manual, "first")
    make_app(manual, "second")
    gc.collect()
    deliver(app)
    assert manual.drain() == 1
    assert seen == ["first"]


def test_a_blueprint_may_be_registered_on_several_apps(manual):
    blueprint = create_blueprint(manual)
    event = sample_event()
    for name in ("first", "second"):
        app = make_app(manual, name)
        app.register_blueprint(blueprint, name="again", url_prefix="/again")
        deliver(app, event, path="/again")
    assert deliver(app, event, path="/again").json == {"received": True, "duplicate": True}


def test_app_is_garbage_collected_although_the_webhooks_live(manual):
    app = make_app(manual)
    deliver(app)
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None
    manual.on("*")(print)
    assert manual.drain() == 1


def test_unused_webhooks_are_garbage_collected(make_webhooks, tmp_path):
    webhooks = Webhooks(secret="whsec_flask", inbox="memory:", handoff="manual")
    app = make_app(webhooks)
    reference = weakref.ref(webhooks)
    del webhooks, app
    gc.collect()
    assert reference() is None


def test_providers_are_opened_in_the_context_of_the_app_for_each_call(manual):
    app, opened = make_app(manual), []

    def open_reports():
        opened.append((current_app.name, g.setdefault("reports", [])))
        yield g.reports
        opened.append("closed")

    manual.provide("reports", open_reports)

    @manual.on("user.created")
    def report(event, reports):
        # The same context: the handler has the provider's `g`.
        assert reports is g.reports
        reports.append(event.id)

    first, second = sample_event(), sample_event()
    for event in (first, second):
        assert deliver(app, event).status_code == 200
    assert manual.drain(raise_errors=True) == 2
    assert opened == [("app", [first.id]), "closed", ("app", [second.id]), "closed"]


def test_a_missing_provider_is_an_error_of_the_drain_and_not_of_the_request(manual):
    @manual.on("user.created")
    def report(event, reports): ...

    app = make_app(manual)
    assert deliver(app).status_code == 200
    with pytest.raises(
        ConfigurationError, match=r"parameter 'reports', which nothing provides: call webhooks\.provide"
    ):
        manual.drain()
