"""Handlers that change the session of their connection on PostgreSQL, as those of a project with tenants do."""

import contextlib
import uuid

import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import override_settings

from envoyou_core.inbox import NewEvent, Status
from envoyou_core.inbox import sessions as core_sessions
from envoyou_core.observability import LeaseLost
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.inbox import sessions
from tests.django.conftest import SECRET

PATIENCE = 20

pytestmark = pytest.mark.parametrize("inbox_alias", ["postgresql"], indirect=True)


@pytest.fixture(params=[0, None], ids=["a connection for each event", "persistent connections"])
def project(request, clock, monkeypatch):
    settings = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock, "HANDOFF": "manual"}
    policy = {"RETRY_MAX_ATTEMPTS": 1, "RETRY_MAX_INTERRUPTIONS": 0}
    with override_settings(ENVOYOU=settings | policy):
        yield request.param


@pytest.fixture(autouse=True)
def max_age(project, inbox_alias, monkeypatch):
    monkeypatch.setattr(sessions, "_usual", {})
    monkeypatch.setattr(core_sessions, "_named", ())
    connections[inbox_alias].close()
    monkeypatch.setitem(connections.settings[inbox_alias], "CONN_MAX_AGE", project)
    yield
    connections[inbox_alias].close()


@pytest.fixture
def schema(inbox_alias):
    """A schema with tables of its own, as each tenant has."""
    name = f"tenant_{uuid.uuid4().hex}"
    with connections[inbox_alias].cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {name}")
        cursor.execute(f"CREATE TABLE {name}.envoyou_processed_event (LIKE envoyou_processed_event)")
    yield name
    with connections[inbox_alias].cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {name} CASCADE")


class TenantWrapper(DatabaseWrapper):
    """Sets the search path before each statement, as the one of django-tenants does; closing it changes nothing."""

    tenant = None

    def set_tenant(self, tenant):
        self.tenant = tenant

    def _cursor(self, name=None):
        cursor = super()._cursor(name)
        if self.tenant is not None:
            with contextlib.closing(self.create_cursor()) as raw:
                raw.execute(f"SET search_path = {self.tenant}")
        return cursor


def add():
    event = sample_event("shop.opened")
    webhooks.inbox.add(NewEvent(event)).result(PATIENCE)
    return event


def test_a_handler_that_sets_a_tenant_has_failed_and_the_next_event_is_unaffected(inbox_alias, schema, monkeypatch):
    def create_connection(alias):
        return TenantWrapper(connections.settings[alias], alias)

    monkeypatch.setattr(connections, "create_connection", create_connection)
    sessions.replace_connection(inbox_alias)
    notices, tenants = [], []
    webhooks.subscribe(notices.append)

    @webhooks.on("shop.opened", name="opens")
    def opens(event):
        tenants.append(connections[inbox_alias].tenant)
        if len(tenants) == 1:
            connections[inbox_alias].set_tenant(schema)

    first, second = add(), add()
    assert webhooks.drain() == 2
    assert webhooks.inbox.get(first.id).status is Status.DEAD
    assert f"search_path is '{schema}' instead of" in webhooks.inbox.get(first.id).last_error
    assert webhooks.inbox.get(second.id).status is Status.PROCESSED
    assert tenants == [None, None]
    assert not any(isinstance(notice, LeaseLost) for notice in notices)
    sessions.replace_connection(inbox_alias)


@pytest.mark.parametrize("setting", ["statement_timeout", "app.tenant", "work_mem"])
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_what_a_handler_has_set_does_not_reach_the_next_event(inbox_alias, atomic, setting):
    seen = []

    @webhooks.on("shop.opened", name="sets", atomic=atomic)
    def sets(event):
        with connections[inbox_alias].cursor() as cursor:
            cursor.execute(f"SET {setting} = 12345")

    @webhooks.on("shop.opened", name="reads")
    def reads(event):
        with connections[inbox_alias].cursor() as cursor:
            cursor.execute("SELECT current_setting(%s, true)", [setting])
            seen.append(cursor.fetchone()[0])

    with connections[inbox_alias].cursor() as cursor:
        cursor.execute("SELECT current_setting(%s, true)", [setting])
        usual = cursor.fetchone()[0]
    add(), add()
    assert webhooks.drain() == 2
    assert [value or "" for value in seen] == [usual or ""] * 2


def test_a_plain_handler_that_hides_the_inbox_keeps_its_lease(inbox_alias, schema):
    calls = []

    @webhooks.on("shop.opened", name="hides", atomic=False)
    def hides(event):
        calls.append("hides")
        with connections[inbox_alias].cursor() as cursor:
            cursor.execute(f"SET search_path = {schema}")

    webhooks.on("shop.opened", name="follows")(lambda event: calls.append("follows"))
    event = add()
    assert webhooks.drain() == 1
    assert calls == ["hides", "follows"]
    assert webhooks.inbox.get(event.id).status is Status.PROCESSED
