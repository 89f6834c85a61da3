"""Discovery and lifetime of handlers."""

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar

import pytest
from django.test import override_settings

from envoyou_core import ConfigurationError, Event, Handlers, User
from envoyou_core.observability import HandlerOverdue
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytestmark = pytest.mark.django_db


def accept(client, type, **values):
    delivery = sign_delivery(sample_event(type, **values), secret=SECRET)
    answer = client.post("/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers)
    assert answer.status_code == 200


def test_handlers_in_the_module_of_an_app_are_discovered(client):
    accept(client, "member.joined", object={"name": "Ada"})
    assert webhooks.drain() == 1
    assert Member.objects.get().name == "Ada"


def test_handlers_outlive_a_change_of_the_settings(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "TOLERANCE": 10}):
        accept(client, "member.joined", object={"name": "Ada"})
        assert webhooks.drain() == 1
    accept(client, "member.joined", object={"name": "Grace"})
    assert webhooks.drain() == 1
    assert Member.objects.count() == 2


def test_the_module_name_is_a_setting(tmp_path, monkeypatch):
    from django.apps import apps

    found = []
    monkeypatch.setattr("envoyou_django.apps.autodiscover_modules", found.append)
    with override_settings(ENVOYOU={"HANDLERS_MODULE": "hooks.envoyou"}):
        apps.get_app_config("envoyou_django").ready()
    assert found == ["hooks.envoyou"]


def test_an_async_handler_works_within_the_tests_transaction(client):
    accept(client, "member.invited", object={"name": "Grace"})
    assert webhooks.drain() == 1
    assert Member.objects.get().name == "Grace"


@pytest.mark.parametrize("before", [True, False], ids=["before setup", "after setup"])
def test_a_handler_registered_in_a_test(client, before):
    if not before:
        assert webhooks.name == "default"
    handled = []

    @webhooks.on("shop.opened")
    def note(event):
        handled.append(event.id)

    accept(client, "shop.opened", id="evt_shop")
    assert webhooks.drain() == 1
    assert handled == ["evt_shop"]


def test_handlers_registered_during_an_override_end_with_it(client):
    handlers = Handlers()
    handled = []

    @handlers.on("shop.closed")
    def note(event):
        handled.append(event.id)

    for round in ("evt_1", "evt_2"):
        with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
            # If it were still registered in the second round, its name would be taken.
            webhooks.include(handlers)
            accept(client, "shop.closed", id=round)
            assert webhooks.drain() == 1
    accept(client, "shop.closed", id="evt_3")
    webhooks.drain()
    assert handled == ["evt_1", "evt_2"]
    # The settings of a moment ago count as a live process, which handles this type.
    assert (
        webhooks.inbox.get("evt_3").waits_for == "test_handlers_registered_during_an_override_end_with_it.<locals>.note"
    )


