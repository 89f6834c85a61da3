"""Tests of database URLs: accepted forms, and the errors for others."""

import os

import pytest
from sqlalchemy import create_engine, make_url

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.inbox import open_inbox
from envoyou_core.inbox.sql import engines
from envoyou_core.inbox.sql.engines import check_mariadb
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.inbox.urls import read_url
from envoyou_core.nonces import open_nonces
from envoyou_core.spool.spool import Spool
from tests.inbox.acts import add

PASSWORD = "very-private"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://me@db/app", "postgresql+psycopg://me@db/app"),
        ("postgresql://me@db/app", "postgresql+psycopg://me@db/app"),
        ("PostgreSQL://me@db/app\n", "postgresql+psycopg://me@db/app"),
        ("postgresql+psycopg://me@db:6432/app", "postgresql+psycopg://me@db:6432/app"),
        ("mysql://me@db/app", "mariadb+pymysql://me@db/app"),
        ("mysql+pymysql://me@db/app", "mariadb+pymysql://me@db/app"),
        ("mariadb://me@db/app", "mariadb+pymysql://me@db/app"),
        ("mariadb+mysqldb://me@db/app", "mariadb+mysqldb://me@db/app"),
        ("sqlite:////srv/app/envoyou.db", "sqlite+pysqlite:////srv/app/envoyou.db"),
        ("sqlite+pysqlite:////srv/app/envoyou.db", "sqlite+pysqlite:////srv/app/envoyou.db"),
        ("sqlite:////srv/../app.db?timeout=5", "sqlite+pysqlite:////app.db?timeout=5"),
        ("sqlite:///file:/srv/app.db?uri=true&mode=rwc", "sqlite+pysqlite:///file:/srv/app.db?mode=rwc&uri=true"),
    ],
)
def test_valid_urls(url, expected):
    assert read_url(url).url == make_url(expected)
    assert read_url(read_url(url).url).url == make_url(expected)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", "is empty: expected one such as sqlite:///envoyou.db"),
        ("  ", "is empty"),
        (PASSWORD, "no '://'"),
        ("envoyou.db", "no '://'"),
        ("sqlite:envoyou.db", "no '://'"),
        ("sqlite:/srv/envoyou.db", "no '://'"),
        ("sqlite://C:/data/envoyou.db", "change it to sqlite:///C:/data/envoyou.db"),
        (r"sqlite://C:\data\envoyou.db", r"change it to sqlite:///C:\\data"),
        ("sqlite://envoyou.db", "change it to sqlite:///envoyou.db"),
        (f"sqlite://me:{PASSWORD}@host/envoyou.db", "three slashes"),
        ("sqlite://", "in memory is not durable"),
        ("sqlite:///", "in memory is not durable"),
        ("sqlite:///:memory:", "in memory is not durable"),
        ("sqlite:///file::memory:?uri=true", "in memory is not durable"),
        ("sqlite:///file:shared?mode=memory&cache=shared&uri=true", "in memory is not durable"),
        ("sqlite:///file:envoyou.db", r"uri=true"),
        ("sqlite+aiosqlite:///envoyou.db", r"aiosqlite is async: write sqlite\+pysqlite://, .*AsyncSqlInbox"),
        (
            f"postgresql+asyncpg://me:{PASSWORD}@db/app",
            r"asyncpg is async: write postgresql\+psycopg://.*AsyncSqlInbox",
        ),
        ("postgresql+psycopg_async://db/app", "psycopg_async is async"),
        ("mysql+aiomysql://db/app", r"aiomysql is async: write mariadb\+pymysql://"),
        ("mariadb+asyncmy://db/app", "asyncmy is async"),
        ("postgresql+psycopg2://db/app", r"unsupported driver 'psycopg2': write postgresql\+psycopg://"),
        ("postgresql+psycopg3://db/app", r"write postgresql\+psycopg://"),
        ("postgresql+pscopg://db/app", r"write postgresql\+psycopg://"),
        ("mysql+mysqlconnector://db/app", r"write mariadb\+pymysql://"),
        (f"postgresq://me:{PASSWORD}@db/app", "unsupported scheme 'postgresq': did you mean 'postgresql'"),
        (f"nowhere://me:{PASSWORD}@db/app", "unsupported scheme 'nowhere'"),
        ("oracle+oracledb://db/app", "unsupported scheme 'oracle'"),
        (f"redis://:{PASSWORD}@db/0", "Redis is supported for nonces only"),
        (f"postgresql://me:{PASSWORD}@db:port/app", "port in the inbox's URL must be a number"),
        (f"postgresql://me:{PASSWORD}@first:5432,second:5432/app", r"\?host=first:5432&host=second:5432"),
        (f"postgresql://me:{PASSWORD}@db:99999/app", "1 to 65535"),
        (f"postgresql://me:a@{PASSWORD}@db/app", "percent-encoded"),
        (f"postgresql://me:a%40{PASSWORD}@db:x/app", "percent-encoded"),
        (f"postgresql://me:{PASSWORD}@db/app?prepare_threshold=soon", "'prepare_threshold'.*must be a whole number"),
        (f"postgresql://me:{PASSWORD}@db/app?conect_timeout=3", "'conect_timeout'.*did you mean 'connect_timeout'"),
        (f"postgresql://me:{PASSWORD}@db/app?connect_timeout=3s", "'connect_timeout'"),
        (f"postgresql://me:{PASSWORD}@db/app?connect_timeout=3&connect_timeout=4", "'connect_timeout' is given twice"),
        (f"postgresql://me:{PASSWORD}@db/app?sslmode=on", "'sslmode'.*must be disable or"),
        (f"postgresql://me:{PASSWORD}@db/app?target_session_attrs=rw", "'target_session_attrs'"),
        (f"postgresql://me:{PASSWORD}@db/app?autocommit=true", "'autocommit'.*unknown"),
        (f"mysql://me:{PASSWORD}@db/app?charset=latin1", "'charset'.*must be utf8mb4"),
        (f"mysql://me:{PASSWORD}@db/app?read_timeout=soon", "'read_timeout'.*must be a whole number"),
        (f"mysql://me:{PASSWORD}@db/app?local_infile=1", "'local_infile'.*unknown"),
        ("sqlite:////srv/envoyou.db?timeout=soon", "'timeout'.*must be a number of seconds"),
        ("sqlite:////srv/envoyou.db?isolation_level=EXCLUSIVE", "'isolation_level'.*unknown"),
        ("sqlite:///file:/srv/envoyou.db?uri=true&mode=ro", "'mode'.*must be rw"),
    ],
)
def test_invalid_urls_are_explained_without_the_password(url, error):
    with pytest.raises(ConfigurationError, match=error) as caught:
        open_inbox(url)
    exception = caught.value
    while exception is not None:
        assert PASSWORD not in str(exception)
        exception = exception.__cause__


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("postgresql://db/app?prepare_threshold=0", {"prepare_threshold": 0}),
        ("postgresql://db/app?prepare_threshold=none", {"prepare_threshold": None}),
        ("postgresql://db/app?connect_timeout=3&keepalives_idle=9", {"connect_timeout": 3, "keepalives_idle": 9}),
        ("postgresql://db/app?application_name=x&sslmode=require", {"application_name": "x", "sslmode": "require"}),
        ("postgresql://db/app?target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("postgresql:///app?host=first:5432&host=second:5433", {"host": "first,second", "port": "5432,5433"}),
        ("mysql://db/app?charset=utf8mb4&read_timeout=30", {"charset": "utf8mb4", "read_timeout": 30}),
        ("mysql://db/app?ssl_ca=/etc/ca.pem", {"ssl": {"ca": "/etc/ca.pem"}}),
        ("mysql://db/app?unix_socket=/run/mysqld.sock", {"unix_socket": "/run/mysqld.sock"}),
        ("sqlite:////srv/envoyou.db?timeout=5", {"timeout": 5.0}),
    ],
)
def test_options_are_converted_for_the_driver(url, arguments, driver_arguments):
    assert arguments.items() <= driver_arguments(url).items()


