"""Parses the URL of an inbox into a database, a driver and driver options.

Errors name the wrong scheme, driver or option, but never the URL, because it may contain a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.files import SqliteFile

__all__ = ["DatabaseUrl", "driver_options", "read_url", "shown_url", "sqlite_file"]

EXAMPLES = "sqlite:///envoyou.db, postgresql+psycopg://user@host/database or mariadb+pymysql://user@host/database"

DATABASES: Final = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mariadb": "mariadb",
    # MariaDB uses the protocol of MySQL; the version of the server tells them apart.
    "mysql": "mariadb",
}
"""The database for each scheme."""

DRIVERS: Final = {"sqlite": ("pysqlite",), "postgresql": ("psycopg",), "mariadb": ("pymysql", "mysqldb")}
"""The supported drivers of each database; the first is the default."""

ASYNC_DRIVERS: Final = {"aiosqlite", "asyncpg", "psycopg_async", "aiomysql", "asyncmy"}

TRUE: Final = {"1", "true", "yes", "on"}
FALSE: Final = {"0", "false", "no", "off"}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)(?:\+([A-Za-z0-9._-]+))?://")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The parsed URL of an inbox.

    Attributes:
        url: the URL with a supported driver, and with the absolute path of a SQLite file.
        file: the SQLite file; `None` for a server.
    """

    url: URL
    file: SqliteFile | None = None


def read_url(database: str | URL, *, kind: str = "inbox") -> DatabaseUrl:
    """Parse a database URL and choose its driver.

    `postgres://` and `postgresql://` use psycopg 3; `mysql://` and `mariadb://` expect a MariaDB server.

    Args:
        database: the configured URL.
        kind: `inbox` or `spool`, for errors.

    Raises:
        ConfigurationError: the URL is invalid or not supported; the message says what to write instead.
    """
    url = _parse(database, kind) if isinstance(database, str) else database
    if not isinstance(url, URL):
        raise ConfigurationError(f"the {kind} must be a URL or an engine, got {type(url).__name__}")
    url = url.set(drivername=_driver_name(url, kind))
    if url.host is not None and "@" in url.host:
        raise ConfigurationError(f"the password in the {kind}'s URL must be percent-encoded: write %40 for @")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ConfigurationError(f"the port in the {kind}'s URL must be 1 to 65535, got {url.port}")
    if url.get_backend_name() != "sqlite":
        return DatabaseUrl(url)
    file = sqlite_file(url)
    if file is None:
        raise ConfigurationError(
            f"SQLite in memory is not durable: the {kind} must be a file, such as sqlite:///envoyou.db; "
            "tests may use inbox='memory:'"
        )
    path = f"file:{quote(str(file.path))}" if _is_uri(url) else str(file.path)
    return DatabaseUrl(url.set(database=path), file)


def _parse(text: str, kind: str) -> URL:
    text = text.strip()
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text:
            raise ConfigurationError(f"the {kind}'s URL is empty: expected one such as {EXAMPLES}")
        raise ConfigurationError(f"the {kind}'s URL must be a URL such as {EXAMPLES}: it has no '://'")
    rest = text[scheme.end() :]
    if _database_of(scheme[1]) == "sqlite" and rest and not rest.startswith(("/", "?")):
        # After two slashes, the first part of the path is a host.
        suggestion = "" if "@" in rest else f" to sqlite:///{rest}"
        raise ConfigurationError(
            f"the {kind}'s URL must have three slashes before a relative SQLite path or a Windows drive, and four "
            f"before an absolute path: change it{suggestion}"
        )
    try:
        return make_url(f"{scheme[0].lower()}{rest}")
    except ValueError:
        # The port is not a number; an unescaped special character in the password has the same effect.
        raise ConfigurationError(
            f"the port in the {kind}'s URL must be a number. Special characters in a password must be percent-encoded; "
            "several hosts are written ?host=first:5432&host=second:5432"
        ) from None
    except ArgumentError:
        raise ConfigurationError(f"the {kind}'s URL cannot be parsed: expected one such as {EXAMPLES}") from None


