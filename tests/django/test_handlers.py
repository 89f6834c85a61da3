"""How handlers and hooks are found and registered, and how long they stay registered."""

import asyncio

import pytest
from django.test import override_settings

from envoyou_core import ConfigurationError, Handlers
from envoyou_core.observability import HandlerOverdue
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytestmark = pytest.mark.django_db


def accept(client, type, **values):
    delivery = sign_delivery(sample_event(type, **values), secret=SECRET)
    response = client.post(
        "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
    )
    assert response.status_code == 200


def test_handlers_in_an_apps_module_are_found(client):
    accept(client, "member.joined", object={"name": "Ada"})
    assert webhooks.drain() == 1
    assert Member.objects.get().name == "Ada"


def test_handlers_survive_a_change_of_the_settings(client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "TOLERANCE": 10}):
        accept(client, "member.joined", object={"name": "Ada"})
        assert webhooks.drain() == 1
    accept(client, "member.joined", object={"name": "Grace"})
    assert webhooks.drain() == 1
    assert Member.objects.count() == 2


def test_the_name_of_the_module_is_a_setting(tmp_path, monkeypatch):
    from django.apps import apps

    modules = []
    monkeypatch.setattr("envoyou_django.apps.autodiscover_modules", modules.append)
    with override_settings(ENVOYOU={"HANDLERS_MODULE": "hooks.envoyou"}):
        apps.get_app_config("envoyou_django").ready()
    assert modules == ["hooks.envoyou"]


def test_an_async_handler_runs_in_the_tests_transaction(client):
    accept(client, "member.invited", object={"name": "Grace"})
    assert webhooks.drain() == 1
    assert Member.objects.get().name == "Grace"


@pytest.mark.parametrize("early", [True, False], ids=["before setup", "after setup"])
def test_a_handler_can_be_registered_at_any_time(client, early):
    if not early:
        assert webhooks.name == "default"
    handled = []

    @webhooks.on("shop.opened")
    def note(event):
        handled.append(event.id)

    accept(client, "shop.opened", id="evt_shop")
    assert webhooks.drain() == 1
    assert handled == ["evt_shop"]


def test_a_handler_registered_during_an_override_ends_with_it(client):
    handlers = Handlers()
    handled = []

    @handlers.on("shop.closed")
    def note(event):
        handled.append(event.id)

    for round in ("evt_1", "evt_2"):
        with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET}):
            # In the second round its name would be taken if it were still registered.
            webhooks.include(handlers)
            accept(client, "shop.closed", id=round)
            assert webhooks.drain() == 1
    accept(client, "shop.closed", id="evt_3")
    webhooks.drain()
    assert handled == ["evt_1", "evt_2"]
    assert webhooks.inbox.get("evt_3").status == "ignored"


def test_the_options_of_a_handler_are_passed_to_the_core(client):
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


def test_an_async_handler_past_its_time_limit_is_cancelled_and_has_failed(client):
    """Although it runs on its own event loop, in a thread that cannot be stopped."""
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


def test_two_handlers_with_one_name_are_an_error():
    def note(event): ...

    webhooks.on("shop.opened")(note)
    with pytest.raises(ConfigurationError, match="two handlers"):
        webhooks.on("shop.closed")(note)


@pytest.mark.parametrize("name", ["connection", "session"])
def test_a_connection_parameter_is_an_error(name):
    def note(event, connection): ...

    async def note_in_a_session(event, session): ...

    with pytest.raises(ConfigurationError, match=f"names '{name}'"):
        webhooks.on("shop.opened")({"connection": note, "session": note_in_a_session}[name])


REGISTERED = ["on_dead", "on_worker_start", "on_worker_stop", "subscribe"]


@pytest.mark.parametrize("register", REGISTERED)
def test_a_hook_can_be_registered_without_a_secret(register):
    with override_settings(ENVOYOU={}):
        getattr(webhooks, register)(lambda *_: None)


def test_hooks_survive_a_change_of_the_settings_but_hooks_of_an_override_end_with_it(client):
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