def test_defaults_work_with_a_connection_pooler(driver_arguments):
    given = driver_arguments("postgresql://db/app")
    assert given["prepare_threshold"] is None
    assert "options" not in given


@pytest.fixture
def driver_arguments(monkeypatch):
    """Return a function that returns the arguments of the driver for a URL."""

    def find(url):
        given = {}

        def connect(*args, **options):
            given.update(options)
            raise SystemExit

        engine = engines.open_engine(url)
        monkeypatch.setattr(engine.dialect, "connect", connect)
        with pytest.raises(SystemExit):
            engine.connect()
        return given

    return find


@pytest.mark.parametrize(
    ("spool", "error"),
    [
        ("", "the spool's URL is empty"),
        ("spool.db", "the spool's URL must be a URL"),
        (f"postgresql://me:{PASSWORD}@db/app", "must be a SQLite file"),
        ("sqlite://spool.db", "change it to sqlite:///spool.db"),
        ("sqlite:///:memory:", "the spool must be a file"),
        (f"redis://:{PASSWORD}@db/0", "unsupported scheme"),
    ],
)
def test_a_spool_must_be_a_sqlite_file(spool, error):
    with pytest.raises(ConfigurationError, match=error) as caught:
        Webhooks(secret="s", inbox="memory:", spool=spool)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite:///file:{}?uri=true", "sqlite:///{}?timeout=5"])
