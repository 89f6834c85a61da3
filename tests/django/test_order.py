"""Ordered events and concurrent claims: rows that a claim does not see yet must not break the order."""

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connections, transaction

from envoyou_core.inbox import ClaimFilter, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django.inbox.claims import claimable
from envoyou_django.inbox.inbox import OrmInbox
from tests.django.databases import empty, in_a_thread, inbox_on, wait_until_locked

ORDERED = ClaimFilter(ordered=("user.*",))
LEASE = 60.0
PATIENCE = 20.0


def add(inbox, id, created, object_id="usr_1"):
    event = sample_event("user.updated", id=id, created=created, object={"id": object_id})
    return inbox.add(NewEvent(event)).result()


def claim_ids(inbox, limit=10):
    return [claim.event.id for claim in inbox.claim(limit, LEASE, ORDERED)]


@pytest.fixture
def inbox(server_alias, clock, django_db_blocker):
    with django_db_blocker.unblock(), inbox_on(server_alias):
        inbox = OrmInbox(clock=clock)
        yield inbox
        empty(server_alias)


@pytest.mark.parametrize("first", [True, False], ids=["in the first claim", "later"])
def test_an_older_event_that_arrives_while_a_newer_one_is_claimed_waits(server_alias, inbox, first):
    if not first:
        claim_ids(inbox)
    add(inbox, "evt_new", created=2)
    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic(using=server_alias):
            assert claim_ids(inbox) == ["evt_new"]
            in_a_thread(pool, lambda: add(inbox, "evt_old", created=1)).result(PATIENCE)
            other = in_a_thread(pool, lambda: claim_ids(inbox))
            wait_until_locked(server_alias, other)
        assert other.result(PATIENCE) == []
    assert inbox.get("evt_old").status is Status.RECEIVED


def test_an_event_that_arrives_during_a_claim_is_not_claimed_together_with_a_later_one(
    server_alias, inbox, monkeypatch
):
    select, pause = claimable, "pg_sleep(0.2) IS NOT NULL" if server_alias == "postgres" else "SLEEP(0.2) = 0"
    monkeypatch.setattr(
        "envoyou_django.inbox.inbox.claimable", lambda *arguments: select(*arguments).extra(where=[pause])
    )
    for number, object_id in enumerate(["usr_1", "usr_2", "usr_3", "usr_4"]):
        add(inbox, f"evt_{number}", number + 1, object_id)
    with ThreadPoolExecutor(1) as pool:
        claim = in_a_thread(pool, lambda: inbox.claim(10, LEASE, ORDERED))
        # The query pauses at each of the four rows.
        time.sleep(0.5)
        add(inbox, "evt_old", created=0)
        objects = [claim.event.object_id for claim in claim.result(PATIENCE)]
    assert len(objects) == len(set(objects)) >= 4


@pytest.mark.parametrize("server_alias", ["postgresql"], indirect=True)
def test_an_older_event_waits_with_repeatable_read_isolation(server_alias, inbox, monkeypatch):
    """Only on PostgreSQL: MariaDB then locks the gaps between rows as well, so no event can arrive during a claim."""
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    options = {"isolation_level": IsolationLevel.REPEATABLE_READ}
    monkeypatch.setitem(connections.settings[server_alias], "OPTIONS", options)
    connections[server_alias].close()
    try:
        test_an_older_event_that_arrives_while_a_newer_one_is_claimed_waits(server_alias, inbox, first=True)
    finally:
        connections[server_alias].close()


def test_inboxes_with_different_names_do_not_block_each_other(server_alias, inbox, clock):
    billing = OrmInbox(name="billing", clock=clock)
    claim_ids(billing)
    claim_ids(inbox)
    add(inbox, "evt_1", created=1)
    with ThreadPoolExecutor(1) as pool, transaction.atomic(using=server_alias):
        assert claim_ids(inbox) == ["evt_1"]
        assert in_a_thread(pool, lambda: claim_ids(billing)).result(PATIENCE) == []


def test_several_workers_claim_the_events_of_each_object_in_order(inbox_alias, clock):
    objects, events, workers = 6, 6, 4
    inbox = OrmInbox(clock=clock)
    for created in reversed(range(events)):
        for number in range(objects):
            add(inbox, f"evt_{number}_{created}", created, f"usr_{number}")
    claimed, in_progress = defaultdict(list), set()
    barrier = Barrier(workers)

    def work():
        barrier.wait(PATIENCE)
        while inbox.stats().by_status[Status.PROCESSED] < objects * events:
            claims = inbox.claim(4, LEASE, ORDERED)
            for claim in claims:
                assert claim.event.object_id not in in_progress
                in_progress.add(claim.event.object_id)
                claimed[claim.event.object_id].append(claim.event.created)
            for claim in claims:
                in_progress.remove(claim.event.object_id)
            inbox.settle_all([(claim, Settlement(Status.PROCESSED, 1)) for claim in claims])

    with ThreadPoolExecutor(workers) as pool:
        for future in [in_a_thread(pool, work) for _ in range(workers)]:
            future.result(PATIENCE)
    assert claimed == {f"usr_{number}": list(range(events)) for number in range(objects)}


def test_on_sqlite_a_claim_without_claimable_events_takes_no_lock(
    django_db_setup, django_db_blocker, clock, monkeypatch
):
    """Not even if an event is due but blocked, because it can be blocked for hours."""
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 0)
    with django_db_blocker.unblock(), ThreadPoolExecutor(1) as pool, inbox_on("default"):
        inbox = OrmInbox(clock=clock)
        add(inbox, "evt_1", created=1)
        (claim,) = inbox.claim(1, LEASE, ORDERED)
        add(inbox, "evt_2", created=2)
        try:
            with transaction.atomic():
                inbox.renew([claim], LEASE)
                assert in_a_thread(pool, lambda: claim_ids(inbox)).result(PATIENCE) == []
        finally:
            empty("default")


@pytest.mark.django_db
def test_events_are_ordered_inside_the_transaction_of_a_test(clock):
    inbox = OrmInbox(clock=clock)
    for created in (3, 2):
        add(inbox, f"evt_{created}", created)
    assert claim_ids(inbox) == ["evt_2"]
    add(inbox, "evt_1", created=1)
    assert claim_ids(inbox) == []
    clock.advance(LEASE)
    assert claim_ids(inbox) == ["evt_1"]