def test_handlers_have_the_options_of_the_core(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        handled = []

        @webhooks.on("shop.*", stale="skip", time_limit=20, concurrency=1)
        def mirror(event):
            handled.append(event.id)

        for id, created in (("evt_closed", 20), ("evt_opened", 10)):
            accept(client, "shop.changed", id=id, created=created, object={"id": "shop_1"})
            webhooks.drain()
        assert handled == ["evt_closed"]
        assert webhooks.inbox.get("evt_opened").progress == {mirror.__qualname__: "skipped"}


def test_handlers_get_the_annotated_type(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        seen = []

        @webhooks.on("shop.opened", name="sync")
        def handle(event: Event[User]):
            seen.append(event.data.object)

        @webhooks.on("shop.opened", name="async")
        async def handle_too(event: Event[User]):
            seen.append(event.data.object)

        accept(client, "shop.opened", object={"id": "user_1"})
        accept(client, "shop.opened", id="evt_wrong", object={"id": 3})
        webhooks.drain()
        assert seen == [User(id="user_1")] * 2
        fault = "InvalidPayloadError: data.object is not a User: Expected `str`, got `int` - at `$.id`"
        assert webhooks.inbox.get("evt_wrong").last_error == f"{fault}; {fault}"


def test_a_context_around_a_sync_handler_is_inside_its_transaction(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):

        @webhooks.around_handler
        def note(event, handler, attempt):
            Member.objects.create(name=f"before {handler}")
            yield
            raise LookupError("no such tenant")

        webhooks.on("shop.opened", name="enclosed")(lambda event: Member.objects.create(name="Ada"))
        accept(client, "shop.opened", id="evt_shop")
        assert webhooks.drain() == 1
        assert webhooks.inbox.get("evt_shop").last_error == "LookupError: no such tenant"
        assert not Member.objects.exists()


def test_contexts_around_an_async_handler_use_its_loop_and_its_connection(client):
    tenant, seen = ContextVar("tenant"), []
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):

        @webhooks.around_handler
        def select(event, handler, attempt):
            token = tenant.set([Member.objects.create(name="of the sync context").name])
            yield
            tenant.reset(token)

        @webhooks.around_handler
        async def extend(event, handler, attempt):
            await Member.objects.acreate(name="of the async context")
            tenant.get().append(asyncio.get_running_loop())
            yield
            seen.append(asyncio.get_running_loop())

        @webhooks.on("shop.opened")
        async def handle(event):
            seen.extend([*tenant.get(), asyncio.get_running_loop(), await Member.objects.acount()])

        accept(client, "shop.opened", id="evt_shop")
        assert webhooks.drain() == 1
        name, entered_on, ran_on, members, exited_on = seen
        assert (name, members) == ("of the sync context", 2)
        assert entered_on is ran_on is exited_on
        assert webhooks.inbox.get("evt_shop").status == "processed"


def test_an_async_handler_is_cancelled_at_its_time_limit(client):
    """It runs on an event loop of its own, in a thread that cannot be stopped."""
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        ended, overdue = [], []

        @webhooks.on("shop.opened", name="slow", time_limit=0.01)
        async def slow(event):
            try:
                await asyncio.sleep(20)
            finally:
                ended.append(event.id)

        webhooks.subscribe(lambda notice: overdue.append(notice) if isinstance(notice, HandlerOverdue) else None)
        accept(client, "shop.opened", id="evt_slow")
        assert webhooks.drain() == 1
        assert ended == ["evt_slow"]
        record = webhooks.inbox.get("evt_slow")
        assert (record.status, record.last_error) == (
            "failed",
            "HandlerTimeoutError: cancelled after its time limit of 0.01 s",
        )
        assert overdue == []


def test_duplicate_names_are_refused():
    def note(event): ...

    webhooks.on("shop.opened")(note)
    with pytest.raises(ConfigurationError, match="two handlers"):
        webhooks.on("shop.closed")(note)


def test_a_connection_parameter_is_refused():
    with pytest.raises(ConfigurationError, match="has a parameter 'connection'"):
        webhooks.on("shop.opened")(lambda event, connection: None)


def test_providers_of_both_kinds_serve_handlers_of_both_kinds(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        seen = []

        @contextmanager
        def session():
            yield Member.objects.create(name="Ada")
            seen.append("closed")

        async def loop():
            return asyncio.get_running_loop()

        webhooks.on("shop.opened", name="sync")(lambda event, session: seen.append(session.name))

        @webhooks.on("shop.opened", name="async")
        async def handle(event, session, loop):
            seen.append((session.name, loop is asyncio.get_running_loop()))

        with pytest.raises(ConfigurationError, match="'session', which nothing provides"):
            webhooks.drain()
        webhooks.provide("session", session)
        webhooks.provide("loop", loop)
        accept(client, "shop.opened", id="evt_shop")
        assert webhooks.drain() == 1
        assert webhooks.inbox.get("evt_shop").status == "processed"
        assert seen == ["Ada", "closed", ("Ada", True), "closed"]
        assert Member.objects.count() == 2


REGISTERED = ["on_dead", "on_worker_start", "on_worker_stop", "subscribe"]


@pytest.mark.parametrize("register", REGISTERED)
def test_hooks_can_be_registered_without_settings(register):
    with override_settings(ENVOYOU={}):
        getattr(webhooks, register)(lambda *_: None)


def test_hooks_outlive_a_change_of_the_settings_unless_registered_during_it(client):
    calls = []
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
        webhooks.subscribe(lambda notice: calls.append("outer"))
        with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
            webhooks.subscribe(lambda notice: calls.append("inner"))
            accept(client, "shop.opened")
            assert {"outer", "inner"} == set(calls)
        calls.clear()
        accept(client, "shop.opened")
        assert set(calls) == {"outer"}
    calls.clear()
    accept(client, "shop.opened")
    assert not calls
