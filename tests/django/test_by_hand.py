"""Manual operations on events, on every database: `make_due` and `mark_dead`."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction

from envoyou_core.inbox import Settlement, Status
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from tests.django.databases import empty, in_a_thread, inbox_on, wait_until_locked
from tests.inbox.acts import LEASE, ORDERED, PATIENCE, add, add_about

MARKED_DEAD = "marked dead by hand"


@pytest.fixture
def inbox(inbox_alias, clock):
    return OrmInbox(clock=clock)


@pytest.fixture
def rows(inbox_alias):
    return ProcessedEvent.objects.using(inbox_alias)


def fail(inbox, id, retry_in=3600.0):
    add(inbox, id)
    (claim,) = inbox.claim(1, LEASE)
    inbox.settle(claim, Settlement(Status.FAILED, 1, retry_in=retry_in, error="no mail today", seconds=1))


def test_a_waiting_event_becomes_due(inbox, rows, clock):
    fail(inbox, "evt_1")
    assert rows.make_due(clock.moment()) == 1
    record = inbox.get("evt_1")
    assert (record.status, record.attempts, record.next_attempt_at) == (Status.FAILED, 1, clock.moment())
    (claim,) = inbox.claim(1, LEASE)
    assert claim.attempts == 1


def test_a_due_event_keeps_its_place(inbox, rows, clock):
    add(inbox, "evt_1")
    since = clock.moment()
    clock.advance(5)
    assert rows.make_due(clock.moment()) == 0
    assert inbox.get("evt_1").next_attempt_at == since


def test_an_event_in_progress_or_finished_does_not_become_due(inbox, rows, clock):
    for id in ("evt_held", "evt_done"):
        add(inbox, id)
    claimed, done = inbox.claim(2, LEASE)
    inbox.settle(done, Settlement(Status.PROCESSED, 1))
    assert rows.make_due(clock.moment()) == 0
    assert inbox.claim(2, LEASE) == []
    assert inbox.settle(claimed, Settlement(Status.PROCESSED, 1))


def test_waiting_events_are_marked_dead(inbox, rows, clock):
    fail(inbox, "evt_failed")
    add(inbox, "evt_new")
    assert rows.mark_dead(clock.moment()) == 2
    failed, new = inbox.get("evt_failed"), inbox.get("evt_new")
    assert (failed.status, failed.settled_at, failed.next_attempt_at) == (Status.DEAD, clock.moment(), None)
    assert (failed.last_error, new.last_error) == ("no mail today", MARKED_DEAD)
    clock.advance(2 * LEASE + 3600)
    assert inbox.claim(2, LEASE) == []
    assert rows.mark_dead(clock.moment()) == 0
    assert inbox.requeue("evt_new") == 1


def test_only_the_selected_events_are_marked_dead(inbox, rows, clock):
    for id in ("evt_1", "evt_2", "evt_3"):
        add(inbox, id)
    assert rows.filter(event_id__in=["evt_1", "evt_3"]).order_by("-pk").mark_dead(clock.moment()) == 2
    assert [claim.event.id for claim in inbox.claim(9, LEASE)] == ["evt_2"]


def test_finished_events_are_not_marked_dead(inbox, rows, clock):
    for id in ("evt_1", "evt_2"):
        add(inbox, id)
    for claim, status in zip(inbox.claim(2, LEASE), (Status.PROCESSED, Status.IGNORED), strict=True):
        inbox.settle(claim, Settlement(status, 1))
    assert rows.mark_dead(clock.moment()) == 0
    assert {record.status for record in inbox.list()} == {Status.PROCESSED, Status.IGNORED}


def test_a_claimed_event_is_not_marked_dead(inbox, rows, clock):
    add(inbox)
    (claim,) = inbox.claim(1, LEASE)
    clock.advance(LEASE - 1)
    assert rows.mark_dead(clock.moment()) == 0
    assert inbox.settle(claim, Settlement(Status.PROCESSED, 1))


def test_after_its_lease_a_worker_cannot_settle_an_event_marked_dead(inbox, rows, clock):
    add(inbox)
    (claim,) = inbox.claim(1, LEASE)
    clock.advance(LEASE)
    assert rows.mark_dead(clock.moment()) == 1
    inbox.renew([claim], LEASE)
    assert not inbox.record(claim, {})
    assert not inbox.settle(claim, Settlement(Status.PROCESSED, 1))
    assert inbox.get("evt_1").status is Status.DEAD


def test_a_pending_erasure_is_done_when_the_event_is_marked_dead(inbox, rows, clock):
    add_about(inbox, "usr_1", "evt_1")
    inbox.erase("usr_1")
    assert rows.mark_dead(clock.moment()) == 1
    record = inbox.get("evt_1")
    assert (record.status, record.scrubbed_at, record.last_error) == (Status.DEAD, clock.moment(), None)
    assert b"private" not in record.event.body


def test_an_event_marked_dead_no_longer_blocks_the_next_one(inbox, rows, clock):
    add_about(inbox, "usr_1", "evt_1")
    add_about(inbox, "usr_1", "evt_2", later=1)
    (first,) = inbox.claim(9, LEASE, ORDERED)
    inbox.settle(first, Settlement(Status.FAILED, 1, retry_in=3600.0, error="no mail today"))
    rows.filter(event_id="evt_1").mark_dead(clock.moment())
    assert [claim.event.id for claim in inbox.claim(9, LEASE, ORDERED)] == ["evt_2"]


@pytest.fixture
def server_inbox(server_alias, clock, django_db_blocker):
    with django_db_blocker.unblock(), inbox_on(server_alias):
        yield OrmInbox(clock=clock)
        empty(server_alias)


def test_an_event_claimed_concurrently_is_not_marked_dead(server_inbox, server_alias, clock):
    """The event was waiting when it was selected, but is claimed before its row can be changed."""
    add(server_inbox)
    rows = ProcessedEvent.objects.using(server_alias)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(using=server_alias):
            (claim,) = server_inbox.claim(1, LEASE)
            marked = in_a_thread(pool, lambda: rows.all().mark_dead(clock.moment()))
            wait_until_locked(server_alias, marked)
            assert not marked.done()
        assert marked.result(PATIENCE) == 0
    assert server_inbox.settle(claim, Settlement(Status.PROCESSED, 1))
