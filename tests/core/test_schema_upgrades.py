"""From the tables of every released revision to those of this one, with what was in them."""

import sqlite3
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError

from envoyou_core import ConfigurationError
from envoyou_core.inbox import ANY, Added, ClaimFilter, HandlerStatus, Status
from envoyou_core.inbox.sql.migrations import OLDEST_COMPATIBLE, REVISION
from envoyou_core.inbox.sql.schema import metadata
from tests.core.conftest import pause_until
from tests.inbox.acts import LEASE, PATIENCE, HandClock, add, ids, settle, status_of

SCHEMAS = Path(__file__).parent / "schemas"
REVISIONS = sorted({path.name.partition(".")[0] for path in SCHEMAS.iterdir()})
LATER = 100
"""Seconds after which, in all dumps, the retry is due and the lease of the event in work has run out."""

ORDERED = ClaimFilter(ordered=("user.*",))

# The statements of the first release, as it sent them.
INSERT_1 = text(
    "INSERT INTO envoyou_inbox (name, tenant, event_id, type, created, webhook_id, body, status, attempts, crashes, "
    "progress, received_at, due_at) VALUES ('default', '', :id, 'user.updated', :created, NULL, :body, 'received', 0, "
    "0, '{}', :now, :now) ON CONFLICT (name, tenant, event_id) DO NOTHING"
)
CLAIM_1 = text(
    "UPDATE envoyou_inbox SET status = 'processing', due_at = :until, lease_token = 'old' "
    "WHERE event_id = :id AND due_at <= :now"
)
SETTLE_1 = text(
    "UPDATE envoyou_inbox SET status = 'processed', attempts = 1, progress = '{\"welcome\": \"done\"}', due_at = NULL, "
    "lease_token = NULL, settled_at = :now, last_error = NULL WHERE event_id = :id AND lease_token = 'old'"
)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture(params=REVISIONS)
def revision(request):
    return request.param


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def old_url(request, revision):
    """A database as that release left it."""
    if request.param == "sqlite":
        dump = (SCHEMAS / f"{revision}.sqlite.sql").read_text(encoding="utf-8")
        url = request.getfixturevalue("sqlite_url")
        with sqlite3.connect(make_url(url).database) as connection:
            connection.executescript(dump)
        connection.close()
        return url
    url = request.getfixturevalue("bare_postgres_url")
    load_postgres(url, revision)
    return url


def load_postgres(url, revision):
    dump = (SCHEMAS / f"{revision}.postgresql.sql").read_text(encoding="utf-8")
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False)) as connection:
        connection.execute(dump)


def unique_keys(inbox):
    found = inspect(inbox._engine)
    indexes = [index for index in found.get_indexes("envoyou_inbox") if index["unique"]]
    constraints = found.get_unique_constraints("envoyou_inbox")
    return list({key["name"]: key for key in [*indexes, *constraints]}.values())


@pytest.fixture
def inbox(old_url, sql_inboxes, clock):
    inbox = sql_inboxes(old_url, clock)
    inbox.migrate()
    return inbox


def test_the_tables_become_those_of_a_new_database(inbox, sql_inboxes, tmp_path):
    new = sql_inboxes(f"sqlite:///{tmp_path / 'new.db'}")
    new.open()
    for name, table in metadata.tables.items():
        found = {column["name"] for column in inspect(inbox._engine).get_columns(name)}
        assert found == {column.name for column in table.columns}
        assert {index["name"] for index in inspect(inbox._engine).get_indexes(name)} >= {i.name for i in table.indexes}
    with inbox._reading() as connection:
        assert connection.execute(text("SELECT version, revision FROM envoyou_schema")).all() == [
            (OLDEST_COMPATIBLE, REVISION)
        ]


def test_the_unique_key_finds_an_event_by_its_id(inbox):
    keys = {key["name"]: key["column_names"] for key in unique_keys(inbox)}
    assert keys.pop("envoyou_inbox_key") == ["name", "event_id", "tenant"]
    # SQLite cannot drop the earlier one.
    assert set(keys) == (set() if inbox.remote else {"envoyou_inbox_event"})
    assert add(inbox, "evt_new") is Added.NEW
    assert add(inbox, "evt_new") is Added.DUPLICATE


@pytest.mark.service
def test_an_index_that_was_left_half_built_is_built_anew(revision, bare_postgres_url, sql_inboxes):
    load_postgres(bare_postgres_url, revision)
    inbox = sql_inboxes(bare_postgres_url)
    with inbox._reading() as connection:
        # An index that cannot be built beside writers stays behind as an invalid one: these rows are equal.
        connection.execute(text("CREATE TABLE twice AS SELECT 1 AS name FROM generate_series(1, 2)"))
        with pytest.raises(IntegrityError):
            connection.execute(text("CREATE UNIQUE INDEX CONCURRENTLY envoyou_inbox_key ON twice (name)"))
    inbox.migrate()
    assert {key["name"] for key in unique_keys(inbox)} == {"envoyou_inbox_key"}


