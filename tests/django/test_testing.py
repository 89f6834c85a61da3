"""`envoyou_django.testing` in each kind of Django test."""

from __future__ import annotations

from types import ModuleType

import pytest
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.test.testcases import DatabaseOperationForbidden
from django.urls import include, path

from envoyou_core import ConfigurationError, PermanentError, Tenant
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.testing import WebhookClient, WebhookTestMixin
from tests.django.conftest import SECRET
from tests.django.members.models import Member

pytest_plugins = ["envoyou_django.testing.fixtures"]

committed: list[str] = []


def run_on_commit(event):
    transaction.on_commit(lambda: committed.append(event.id))


class InATestCase(WebhookTestMixin, TestCase):
    def test_handlers_run_inside_its_transaction(self):
        response = self.post_event("member.joined", {"name": "Ada"})
        assert (response.status_code, response.json()) == (200, {"received": True})
        assert Member.objects.get().name == "Ada"
        assert connection.in_atomic_block
        assert webhooks.inbox.get(response.event.id).status == "processed"

    def test_its_changes_are_rolled_back(self):
        assert Member.objects.count() == 0
        assert webhooks.inbox.stats().total == 0

    def test_an_event_is_redelivered(self):
        event = sample_event("member.joined", object={"name": "Ada"})
        assert self.send_event(event).json() == {"received": True}
        assert self.send_event(event).json() == {"received": True, "duplicate": True}
        assert Member.objects.count() == 1

    def test_a_forged_event_is_refused(self):
        response = self.send_event(sample_event("member.joined"), secret="whsec_other")
        assert response.status_code == 401
        assert webhooks.inbox.stats().total == 0

    def test_on_commit_callbacks_run(self):
        webhooks.on("shop.opened", name="on commit")(run_on_commit)
        response = self.post_event("shop.opened", id="evt_1")
        assert response.event.id == "evt_1"
        assert committed == ["evt_1"]
        committed.clear()

    def test_a_handlers_exception_is_raised_in_the_test(self):
        @webhooks.on("shop.opened", name="fails")
        def fails(event):
            raise PermanentError("no such shop")

        with self.assertRaisesMessage(PermanentError, "no such shop"):
            self.post_event("shop.opened")
        assert webhooks.inbox.stats().by_status["dead"] == 1

    def test_the_failure_of_another_event_is_not_raised(self):
        @webhooks.on("shop.opened", name="fails")
        def fails(event):
            raise PermanentError("no such shop")

        WebhookClient(run_handlers=False).post("shop.opened")
        self.post_event("member.joined", {"name": "Ada"})
        assert webhooks.inbox.stats().by_status["dead"] == 1

    async def test_in_an_async_test(self):
        response = await self.apost_event("member.joined", {"name": "Ada"})
        assert response.json() == {"received": True}
        assert await Member.objects.acount() == 1
        again = await self.asend_event(response.event)
        assert again.json() == {"received": True, "duplicate": True}


class InATestCaseThatRaisesNoErrors(WebhookTestMixin, TestCase):
    raise_handler_errors = False

    def test_an_event_fails_as_it_would_in_production(self):
        @webhooks.on("shop.opened", name="fails")
        def fails(event):
            raise ConnectionError("no shop")

        response = self.post_event("shop.opened")
        record = webhooks.inbox.get(response.event.id)
        assert (record.status, record.last_error) == ("failed", "ConnectionError: no shop")


class InATestCaseWithoutHandlers(WebhookTestMixin, TestCase):
    run_handlers = False
    webhook_url = "/webhooks/envoyou/"

    def test_events_wait_for_a_drain(self):
        response = self.post_event("member.joined", {"name": "Ada"})
        assert webhooks.inbox.get(response.event.id).status == "received"
        assert Member.objects.count() == 0
        assert webhooks.drain() == 1


class InATransactionTestCase(WebhookTestMixin, TransactionTestCase):
    def test_handlers_run_and_commit(self):
        webhooks.on("member.joined", name="on commit")(run_on_commit)
        response = self.post_event("member.joined", {"name": "Ada"})
        assert not connection.in_atomic_block
        assert Member.objects.get().name == "Ada"
        assert committed == [response.event.id]
        committed.clear()

    async def test_in_an_async_test(self):
        await self.apost_event("member.invited", {"name": "Ada"})
        assert (await Member.objects.aget()).name == "Ada"


# With pytest


def test_the_fixture(envoyou_client):
    envoyou_client.post("member.joined", {"name": "Ada"})
    assert Member.objects.get().name == "Ada"


@pytest.mark.django_db(transaction=True)
async def test_the_fixture_in_an_async_test(envoyou_client):
    response = await envoyou_client.apost("member.invited", {"name": "Ada"})
    assert response.status_code == 200
    assert (await Member.objects.aget()).name == "Ada"


def tenants(webhook_id):
    return {"wh_acme": Tenant("acme", "whsec_of_acme")}.get(webhook_id)


def test_the_event_is_signed_with_the_secret_of_its_endpoint(envoyou_client):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": tenants}):
        response = envoyou_client.post("member.joined", {"name": "Ada"}, webhook_id="wh_acme")
        assert webhooks.inbox.get(response.event.id).tenant == "acme"


def test_the_projects_clock_is_used(envoyou_client, clock):
    with override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "CLOCK": clock}):
        clock.advance(-86_400 * 365)
        response = envoyou_client.post("member.joined", {"name": "Ada"})
        assert response.status_code == 200
        assert response.event.created == int(clock())


def test_a_project_without_an_endpoint_is_reported(envoyou_client):
    urlconf = ModuleType("urlconf")
    urlconf.urlpatterns = [path("", include([]))]
    with override_settings(ROOT_URLCONF=urlconf), pytest.raises(ConfigurationError, match="no URL"):
        envoyou_client.post("member.joined")


# Without a database


def test_a_test_without_the_database_mark_gets_the_error_of_the_database(django_db_blocker):
    with django_db_blocker.block(), pytest.raises(RuntimeError, match="Database access not allowed"):
        WebhookClient().post("member.joined")


async def test_an_async_test_without_the_database_mark_gets_the_error_of_the_database(django_db_blocker):
    with django_db_blocker.block(), pytest.raises(RuntimeError, match="Database access not allowed"):
        await WebhookClient().apost("member.joined")


class TestWithoutDatabase(WebhookTestMixin, SimpleTestCase):
    def test_the_error_of_the_database_is_raised(self):
        with pytest.raises(DatabaseOperationForbidden, match="SimpleTestCase"):
            self.post_event("member.joined")

    def test_a_forged_event_is_refused(self):
        assert self.send_event(sample_event(), secret="whsec_wrong").status_code == 401


@pytest.mark.django_db
def test_a_database_without_tables_is_reported(monkeypatch):
    def fail(*_):
        raise ConfigurationError("the inbox's tables do not exist yet: run `manage.py migrate`")

    monkeypatch.setattr(OrmInbox, "add", fail)
    assert WebhookClient().post("member.joined").status_code == 503
    monkeypatch.setattr(OrmInbox, "open", fail)
    with pytest.raises(ConfigurationError, match="migrate"):
        WebhookClient().post("member.joined")