def test_a_spool_must_not_be_the_file_of_the_inbox(url, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "inbox.db")
    inbox = SqlInbox(f"sqlite:///{tmp_path}/inbox.db")
    with pytest.raises(ConfigurationError, match="file of its own"):
        Webhooks(secret="s", inbox=inbox, spool=url.format(link))
    inbox.close()


@pytest.mark.parametrize(
    ("nonces", "error"),
    [
        ("memcached://host", "nonces must be 'memory:' or a URL such as redis://"),
        ("redis", "nonces must be"),
        (f"redis://:{PASSWORD}@host:port/0", "percent-encoded"),
        (f"redis://:a#{PASSWORD}@host/0", "nonce store's URL"),
        (f"redis://:{PASSWORD}@host/first", "number of a database"),
        (f"redis://:{PASSWORD}@host/0?socket_timeout=soon", "'socket_timeout'"),
        (f"redis://:{PASSWORD}@host/0?time_out=3", "'time_out'"),
        (f"rediss://:{PASSWORD}@host/0?ssl_cert_reqs=maybe", "nonce store's URL"),
        (3, "got int"),
    ],
)
def test_invalid_nonce_stores_are_rejected(nonces, error):
    with pytest.raises(ConfigurationError, match=error) as caught:
        Webhooks(secret="s", inbox="memory:", nonces=nonces)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://host", "rediss://me:a%40b@host:6380/3", "unix:///run/redis.sock?db=1"])
def test_valid_nonce_stores(url):
    assert open_nonces(url).blocking


# Servers


def test_mysql_urls_work_with_mariadb(mariadb_inbox_url, sql_inboxes):
    url = make_url(mariadb_inbox_url).set(drivername="mysql+pymysql")
    inbox = sql_inboxes(url)
    add(inbox, "evt_1")
    assert inbox.get("evt_1") is not None
    # The engine of an application keeps its dialect.
    engine = create_engine(url, hide_parameters=True, isolation_level="READ COMMITTED")
    own = SqlInbox(engine)
    add(own, "evt_2")
    [first, second] = own.claim(2, 60)
    assert (first.event.id, second.event.id) == ("evt_1", "evt_2")
    own.close()


@pytest.mark.parametrize(
    ("version", "error"),
    [("8.0.36", "is MySQL 8.0.36, which is not supported"), ("10.5.23-MariaDB-log", "MariaDB 10.6 or later")],
)
def test_unsupported_servers_are_rejected(version, error, mariadb_inbox_url, monkeypatch):
    check_mariadb("10.6.0-MariaDB")
    check_mariadb("11.4.2-MariaDB-ubu2404")
    engine = create_engine(make_url(mariadb_inbox_url).set(drivername="mysql+pymysql"))
    inboxes = [SqlInbox(mariadb_inbox_url), SqlInbox(engine)]
    for module in ("engines", "database"):
        monkeypatch.setattr(f"envoyou_core.inbox.sql.{module}.check_mariadb", lambda _: check_mariadb(version))
    for inbox in inboxes:
        for use in (inbox.open, inbox.migrate, inbox.stats):
            with pytest.raises(ConfigurationError, match=error):
                use()
        inbox.close()


@pytest.mark.parametrize(
    ("url", "location"),
    [
        (
            f"postgresql://me:{PASSWORD}@db:6432/app?sslpassword={PASSWORD}&host=other",
            "postgresql+psycopg://me@db:6432/app?host=other",
        ),
        (f"mysql://me:{PASSWORD}@db/app?read_timeout=3", "mariadb+pymysql://me@db/app"),
        ("sqlite:///app.db", f"sqlite:///{os.getcwd()}/app.db"),  # noqa: PTH109
    ],
)
def test_location_has_no_password(url, location):
    inbox = SqlInbox(url)
    assert inbox.location == location
    inbox.close()


def test_values_that_are_not_engines_are_rejected():
    with pytest.raises(ConfigurationError, match="must be a URL or an engine, got int"):
        SqlInbox(3)
    with pytest.raises(ConfigurationError, match="got dict"):
        Spool({})
