"""Queries with `ProcessedEvent.objects`, and the database that they read."""

from datetime import timedelta

import pytest

from envoyou_core.inbox import ClaimFilter, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from envoyou_django.inbox.bulk import change_in_batches, requeueing
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from tests.django.conftest import SECRET
from tests.django.databases import Router, empty, sqlite_database

LEASE = 60.0


class WithReplica(Router):
    """Routes all reads to a database without tables."""

    def db_for_read(self, model, **hints):
        return "contract"


@pytest.fixture
def replica(settings, tmp_path, inbox_alias):
    settings.DATABASE_ROUTERS = [f"{__name__}.WithReplica"]
    with sqlite_database("contract", tmp_path / "replica.db", "contenttypes"):
        yield "contract"
        empty(inbox_alias)


def add(inbox, id, **values):
    return inbox.add(NewEvent(sample_event("user.updated", id=id, **values))).result()


def ids(rows):
    return list(rows.values_list("event_id", flat=True))


def settle(inbox, id, status, **values):
    (claim,) = [claim for claim in inbox.claim(10, LEASE) if claim.event.id == id]
    assert inbox.settle(claim, Settlement(status, 1, **values))


def test_due(inbox_alias, clock, settings):
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock}
    inbox = OrmInbox(clock=clock)
    add(inbox, "evt_processed")
    settle(inbox, "evt_processed", Status.PROCESSED)
    add(inbox, "evt_failed")
    settle(inbox, "evt_failed", Status.FAILED, retry_in=5)
    add(inbox, "evt_leased")
    clock.advance(1)
    inbox.claim(10, LEASE)
    add(inbox, "evt_new")
    assert ids(ProcessedEvent.objects.due()) == ["evt_new"]
    clock.advance(4)
    assert ids(ProcessedEvent.objects.due()) == ["evt_new", "evt_failed"]
    assert ids(ProcessedEvent.objects.due(clock.moment(LEASE))) == ["evt_new", "evt_failed", "evt_leased"]
    assert ids(ProcessedEvent.objects.filter(type="user.updated").due(clock.moment(-5))) == []


def test_dead(inbox_alias, clock, settings):
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock}
    inbox = OrmInbox(clock=clock)
    for number, status in enumerate(Status):
        add(inbox, f"evt_{number}")
        if status not in {Status.RECEIVED, Status.PROCESSING}:
            settle(inbox, f"evt_{number}", status, retry_in=100.0 if status is Status.FAILED else None)
    dead = f"evt_{list(Status).index(Status.DEAD)}"
    assert ids(ProcessedEvent.objects.dead()) == [dead]
    assert ProcessedEvent.objects.dead().requeue() == 1
    assert ids(ProcessedEvent.objects.dead()) == []
    assert (inbox.get(dead).status, inbox.get(dead).next_attempt_at) == (Status.RECEIVED, clock.moment())


def test_requeue_drops_a_handler_from_the_events_that_owe_it(inbox_alias, clock):
    inbox = OrmInbox(clock=clock)
    for id, owed in (("evt_1", {"bill": True}), ("evt_2", {"mail": True})):
        add(inbox, id)
        settle(inbox, id, Status.DEAD, owed=owed)
    rows = ProcessedEvent.objects.dead()
    assert inbox.requeue(status="dead", dry_run=True) == 2
    assert inbox.requeue(drop_handlers=["bill"], dry_run=True) == 1
    assert rows.requeue(drop_handlers=["bill"]) == 1
    assert ids(ProcessedEvent.objects.dead()) == ["evt_2"]
    with pytest.raises(ValueError, match="drop_handlers must be a list"):
        rows.requeue(drop_handlers="bill")


