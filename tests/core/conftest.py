"""What the core's tests share: inboxes of every kind, empty ones, and a clock that is set by hand."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache

import hypothesis
import psycopg
import pytest
from sqlalchemy import Engine, MetaData, NullPool, create_engine, inspect, make_url

from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.schema import metadata, schema_table
from tests import services
from tests.inbox.acts import HandClock

# How long an example takes says nothing on a machine that does other things besides.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pause_until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Wait until `condition` holds, and fail where it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    return pause_until


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'inbox.db'}"


@contextmanager
def postgres_schema(url: str) -> Iterator[str]:
    """Yield a URL whose tables live in a new schema, which is dropped afterwards."""
    schema = f"test_{uuid.uuid4().hex}"
    parsed = make_url(url)

    def execute(statement: str) -> None:
        # On a connection for each: a test may close all connections to the database.
        with psycopg.connect(parsed.set(drivername="postgresql").render_as_string(False), autocommit=True) as server:
            server.execute(statement)

    execute(f"CREATE SCHEMA {schema}")
    yield parsed.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)
    execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def bare_postgres_url(postgres_url):
    """A URL whose tables live in a schema of this test's own, before `envoyou migrate`."""
    with postgres_schema(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_url):
    """A URL whose tables live in a schema of this test process, after `envoyou migrate`."""
    with postgres_schema(postgres_url) as url:
        migrate(url)
        yield url


@pytest.fixture
def postgres_inbox_url(bare_postgres_url):
    """The same, after `envoyou migrate`."""
    migrate(bare_postgres_url)
    return bare_postgres_url


@pytest.fixture
def emptied_postgres_url(migrated_postgres_url):
    """A URL of empty tables that are shared by tests which leave no thread behind; to create them takes longer."""
    yield migrated_postgres_url
    leave_empty_tables(migrated_postgres_url)


@pytest.fixture
def pgbouncer_inbox_url(pgbouncer_url):
    """A URL through PgBouncer, of empty tables. It takes no startup options, so they have no schema of their own."""
    migrate(pgbouncer_url)
    yield pgbouncer_url
    leave_empty_tables(pgbouncer_url)


@pytest.fixture
def bare_mariadb_url(mariadb_url):
    """A URL of a database before `envoyou migrate`."""
    yield mariadb_url
    engine = create_engine(mariadb_url)
    metadata = MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_mariadb_url(mariadb_server):
    """A URL of a database of this test process, after `envoyou migrate`."""
    with services.mariadb_database(mariadb_server, "latin1") as url:
        migrate(url)
        yield url


@pytest.fixture
def mariadb_inbox_url(bare_mariadb_url):
    """The same, after `envoyou migrate`."""
    migrate(bare_mariadb_url)
    return bare_mariadb_url


@pytest.fixture
def emptied_mariadb_url(migrated_mariadb_url):
    """As `emptied_postgres_url`."""
    yield migrated_mariadb_url
    leave_empty_tables(migrated_mariadb_url)


def migrate(url: str) -> None:
    with closing(SqlInbox(url)) as inbox:
        inbox.migrate()


@cache
def cleaning_engine(url: str) -> Engine:
    """An engine that keeps no connection open, but the statements that it has compiled."""
    return create_engine(url, poolclass=NullPool)


def leave_empty_tables(url: str) -> None:
    """Empty the tables of the inbox, and drop those that a test added."""
    with cleaning_engine(url).begin() as connection:
        added = set(inspect(connection).get_table_names()) - set(metadata.tables)
        # With nothing to reflect, SQLAlchemy reflects all, which takes longer than most tests.
        if added:
            existing = MetaData()
            existing.reflect(connection, only=added)
            existing.drop_all(connection)
        for table in reversed(metadata.sorted_tables):
            if table is not schema_table:
                connection.execute(table.delete())


@pytest.fixture
def sql_inboxes():
    """A factory of SQL inboxes, which are closed at the end."""
    made = []

    def make(url, clock=time.time, name="default"):
        made.append(SqlInbox(url, name=name, clock=clock))
        return made[-1]

    yield make
    for inbox in made:
        inbox.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def any_inbox(request, clock, sql_inboxes):
    """An empty inbox of each kind, on the hand-set clock."""
    if request.param == "memory":
        return MemoryInbox(clock=clock)
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_inbox_url")
    return sql_inboxes(url, clock)