def _driver_name(url: URL, kind: str) -> str:
    scheme, _, driver = url.drivername.partition("+")
    database = _database_of(scheme)
    if database is None:
        close = difflib.get_close_matches(scheme, DATABASES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected a URL such as {EXAMPLES}"
        if scheme in {"redis", "rediss"}:
            hint += "; Redis is supported for nonces only"
        raise ConfigurationError(f"the {kind}'s URL has the unsupported scheme {scheme!r}: {hint}")
    default, *others = DRIVERS[database]
    if not driver or driver == default or driver in others:
        return f"{database}+{driver or default}"
    if driver in ASYNC_DRIVERS:
        raise ConfigurationError(
            f"the driver {driver} is async: write {database}+{default}://, or share the transactions of your own async "
            "engine with AsyncSqlInbox(engine)"
        )
    raise ConfigurationError(f"the {kind}'s URL has the unsupported driver {driver!r}: write {database}+{default}://")


def _database_of(scheme: str) -> str | None:
    return DATABASES.get(scheme.lower())


def sqlite_file(url: URL) -> SqliteFile | None:
    """Return the file of a SQLite URL; `None` for a database in memory.

    Raises:
        ConfigurationError: the URL contains a SQLite URI without the option `uri`.
    """
    name = url.database or ":memory:"
    if _is_uri(url):
        name = ":memory:" if url.query.get("mode") == "memory" else unquote(urlsplit(name).path)
    elif name.startswith("file:"):
        raise ConfigurationError("a SQLite URI needs the option uri: sqlite:///file:envoyou.db?uri=true")
    return None if name in {"", ":memory:"} else SqliteFile.at(name)


def _is_uri(url: URL) -> bool:
    is_uri = str(url.query.get("uri", "false")).lower() in TRUE
    return is_uri and (url.database or "").startswith("file:")


def shown_url(url: URL) -> str:
    """Return the URL for display, without its password and with no options but the hosts."""
    hosts = {name: value for name, value in url.query.items() if name in {"host", "port"}}
    return URL.create(
        url.drivername, username=url.username, host=url.host, port=url.port, database=url.database, query=hosts
    ).render_as_string()


# Driver options


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise ValueError("must be a number of seconds")
    return float(text)


def _integer_or_none(text: str) -> int | None:
    if text.lower() == "none":
        return None
    try:
        return _integer(text)
    except ValueError:
        raise ValueError("must be a whole number or none") from None


def _boolean(text: str) -> bool:
    if text.lower() not in {*TRUE, *FALSE}:
        raise ValueError("must be true or false")
    return text.lower() in TRUE


def _text(text: str) -> str:
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def choice(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return text

    return choice


Options = Mapping[str, Callable[[str], Any]]

_SQLITE: Final[Options] = {
    "timeout": _seconds,
    "uri": _boolean,
    # Parameters of SQLite URIs.
    "mode": _one_of("rw", "rwc"),
    "cache": _one_of("private"),
    "vfs": _text,
}
_PSYCOPG: Final[Options] = {
    "prepare_threshold": _integer_or_none,
    **dict.fromkeys(
        (
            "connect_timeout",
            "tcp_user_timeout",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_count",
        ),
        _integer,
    ),
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_PYMYSQL: Final[Options] = {
    # Other character sets would reject or replace characters of events.
    "charset": _one_of("utf8mb4"),
    **dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout", "max_allowed_packet"), _integer),
    **dict.fromkeys(
        (
            "bind_address",
            "init_command",
            "program_name",
            "read_default_file",
            "read_default_group",
            "server_public_key",
            "unix_socket",
        ),
        _text,
    ),
    "ssl_disabled": _boolean,
}
_PYMYSQL_TLS: Final[Options] = {
    **dict.fromkeys(("ssl_ca", "ssl_cert", "ssl_key", "ssl_capath", "ssl_cipher"), _text),
    "ssl_check_hostname": _boolean,
}


def driver_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Convert the options of a URL to the types that the driver expects.

    Returns:
        The URL with the options that SQLAlchemy reads, and the other options as arguments for the driver.

    Raises:
        ConfigurationError: the driver does not support an option or its value.
    """
    driver = url.get_driver_name()
    if driver == "pysqlite":
        return _convert(url, _SQLITE, kept={"uri", "mode", "cache", "vfs"})
    if driver == "psycopg":
        from psycopg.pq import Conninfo

        others = {option.keyword.decode(): _text for option in Conninfo.get_defaults()}
        # SQLAlchemy handles multiple hosts.
        return _convert(url, others | dict(_PSYCOPG), kept={"host", "port"})
    if driver == "pymysql":
        # SQLAlchemy combines the TLS options.
        return _convert(url, {**_PYMYSQL, **_PYMYSQL_TLS}, kept=_PYMYSQL_TLS)
    return url, {}


def _convert(url: URL, known: Options, kept: Collection[str]) -> tuple[URL, dict[str, Any]]:
    arguments = {}
    for name, given in url.query.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"the option {name!r} in the database URL is unknown to {url.get_driver_name()}{hint}"
            )
        if name in {"host", "port"}:
            continue
        if not isinstance(given, str):
            raise ConfigurationError(f"the option {name!r} is given twice in the database URL")
        try:
            value = known[name](given)
        except ValueError as error:
            raise ConfigurationError(f"the option {name!r} in the database URL {error}") from None
        if name not in kept:
            arguments[name] = value
    return url.set(query={name: url.query[name] for name in url.query if name in kept}), arguments
