"""Tests of the tables: migrations, columns and indexes."""

import re
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from envoyou_core import ConfigurationError
from envoyou_core.inbox import ClaimFilter, NewEvent
from envoyou_core.testing import sample_event
from envoyou_django.admin.lists import search
from envoyou_django.admin.summary import summarize
from envoyou_django.fields import ExactCharField
from envoyou_django.inbox.claims import claimable
from envoyou_django.inbox.inbox import OrmInbox
from envoyou_django.models import ProcessedEvent
from tests.django.databases import inbox_on, sqlite_database


@pytest.mark.django_db
def test_migrations_match_the_models(settings):
    settings.DATABASE_ROUTERS = []
    call_command("makemigrations", "envoyou_django", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
# SQLite has the defaults of Django.
@override_settings(SILENCED_SYSTEM_CHECKS=["envoyou.W004", "envoyou.W005"])
def test_the_project_passes_its_checks():
    output = StringIO()
    call_command("check", "envoyou_django", databases=["default"], stderr=output, fail_level="WARNING")
    assert output.getvalue() == ""


def test_a_missing_table_is_reported_with_the_command_to_create_it(tmp_path, django_db_blocker):
    with (
        django_db_blocker.unblock(),
        sqlite_database("contract", tmp_path / "empty.db", "contenttypes"),
        inbox_on("contract"),
        pytest.raises(ConfigurationError, match="migrate --database contract"),
    ):
        OrmInbox().open()


def test_due_events_use_an_index(inbox_alias):
    due = ProcessedEvent.objects.using(inbox_alias).filter(name="default", due_at__lte=datetime.now(UTC))
    with transaction.atomic(using=inbox_alias), connections[inbox_alias].cursor() as cursor:
        if inbox_alias == "postgres":
            # For an empty table, PostgreSQL prefers a sequential scan.
            cursor.execute("SET LOCAL enable_seqscan = off")
        plan = due.order_by("due_at", "pk")[:10].explain()
    assert "envoyou_due" in plan


@pytest.fixture
def full_table(inbox_alias, clock):
    """Many finished events, most of them scrubbed, and a few waiting ones."""
    event = sample_event("user.updated")

    def row(number, **values):
        return ProcessedEvent(
            name="default",
            event_id=f"evt_{number}",
            type=event.type,
            created=number,
            body=event.body,
            object_key=f"usr_{number % 300}",
            received_at=clock.moment(),
            **{"attempts": 1, "crashes": 0, "progress": {}, **values},
        )

    waiting = {"status": "received", "due_at": clock.moment()}
    finished = {"status": "processed", "settled_at": clock.moment()}
    rows = ProcessedEvent.objects.using(inbox_alias)
    rows.bulk_create(row(number, **finished, scrubbed_at=clock.moment()) for number in range(1000))
    rows.bulk_create(row(number, **finished) for number in range(1000, 1050))
    rows.bulk_create(row(number, **waiting) for number in range(4000, 4050))
    with connections[inbox_alias].cursor() as cursor:
        cursor.execute("ANALYZE TABLE envoyou_processed_event" if inbox_alias == "mariadb" else "ANALYZE")
    return rows.filter(name="default")


def indexes_of(rows):
    if connections[rows.db].vendor == "mysql":
        # Other formats include the indexes that were considered but not used.
        return set(re.findall(r"\bkey\W+(envoyou_\w+)", rows.explain(format="JSON")))
    return set(re.findall(r"\benvoyou_(?!processed_event)\w+", rows.explain()))


def test_ordered_claims_use_an_index(full_table, inbox_alias, clock):
    indexes = indexes_of(claimable(full_table, ClaimFilter(ordered=("user.*",)), clock.moment())[:10])
    # Without partial indexes, both contain the finished events.
    partial = connections[inbox_alias].features.supports_partial_indexes
    assert indexes == {"envoyou_due", "envoyou_order" if partial else "envoyou_object"}


def test_events_of_an_object_use_an_index(full_table):
    assert indexes_of(full_table.filter(object_key="usr_7").order_by("-pk")[:10]) == {"envoyou_object"}
    assert indexes_of(full_table.filter(object_key__isnull=True)[:10]) == {"envoyou_object"}


def test_scrubbing_uses_an_index(full_table, clock):
    old = full_table.filter(status__in=["processed", "ignored"], settled_at__lt=clock.moment(1))
    assert indexes_of(old.filter(scrubbed_at__isnull=True)[:10]) == {"envoyou_unscrubbed"}


def indexes_used(alias, action):
    """Return the indexes that each query of `action` uses."""
    with CaptureQueriesContext(connections[alias]) as queries:
        action()
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "mysql": "EXPLAIN FORMAT=JSON "}.get(
        connections[alias].vendor, "EXPLAIN "
    )
    used = []
    for query in [query["sql"] for query in queries]:
        with connections[alias].cursor() as cursor:
            cursor.execute(explain + query)
            plan = "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())
        pattern = r"\bkey\W+(envoyou_\w+)" if alias == "mariadb" else r"\benvoyou_(?!processed_event\b)\w+"
        # MariaDB reads the least value of an index while it plans, and shows no index then.
        used.append({"read while planning"} if "tables optimized away" in plan else set(re.findall(pattern, plan)))
    return used


