"""A PostgreSQL server whose defaults do not suit the inbox: it sets what it needs on its own transactions."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connections
from django.test import override_settings

from envoyou_core.inbox import ClaimFilter, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import webhooks
from envoyou_django.inbox import commits, inbox
from tests import services
from tests.django.conftest import SECRET
from tests.django.databases import in_a_thread, inbox_on, postgres_database

ALIAS = "postgres"
PATIENCE = 60
EVENTS = 40


@pytest.fixture
def unusual(postgres_server, django_db_setup, django_db_blocker, monkeypatch):
    """A database that is serializable and does not wait for the disk."""
    monkeypatch.setattr(commits, "_default_levels", {})
    with (
        services.database(postgres_server) as url,
        django_db_blocker.unblock(),
        postgres_database(ALIAS, url, "envoyou_django"),
        inbox_on(ALIAS),
        override_settings(ENVOYOU={"WEBHOOK_SECRET": SECRET, "RETRY_MAX_ATTEMPTS": 1, "HANDOFF": "manual"}),
    ):
        with connections[ALIAS].cursor() as cursor:
            name = connections[ALIAS].settings_dict["NAME"]
            for setting in ("default_transaction_isolation = serializable", "synchronous_commit = off"):
                cursor.execute(f"ALTER DATABASE {name} SET {setting}")
        connections[ALIAS].close()
        yield
        webhooks.inbox.close()
        connections[ALIAS].close()


def settings():
    names = ("transaction_isolation", "synchronous_commit", "lock_timeout", "statement_timeout")
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
        return list(cursor.fetchone())


def test_concurrent_acceptance_and_claims_do_not_conflict(unusual):
    """By its default the database would end some of these transactions because of one another."""
    added, settled = [], []

    def add():
        for _ in range(EVENTS):
            added.append(webhooks.inbox.add(NewEvent(sample_event("shop.opened"))).result(PATIENCE))

    def work(claim_filter):
        while len(settled) < 3 * EVENTS:
            for claim in webhooks.inbox.claim(3, 60, claim_filter):
                webhooks.inbox.renew([claim], 60)
                assert webhooks.inbox.record(claim, {})
                assert webhooks.inbox.settle(claim, Settlement(Status.PROCESSED, 1))
                settled.append(claim.event.id)

    with ThreadPoolExecutor(6) as pool:
        calls = [in_a_thread(pool, add) for _ in range(3)]
        calls += [in_a_thread(pool, lambda: work(ClaimFilter(ordered=("*",)))) for _ in range(3)]
        for call in calls:
            call.result(PATIENCE)
    assert len(set(settled)) == len(settled) == len(added)


def test_an_acceptance_is_committed_to_disk_within_the_answer_budget(unusual, monkeypatch):
    seen = []

    @contextmanager
    def committed(alias):
        with commits.committed(alias):
            yield
            seen.append(settings())

    monkeypatch.setattr(inbox, "committed", committed)
    webhooks.inbox.add(NewEvent(sample_event())).result(PATIENCE)
    assert seen == [["read committed", "on", "2s", "2500ms"]]
    assert settings() == ["serializable", "off", "0", "0"]


def test_a_handlers_transaction_keeps_the_isolation_level_of_the_project(unusual):
    seen = []
    webhooks.on("shop.opened", name="reads")(lambda event: seen.append(settings()[:2]))
    webhooks.inbox.add(NewEvent(sample_event("shop.opened"))).result(PATIENCE)
    assert webhooks.drain() == 1
    assert seen == [["serializable", "off"]]
