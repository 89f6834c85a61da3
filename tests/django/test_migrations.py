"""From the table of the first release to this one's, while processes of the first release go on working."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connections
from django.db.migrations.loader import MigrationLoader

from envoyou_core import ConfigurationError
from envoyou_core.inbox import Added, ClaimFilter, HandlerStatus, NewEvent, Settlement, Status
from envoyou_core.testing import sample_event
from envoyou_django import migration_progress
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from tests.django.databases import inbox_on, postgres_database, sqlite_database
from tests.services import database

ORDERED = ClaimFilter(ordered=("user.*",))
LEASE = 60.0


@pytest.fixture(params=["sqlite", "postgresql"])
def alias(request, tmp_path, django_db_blocker):
    """A database of this test's own, with the tables as they are now."""
    with django_db_blocker.unblock():
        if request.param == "sqlite":
            with sqlite_database("contract", tmp_path / "project.db", "envoyou_django"), inbox_on("contract"):
                yield "contract"
        else:
            with (
                database(request.getfixturevalue("postgres_server")) as url,
                postgres_database("postgres", url, "envoyou_django"),
                inbox_on("postgres"),
            ):
                yield "postgres"


@pytest.fixture
def inbox(alias, clock):
    return OrmInbox(clock=clock)


@pytest.fixture
def first_release(alias, clock):
    """The first release's model: what its processes read and write."""
    state = MigrationLoader(connections[alias]).project_state(("envoyou_django", "0001_initial"))
    return FirstRelease(state.apps.get_model("envoyou_django", "ProcessedEvent").objects.using(alias), clock)


class FirstRelease:
    def __init__(self, rows, clock):
        self.rows = rows
        self.clock = clock

    def row(self, id, object_id, status=Status.RECEIVED, *, created=0, progress=None, lease_token=None):
        event = sample_event("user.updated", id=id, created=created, object={"id": object_id})
        finished = status in {Status.PROCESSED, Status.IGNORED, Status.DEAD}
        return self.rows.model(
            name="default",
            tenant="",
            event_id=id,
            type=event.type,
            created=event.created,
            body=event.body,
            status=status,
            attempts=0,
            crashes=0,
            progress=progress or {},
            received_at=self.clock.moment(),
            due_at=None if finished else self.clock.moment(),
            lease_token=lease_token,
            settled_at=self.clock.moment() if finished else None,
        )

    def store(self, id, object_id, status=Status.RECEIVED, **values):
        self.row(id, object_id, status, **values).save(using=self.rows.db)

    def claim(self, id):
        self.rows.filter(event_id=id).update(status="processing", due_at=self.clock.moment(LEASE), lease_token="theirs")

    def settle(self, id):
        self.rows.filter(event_id=id, lease_token="theirs").update(
            status="processed", due_at=None, lease_token=None, settled_at=self.clock.moment()
        )


def migrate(alias, to=None):
    call_command("migrate", *filter(None, ["envoyou_django", to]), database=alias, verbosity=0)


def about(inbox, object_id):
    return sorted(record.event.id for record in inbox.list(object_id=object_id))


def ids(claims):
    return [claim.event.id for claim in claims]


@pytest.mark.parametrize("many", [0, 2500])
def test_what_is_there_is_taken_along(alias, inbox, first_release, clock, many):
    migrate(alias, "0001")
    for number, status in enumerate(Status):
        first_release.store(f"evt_{status}", "usr_1", status, created=number)
    first_release.rows.bulk_create(
        first_release.row(f"evt_{number}", "usr_1", Status.PROCESSED) for number in range(many)
    )
    migrate(alias)
    assert not ProcessedEvent.objects.using(alias).exclude(object_key="usr_1").exists()
    assert inbox.stats().total == many + len(Status)
    assert all(record.history == () and record.scrubbed_at is None for record in inbox.list())
    assert ids(inbox.claim(10, LEASE, ORDERED)) == ["evt_received"]


def test_a_long_migration_shows_its_progress(alias, first_release, capsys, monkeypatch):
    migrate(alias, "0001")
    first_release.rows.bulk_create(first_release.row(f"evt_{number}", "usr_1") for number in range(2500))
    migrate(alias, "0003")
    assert capsys.readouterr().err == ""
    migrate(alias, "0002")
    monkeypatch.setattr(migration_progress, "INTERVAL", 0.0)
    migrate(alias, "0003")
    lines = capsys.readouterr().err.split()
    assert [word for word in lines if word.endswith("%")] == ["0%", "33%", "66%"]


