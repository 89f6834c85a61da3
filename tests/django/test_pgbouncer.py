"""Tests of the Django inbox behind a real PgBouncer in transaction mode."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from envoyou_core.inbox import ClaimFilter, Settlement, Status
from envoyou_django.inbox.inbox import OrmInbox
from tests.django.databases import empty, in_a_thread, inbox_on, postgres_database
from tests.inbox.acts import LEASE, PATIENCE, entry

WORKERS = 4
"""More than PgBouncer has server connections, so that transactions switch between them."""


@pytest.fixture
def alias(pgbouncer_url, django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), postgres_database("postgres", pgbouncer_url, "envoyou_django"):
        # As documented.
        connections.settings["postgres"]["DISABLE_SERVER_SIDE_CURSORS"] = True
        with inbox_on("postgres"):
            yield "postgres"
            empty("postgres")


def test_concurrent_adding_claiming_and_settling(alias):
    inbox = OrmInbox()
    ordered = ClaimFilter(ordered=("*",))

    def work(number):
        for index in range(8):
            inbox.add(entry(f"evt_{number}_{index}")).result(PATIENCE)
        claimed = []
        for turn in range(20):
            claims = inbox.claim(3, LEASE, ordered) if turn % 2 else inbox.claim(3, LEASE)
            inbox.renew(claims, LEASE)
            for claim in claims:
                with inbox.transaction(claim, {}, lambda: Settlement(Status.PROCESSED, attempts=1)):
                    pass
                claimed.append(claim.event.id)
        return claimed

    with ThreadPoolExecutor(WORKERS) as pool:
        calls = [in_a_thread(pool, lambda number=number: work(number)) for number in range(WORKERS)]
        claimed = Counter(id for call in calls for id in call.result(60))
    assert set(claimed.values()) == {1}
    assert len(claimed) == inbox.stats().by_status[Status.PROCESSED] == 8 * WORKERS
    assert len(inbox.list(limit=50)) == 8 * WORKERS
    inbox.close()


def test_no_session_state_is_left_on_shared_connections(alias):
    inbox = OrmInbox()
    for _ in range(10):
        inbox.claim(1, LEASE, ClaimFilter(ordered=("*",)))
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(r"SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '\_pg3\_%%'", [])
        assert cursor.fetchone() == (0,)
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory'"
        )
        assert cursor.fetchone() == (0,)
    inbox.close()
