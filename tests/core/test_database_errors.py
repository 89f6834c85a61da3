"""Which errors of real drivers mean that the database failed, and which that the code did."""

import contextlib
import select
import sqlite3
import uuid

import psycopg
import pymysql
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from envoyou_core import PermanentError, RetryLater
from envoyou_core.inbox.database_errors import is_database_failure

REFUSED = "postgresql://postgres@127.0.0.1:1/test"


@contextlib.contextmanager
def raised():
    """Yield a list that has the exception which the block raised."""
    errors = []
    try:
        yield errors
    except Exception as error:
        errors.append(error)
    assert errors


def wrapped(error, outer):
    try:
        raise outer from error
    except type(outer) as outermost:
        return outermost


# PostgreSQL


@pytest.fixture
def postgres(postgres_url):
    url = make_url(postgres_url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def raise_state(state):
    return f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", ["08006", "40001", "40P01", "53100", "53300", "55P03", "57P01", "57P03", "25006"])
def test_a_failure_of_postgresql(postgres, state):
    with raised() as errors:
        postgres.execute(raise_state(state))
    assert is_database_failure(errors[0])


@pytest.mark.parametrize("state", ["23505", "23503", "23514", "22001", "25P02", "25P03", "25P04", "42P01", "42501"])
def test_a_failure_of_the_code_on_postgresql(postgres, state):
    with raised() as errors:
        postgres.execute(raise_state(state))
    assert not is_database_failure(errors[0], in_inbox=True)


def test_a_cancelled_statement_is_a_failure_of_the_database_only_in_the_inbox(postgres):
    with raised() as errors:
        postgres.execute(raise_state("57014"))
    assert not is_database_failure(errors[0])
    assert is_database_failure(errors[0], in_inbox=True)


def test_a_connection_that_postgresql_refuses():
    with raised() as errors:
        psycopg.connect(REFUSED)
    assert is_database_failure(errors[0])


def test_a_connection_that_the_server_has_closed(postgres_url):
    url = make_url(postgres_url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(url) as connection:
        for _ in ("while it is used", "afterwards"):
            with raised() as errors:
                connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            assert is_database_failure(errors[0])


def test_a_role_that_has_too_many_connections(postgres, postgres_url):
    role = f"envoyou_test_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    try:
        url = make_url(postgres_url).set(drivername="postgresql", username=role).render_as_string(False)
        with raised() as errors:
            psycopg.connect(url)
        assert "too many connections" in str(errors[0])
        assert is_database_failure(errors[0])
    finally:
        postgres.execute(f"DROP ROLE {role}")


def test_a_transaction_that_idled_too_long_is_a_failure_of_the_code(postgres):
    postgres.execute("BEGIN")
    postgres.execute("SET LOCAL idle_in_transaction_session_timeout = 100")
    # The server closes the connection, which is then ready to be read.
    assert select.select([postgres.fileno()], [], [], 20)[0]
    with raised() as errors:
        postgres.execute("SELECT 1")
    assert not is_database_failure(errors[0], in_inbox=True), repr(errors[0])


@pytest.mark.parametrize(("statement", "expected"), [(raise_state("40001"), True), ("SELECT 1 / 0", False)])
async def test_errors_of_asyncpg_through_sqlalchemy(postgres_url, statement, expected):
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    with raised() as errors:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
    await engine.dispose()
    assert is_database_failure(errors[0]) is expected


async def test_a_connection_that_the_server_has_closed_under_asyncpg(postgres_url):
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        with raised() as errors:
            await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    await engine.dispose()
    assert is_database_failure(errors[0])


# MariaDB


@pytest.fixture
def mariadb(mariadb_url):
    engine = create_engine(mariadb_url)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE words (word VARCHAR(3) PRIMARY KEY)")
        yield connection
    engine.dispose()


def signal(number):
    return f"BEGIN NOT ATOMIC SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'no'; END"


@pytest.mark.parametrize(
    ("number", "expected"), [(1205, True), (1213, True), (1020, True), (1040, True), (1062, False), (1452, False)]
)
def test_errors_of_mariadb(mariadb, number, expected):
    with raised() as errors:
        mariadb.exec_driver_sql(signal(number))
    assert errors[0].orig.args[0] == number
    assert is_database_failure(errors[0]) is expected


def test_a_connection_that_mariadb_refuses_or_closes(mariadb):
    with raised() as errors:
        pymysql.connect(host="127.0.0.1", port=1)
    assert is_database_failure(errors[0])
    with raised() as errors:
        mariadb.exec_driver_sql("KILL CONNECTION_ID()")
    assert is_database_failure(errors[0])


# SQLite


@pytest.fixture
def locked(tmp_path):
    """A connection to a file that another connection has locked."""
    path = tmp_path / "file.db"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as waiter,
    ):
        holder.execute("CREATE TABLE words (word TEXT PRIMARY KEY NOT NULL)")
        holder.execute("BEGIN IMMEDIATE")
        yield waiter


def test_a_lock_on_sqlite(locked):
    with raised() as errors:
        locked.execute("BEGIN IMMEDIATE")
    assert is_database_failure(errors[0])


@pytest.mark.parametrize("statement", ["SELECT * FROM missing", "INSERT INTO words VALUES (NULL)", "nonsense"])
def test_a_failure_of_the_code_on_sqlite(statement):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE words (word TEXT NOT NULL)")
        with raised() as errors:
            connection.execute(statement)
    assert not is_database_failure(errors[0], in_inbox=True)


def test_a_file_that_cannot_be_opened_or_is_full(tmp_path):
    with raised() as errors:
        sqlite3.connect(tmp_path / "missing" / "file.db")
    assert is_database_failure(errors[0])
    with contextlib.closing(sqlite3.connect(tmp_path / "file.db")) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with raised() as errors:
            connection.execute("CREATE TABLE words (word TEXT)")
    assert is_database_failure(errors[0])


# Pools, wrappers and errors of other kinds


def test_a_pool_without_a_free_connection(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/file.db", pool_size=1, max_overflow=0, pool_timeout=0)
    with engine.connect(), raised() as errors:
        engine.connect()
    engine.dispose()
    assert is_database_failure(errors[0])


@pytest.mark.parametrize("decision", [PermanentError("never"), RetryLater(5)])
def test_what_the_handler_has_decided_stays(decision):
    assert not is_database_failure(wrapped(psycopg.OperationalError("connection failed"), decision), in_inbox=True)


def test_the_cause_of_an_error_counts_and_its_context_does_not():
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    assert is_database_failure(wrapped(lost, ValueError("not stored")))
    with raised() as errors:
        try:
            raise lost
        except psycopg.OperationalError:
            raise ValueError("in the clean-up")  # noqa: B904 - the context is what this is about
    assert not is_database_failure(errors[0])


def test_a_group_counts_if_each_of_its_errors_does():
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    assert is_database_failure(ExceptionGroup("tasks", [lost, lost]))
    assert not is_database_failure(ExceptionGroup("tasks", [lost, ValueError("no")]))


def test_other_errors_do_not_count():
    assert not is_database_failure(ConnectionRefusedError("an HTTP server"))
    assert not is_database_failure(TimeoutError("slow"))
    assert not is_database_failure(sqlite3.ProgrammingError("Cannot operate on a closed database."))
    circular = ValueError("a")
    circular.__cause__ = circular
    assert not is_database_failure(circular)


def test_a_connection_lost_in_a_session_counts_although_another_error_is_raised(postgres_url):
    engine = create_engine(postgres_url)
    with engine.connect() as connection, raised() as errors:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    engine.dispose()
    assert is_database_failure(errors[0])