def test_each_event_can_do_what_a_new_one_can(alias, inbox, first_release, clock):
    migrate(alias, "0001")
    for number, status in enumerate(Status):
        first_release.store(f"evt_{status}", f"usr_{status}", status, created=number, lease_token="theirs")
    migrate(alias)
    claims = {claim.event.id: claim for claim in inbox.claim(10, LEASE, ORDERED)}
    assert claims.keys() == {"evt_received", "evt_processing", "evt_failed"}
    assert [attempt.status for attempt in claims["evt_processing"].history] == [None]
    assert inbox.settle_all([(claim, Settlement(Status.PROCESSED, 1)) for claim in claims.values()]) == [True] * 3
    assert inbox.requeue("evt_dead") == inbox.requeue("evt_ignored") == 1
    assert inbox.erase("usr_processed") == 1
    assert inbox.get("evt_processed").scrubbed_at == clock.moment()
    clock.advance(10)
    assert inbox.scrub(timedelta(seconds=1)) == 3
    assert inbox.prune(timedelta(seconds=1)) == 4
    assert ids(inbox.claim(10, LEASE, ORDERED)) == ["evt_ignored", "evt_dead"]


def test_the_first_release_stores_claims_and_settles_beside_this_one(inbox, first_release):
    first_release.store("evt_1", "usr_1")
    first_release.claim("evt_1")
    assert inbox.claim(10, LEASE) == []
    assert inbox.add(NewEvent(sample_event("user.updated", id="evt_1"))).result() is Added.BODY_DIFFERS
    first_release.settle("evt_1")
    assert inbox.get("evt_1").status is Status.PROCESSED


def test_what_the_first_release_stores_waits_in_its_order(inbox, first_release, clock):
    first_release.store("evt_2", "usr_1", created=2)
    first_release.store("evt_1", "usr_1", created=1)
    first_release.store("evt_other", "usr_2", created=3)
    assert ids(inbox.claim(10, LEASE, ORDERED)) == ["evt_1", "evt_other"]
    assert inbox.claim(10, LEASE, ORDERED) == []


def test_what_nobody_has_looked_into_is_not_taken_out_of_order(alias, inbox, first_release, monkeypatch):
    """As when it is stored between the look and the claim."""
    first_release.store("evt_1", "usr_1")
    with monkeypatch.context() as patch:
        patch.setattr("envoyou_django.inbox.inbox.fill_object_keys", lambda rows: None)
        assert inbox.claim(10, LEASE, ORDERED) == []
        assert ids(inbox.claim(10, LEASE, ClaimFilter(ordered=("shop.*",)))) == ["evt_1"]


def test_what_the_first_release_has_applied_is_known(inbox, first_release, clock):
    first_release.store("evt_new", "usr_1", Status.PROCESSED, created=9)
    first_release.store("evt_half", "usr_1", Status.DEAD, created=11, progress={"welcome": "done"})
    first_release.store("evt_old", "usr_1", created=5)
    (claim,) = inbox.claim(10, LEASE)
    assert inbox.newest_applied(claim) == 11
    clock.advance(10)
    assert inbox.prune(timedelta(seconds=1), ("processed", "dead")) == 2
    assert inbox.newest_applied(claim) == 11


def test_what_is_pruned_before_anybody_looked_into_it_is_remembered(inbox, first_release, clock):
    first_release.store("evt_new", "usr_1", Status.PROCESSED, created=9)
    clock.advance(10)
    assert inbox.prune(timedelta(seconds=1)) == 1
    first_release.store("evt_old", "usr_1", created=5)
    (claim,) = inbox.claim(10, LEASE)
    assert inbox.newest_applied(claim) == 9


def test_what_the_first_release_has_stored_is_found_by_its_object(inbox, first_release):
    for id in ("evt_1", "evt_2"):
        first_release.store(id, "usr_1")
    first_release.store("evt_3", "usr_2")
    assert about(inbox, "usr_1") == ["evt_1", "evt_2"]
    assert inbox.erase("usr_2") == 1


def test_a_scrubbed_event_of_the_first_release_keeps_its_object(inbox, first_release, clock):
    first_release.store("evt_1", "usr_1", Status.PROCESSED)
    clock.advance(10)
    assert inbox.scrub(timedelta(seconds=1)) == 1
    assert about(inbox, "usr_1") == ["evt_1"]