@pytest.mark.service
def test_events_come_in_while_the_key_is_built(revision, bare_postgres_url, sql_inboxes):
    load_postgres(bare_postgres_url, revision)
    inbox = sql_inboxes(bare_postgres_url)
    values = {"id": "evt_new", "created": 1, "body": b"{}", "now": 1}
    with inbox._engine.connect() as older:
        # The index waits for transactions that began before it; those of its table go on.
        older.execute(INSERT_1, values)
        migrating = threading.Thread(target=inbox.migrate)
        migrating.start()
        with inbox._reading() as connection:
            building = "SELECT count(*) FROM pg_stat_progress_create_index WHERE relid = 'envoyou_inbox'::regclass"
            pause_until(lambda: connection.scalar(text(building)))
            assert connection.execute(INSERT_1, {**values, "id": "evt_beside"}).rowcount == 1
        older.commit()
    migrating.join(PATIENCE)
    assert not migrating.is_alive()
    assert {key["name"] for key in unique_keys(inbox)} == {"envoyou_inbox_key"}


@pytest.mark.service
def test_the_unique_key_is_replaced_on_mariadb(mariadb_inbox_url, sql_inboxes):
    inbox = sql_inboxes(mariadb_inbox_url)
    add(inbox, "evt_1")
    with inbox._engine.begin() as connection:
        connection.execute(text("ALTER TABLE envoyou_inbox ADD UNIQUE envoyou_inbox_event (name, tenant, event_id)"))
        connection.execute(text("ALTER TABLE envoyou_inbox DROP INDEX envoyou_inbox_key"))
        connection.execute(text("UPDATE envoyou_schema SET revision = 2"))
    inbox.migrate()
    assert [key["column_names"] for key in unique_keys(inbox)] == [["name", "event_id", "tenant"]]
    assert add(inbox, "evt_1") is Added.DUPLICATE


def test_nothing_is_lost_and_what_waited_is_worked_on_in_its_order(inbox, clock):
    clock.advance(LATER)
    assert inbox.stats().total == 7
    assert status_of(inbox, "evt_processed") is Status.PROCESSED
    handled = []
    while claims := inbox.claim(10, LEASE, ORDERED):
        handled += ids(claims)
        assert all(settle(inbox, claim, progress={"welcome": HandlerStatus.DONE}) for claim in claims)
    # Of one object's, those created first go first; the other object's event has come due before them.
    assert [id for id in handled if id != "evt_processing"] == ["evt_older", "evt_failed", "evt_received"]
    assert "evt_processing" in handled
    assert inbox.get("evt_processing").crashes == 1


def test_what_was_applied_before_counts(inbox, clock):
    claims = {claim.event.id: claim for claim in inbox.claim(10, LEASE, ANY)}
    assert inbox.newest_applied(claims["evt_older"]) == 1_640_995_300


def test_a_person_can_be_erased_from_what_was_stored_before(inbox):
    assert ids(inbox.list(object_id="user_1"))[::-1] == [
        "evt_processed",
        "evt_ignored",
        "evt_failed",
        "evt_received",
        "evt_older",
    ]
    assert inbox.erase("user_1") == 5
    assert b"someone@example.com" not in inbox.get("evt_processed").event.body
    assert add(inbox, "evt_processed") is Added.DUPLICATE


def test_a_second_time_changes_nothing(inbox):
    before = inbox.list()
    inbox.migrate()
    assert inbox.list() == before


def test_several_may_do_it_at_once(old_url, sql_inboxes):
    inboxes = [sql_inboxes(old_url) for _ in range(4)]
    start, errors = threading.Barrier(4), []

    def migrate(inbox):
        start.wait(PATIENCE)
        try:
            inbox.migrate()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate, args=[inbox]) for inbox in inboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert inboxes[0].stats().total == 7


def test_sqlite_does_it_when_it_is_opened_and_elsewhere_the_command_is_named(old_url, sql_inboxes):
    inbox = sql_inboxes(old_url)
    if inbox.remote:
        with pytest.raises(ConfigurationError, match="envoyou migrate"):
            inbox.open()
        inbox.migrate()
    inbox.open()
    assert inbox.stats().total == 7


def test_a_program_of_the_first_release_goes_on_working_beside_the_new_one(inbox, clock, old_url):
    """It finds its own version, stores, claims and settles; what it stores is known to the new one by its object."""
    now = round(clock.now * 1e6)
    body = b'{"id":"evt_theirs","type":"user.updated","created":1640995050,"data":{"object":{"id":"user_1"}}}'
    engine = create_engine(old_url)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT version FROM envoyou_schema")) == 1
        values = {"id": "evt_theirs", "created": 1_640_995_050, "body": body, "now": now}
        assert connection.execute(INSERT_1, values).rowcount == 1
        assert connection.execute(INSERT_1, values).rowcount == 0
    assert ids(inbox.claim(1, 0.5, ClaimFilter(include=("user.*",), ordered=("user.*",)))) == ["evt_theirs"]
    clock.advance(1)
    now = round(clock.now * 1e6)
    with engine.begin() as connection:
        times = {"id": "evt_theirs", "now": now, "until": now + 60_000_000}
        assert connection.execute(CLAIM_1, times).rowcount == 1
        assert connection.execute(SETTLE_1, {"id": "evt_theirs", "now": now}).rowcount == 1
    engine.dispose()
    assert status_of(inbox, "evt_theirs") is Status.PROCESSED
    assert inbox.requeue("evt_dead") == 1
    assert inbox.erase("user_1") == 6
