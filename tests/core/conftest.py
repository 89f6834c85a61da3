"""What the core's tests share: inboxes of every kind, empty ones, and a clock that is set by hand."""

import time
import uuid
from collections.abc import Callable

import hypothesis
import psycopg
import pytest
from sqlalchemy import MetaData, create_engine, make_url

from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.sql.schema import metadata, schema_table
from tests.inbox.contract import HandClock

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


@pytest.fixture
def bare_postgres_url(postgres_url):
    """A URL whose tables live in a schema of this test's own; nobody has run `envoyou migrate` there."""
    schema = f"test_{uuid.uuid4().hex}"
    url = make_url(postgres_url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def postgres_inbox_url(bare_postgres_url):
    """The same, after `envoyou migrate`."""
    inbox = SqlInbox(bare_postgres_url)
    inbox.migrate()
    inbox.close()
    return bare_postgres_url


@pytest.fixture
def pgbouncer_inbox_url(pgbouncer_url):
    """A URL through PgBouncer, of empty tables. It takes no startup options, so they have no schema of their own."""
    inbox = SqlInbox(pgbouncer_url)
    inbox.migrate()
    with inbox._engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not schema_table:
                connection.execute(table.delete())
    inbox.close()
    return pgbouncer_url


@pytest.fixture
def bare_mariadb_url(mariadb_url):
    """A URL of a database in which nobody has run `envoyou migrate` yet."""
    yield mariadb_url
    engine = create_engine(mariadb_url)
    metadata = MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def mariadb_inbox_url(bare_mariadb_url):
    """The same, after `envoyou migrate`."""
    inbox = SqlInbox(bare_mariadb_url)
    inbox.migrate()
    inbox.close()
    return bare_mariadb_url


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