def test_what_the_first_release_settles_although_it_is_to_be_erased_is_erased_when_asked_again(inbox, first_release):
    first_release.store("evt_1", "usr_1")
    first_release.claim("evt_1")
    assert inbox.erase("usr_1") == 1
    first_release.settle("evt_1")
    assert inbox.get("evt_1").scrubbed_at is None
    inbox.erase("usr_1")
    assert inbox.get("evt_1").scrubbed_at is not None


def test_an_inbox_on_tables_of_the_first_release_says_what_to_run(alias, inbox):
    inbox.open()
    migrate(alias, "0001")
    with pytest.raises(ConfigurationError, match=f"migrate --database {alias}"):
        inbox.open()


def test_the_way_back_loses_no_event(alias, inbox, first_release):
    inbox.add(NewEvent(sample_event("user.updated", id="evt_1"))).result()
    (claim,) = inbox.claim(1, LEASE)
    inbox.record(claim, {"welcome": HandlerStatus.DONE})
    migrate(alias, "0001")
    assert first_release.rows.get().progress == {"welcome": "done"}
    assert unique_columns(alias) == [["name", "tenant", "event_id"]]
    migrate(alias)
    assert inbox.get("evt_1").progress == {"welcome": HandlerStatus.DONE}
    assert unique_columns(alias) == [["name", "event_id", "tenant"]]


def unique_columns(alias):
    with connections[alias].cursor() as cursor:
        constraints = connections[alias].introspection.get_constraints(cursor, "envoyou_processed_event")
    return [it["columns"] for it in constraints.values() if it["unique"] and not it["primary_key"]]


def test_an_earlier_release_inserts_by_its_own_order_of_the_key(alias, inbox, first_release):
    inbox.add(NewEvent(sample_event("user.updated", id="evt_1"))).result()
    row = first_release.row("evt_1", "usr_1")
    first_release.rows.bulk_create(
        [row], update_conflicts=True, update_fields=["name"], unique_fields=["name", "tenant", "event_id"]
    )
    assert inbox.stats().total == 1


def test_an_interrupted_addition_of_columns_can_be_run_again(alias, inbox):
    inbox.add(NewEvent(sample_event("user.updated", id="evt_1"))).result()
    call_command("migrate", "envoyou_django", "0005", database=alias, fake=True, verbosity=0)
    migrate(alias)
    assert inbox.add(NewEvent(sample_event("user.updated", id="evt_1"))).result() is not Added.NEW
    assert inbox.stats().waiting == {}


def test_this_release_does_not_open_the_tables_of_the_earlier_one(alias, inbox):
    migrate(alias, "0005")
    with pytest.raises(ConfigurationError, match="tables do not exist yet"):
        inbox.open()


@pytest.mark.parametrize("left", ["an invalid index", "an index that is not a constraint yet", "both keys"])
def test_an_interrupted_change_of_the_key_can_be_run_again(alias, left):
    migrate(alias, "0004")
    table = "envoyou_processed_event"
    if alias == "postgres":
        with connections[alias].cursor() as cursor:
            if left == "an invalid index":
                cursor.execute("CREATE TABLE twice AS SELECT 1 AS name FROM generate_series(1, 2)")
                with pytest.raises(IntegrityError):
                    cursor.execute("CREATE UNIQUE INDEX CONCURRENTLY envoyou_event_key ON twice (name)")
            else:
                cursor.execute(f"CREATE UNIQUE INDEX envoyou_event_key ON {table} (name, event_id, tenant)")
            if left == "both keys":
                cursor.execute(
                    f"ALTER TABLE {table} ADD CONSTRAINT envoyou_event_key UNIQUE USING INDEX envoyou_event_key"
                )
    migrate(alias)
    assert unique_columns(alias) == [["name", "event_id", "tenant"]]


def test_an_interrupted_migration_can_be_run_again(alias, inbox, first_release):
    migrate(alias, "0002")
    first_release.store("evt_1", "usr_1")
    with connections[alias].cursor() as cursor:
        # What is left of an index that could not be finished.
        cursor.execute("CREATE INDEX envoyou_object ON envoyou_processed_event (id)")
        cursor.execute("CREATE INDEX envoyou_event_id ON envoyou_processed_event (id)")
    migrate(alias)
    with connections[alias].cursor() as cursor:
        constraints = connections[alias].introspection.get_constraints(cursor, "envoyou_processed_event")
    assert constraints["envoyou_object"]["columns"] == ["object_key", "name", "created"]
    assert constraints["envoyou_event_id"]["columns"] == ["event_id"]
    assert ProcessedEvent.objects.using(alias).get().object_key == "usr_1"