def test_stats_use_indexes(full_table, inbox_alias, clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.inbox.records.COUNTED", 100)
    inbox = OrmInbox(clock=clock)
    # The last table has few rows.
    *counted, _rejected = indexes_used(inbox_alias, inbox.stats)
    assert len(counted) == 5
    assert counted[4] == {"envoyou_waits"}
    assert all(len(indexes) == 1 for indexes in counted)
    assert counted[1] == counted[2] == {"envoyou_settled"}
    stats = inbox.stats()
    assert (stats.by_status["processed"], stats.by_status["received"], stats.at_least) == (100, 50, {"processed"})
    assert inbox.stats(exact=True).total == 1100


def test_the_summary_of_the_admin_uses_indexes(full_table, inbox_alias, clock, monkeypatch):
    monkeypatch.setattr("envoyou_django.admin.summary.COUNTED", 100)
    rows = full_table.model.objects.using(inbox_alias)
    by_status, processed, ignored, _paused, *others, _alerts, _figures = indexes_used(
        inbox_alias, lambda: summarize(rows, clock.moment(90000))
    )
    assert [len(indexes) for indexes in (by_status, processed, ignored, *others)] == [1] * 6
    assert others[0] == others[2] == {"envoyou_due"}
    counts = {it.status: (it.events, it.at_least) for it in summarize(rows, clock.moment()).counts}
    assert (counts["processed"], counts["received"], counts["ignored"]) == ((100, True), (50, False), (0, False))


def test_an_event_id_without_a_tenant_uses_an_index(full_table, inbox_alias, clock):
    [indexes] = indexes_used(inbox_alias, lambda: OrmInbox(clock=clock).get("evt_7"))
    assert indexes in ({"envoyou_event_key"}, {"envoyou_event_id"}, {"sqlite_autoindex_envoyou_processed_event_1"})


def test_the_table_has_one_unique_key(inbox_alias):
    with connections[inbox_alias].cursor() as cursor:
        constraints = connections[inbox_alias].introspection.get_constraints(cursor, "envoyou_processed_event")
    unique = {name: it["columns"] for name, it in constraints.items() if it["unique"] and not it["primary_key"]}
    assert list(unique.values()) == [["name", "event_id", "tenant"]]


def test_the_search_of_the_admin_uses_indexes(full_table):
    indexes = indexes_of(search(full_table.model.objects.using(full_table.db), "evt_7").order_by("-pk")[:50])
    assert indexes == {"envoyou_event_id", "envoyou_object"}


def test_the_day_filter_of_the_admin_uses_an_index(full_table, clock):
    rows = full_table.model.objects.using(full_table.db)
    assert indexes_of(rows.filter(received_at__gte=clock.moment(1)).values("status")) == {"envoyou_received"}


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.django_db
def test_times_do_not_depend_on_use_tz(settings, use_tz, clock):
    """Nor do they change if the project changes USE_TZ later, and the database stores no time zone."""
    # The repeated hour at the end of daylight saving time in New York.
    clock.now = datetime(2026, 11, 1, 6, 30, tzinfo=UTC).timestamp()
    settings.USE_TZ = use_tz
    OrmInbox(clock=clock).add(NewEvent(sample_event(id="evt_1"))).result()
    row = ProcessedEvent.objects.get()
    assert (row.received_at, row.received_at.tzinfo) == (clock.moment(), UTC)
    settings.USE_TZ = not use_tz
    assert ProcessedEvent.objects.get().received_at == clock.moment()


@pytest.mark.django_db
def test_a_naive_time_is_in_the_current_time_zone(settings, clock):
    clock.now = datetime(2026, 7, 1, 12, 0, tzinfo=UTC).timestamp()
    settings.USE_TZ = False
    OrmInbox(clock=clock).add(NewEvent(sample_event(id="evt_1"))).result()
    at_eight = datetime(2026, 7, 1, 8, 0)  # noqa: DTZ001 - naive on purpose
    assert ProcessedEvent.objects.filter(received_at=at_eight).exists()


class LikeMySQL:
    """The connection of SQLite under the name of MySQL."""

    vendor = "mysql"

    def __init__(self, mariadb):
        self.mysql_is_mariadb = mariadb

    def __getattr__(self, name):
        return getattr(connections["default"], name)


@pytest.mark.parametrize(("mariadb", "collation"), [(True, "utf8mb4_nopad_bin"), (False, "utf8mb4_0900_bin")])
def test_ids_compare_by_bytes_on_mysql_and_mariadb(mariadb, collation):
    field = ProcessedEvent._meta.get_field("event_id")
    assert isinstance(field, ExactCharField)
    assert field.db_parameters(LikeMySQL(mariadb))["collation"] == collation
    assert field.db_parameters(connections["default"])["collation"] is None