def test_for_object(inbox_alias, clock):
    inbox = OrmInbox(clock=clock)
    long = "usr_" + "x" * 300
    for id, payload in {
        "evt_1": {"id": "usr_1"},
        "evt_2": {"id": "usr_2"},
        "evt_3": {"user_id": "usr_1"},
        "evt_4": {"id": long},
        "evt_5": {},
    }.items():
        add(inbox, id, object=payload)
    rows = ProcessedEvent.objects.order_by("pk")
    assert ids(rows.for_object("usr_1")) == ["evt_1", "evt_3"]
    assert ids(rows.for_object(long)) == ["evt_4"]
    assert ids(rows.for_object("")) == []
    assert ids(rows.for_object("usr_1").dead()) == []


def test_a_project_reads_from_the_database_that_is_written(replica, inbox_alias, clock):
    add(OrmInbox(clock=clock), "evt_1")
    assert ProcessedEvent.objects.all().db == inbox_alias
    for rows in (ProcessedEvent.objects.all(), ProcessedEvent.objects.due(clock.moment()), ProcessedEvent.objects):
        assert ids(rows) == ["evt_1"]
    assert ProcessedEvent.objects.get().event_id == "evt_1"
    # Unless the project selects a database.
    assert ProcessedEvent.objects.using(replica).db == ProcessedEvent.objects.db_manager(replica).all().db == replica


def test_the_inbox_never_reads_from_a_replica(replica, client, inbox_alias):
    ordered = ClaimFilter(ordered=("user.*",))
    delivery = sign_delivery(sample_event("user.updated", id="evt_1", object={"id": "usr_1"}), secret=SECRET)
    for expected in ({"received": True}, {"received": True, "duplicate": True}):
        response = client.post(
            "/webhooks/envoyou", delivery.body, content_type="application/json", headers=delivery.headers
        )
        assert response.json() == expected
    inbox = webhooks.inbox
    assert inbox.seconds_until_due() <= 0
    webhooks.pause(type="user.*")
    assert webhooks.drain() == 0
    webhooks.resume(type="user.*")
    (claim,) = inbox.claim(10, LEASE, ordered)
    assert inbox.newest_applied(claim) is None
    inbox.renew([claim], LEASE)
    with inbox.transaction(claim, {}, lambda: Settlement(Status.DEAD, 1)):
        pass
    assert inbox.requeue("evt_1") == 1
    webhooks.on("user.*", ordered=True)(lambda event: None)
    assert webhooks.drain() == 1
    assert [record.status for record in inbox.list(object_id="usr_1")] == [Status.PROCESSED]
    assert inbox.stats().by_status[Status.PROCESSED] == 1
    assert inbox.erase("usr_1") == 1
    assert inbox.scrub(timedelta(0)) == 0
    assert inbox.prune(timedelta(seconds=-1)) == 1
    assert inbox.prune_watermarks(timedelta(0)) == 1
    assert inbox.get("evt_1") is None


def test_a_bulk_change_leaves_out_what_changed_after_it_was_listed(inbox_alias, clock, settings, monkeypatch):
    settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET, "CLOCK": clock}
    monkeypatch.setattr("envoyou_django.inbox.bulk.BATCH", 1)
    inbox = OrmInbox(clock=clock)
    for id in ("evt_1", "evt_2", "evt_3"):
        add(inbox, id)
        settle(inbox, id, Status.FAILED, retry_in=5)
    batches = change_in_batches(ProcessedEvent.objects.all(), requeueing(), clock.moment())
    assert [row.event_id for row in next(batches).rows] == ["evt_1"]
    clock.advance(5)
    held = {claim.event.id: claim for claim in inbox.claim(10, LEASE)}
    assert [[row.event_id for row in batch.rows] for batch in batches] == [[], []]
    assert inbox.settle(held["evt_2"], Settlement(Status.PROCESSED, 2))


@pytest.mark.parametrize("method", ["requeue", "make_due", "mark_dead"])
def test_a_template_cannot_change_events(method):
    assert getattr(ProcessedEvent.objects.dead(), method).alters_data
    assert getattr(ProcessedEvent.objects, method).alters_data
