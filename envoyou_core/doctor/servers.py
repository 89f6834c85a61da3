"""Checks of the settings of a database, by the tables of the documentation ("Configure the database")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from envoyou_core.doctor.findings import Finding
from envoyou_core.inbox.inspection import InspectableInbox

__all__ = ["check_server", "setting_findings", "timeout_findings"]

CHECK: Final = "server"

MIN_CONNECTIONS: Final = 20
"""A process needs 13 by default."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting of a server should be.

    Attributes:
        expected: the accepted values, in lower case.
        consequence: what happens otherwise.
        advice: what to do.
        is_problem: whether accepted events are at risk, or none can be accepted.
    """

    expected: frozenset[str]
    consequence: str
    advice: str
    is_problem: bool = False


DURABLE: Final = "an event that was answered 200 may be lost in a power cut"

POSTGRES: Final[Mapping[str, Rule]] = {
    "fsync": Rule(frozenset({"on"}), DURABLE, "set fsync = on in postgresql.conf", is_problem=True),
    "full_page_writes": Rule(
        frozenset({"on"}),
        "a power cut may damage the tables",
        "set full_page_writes = on in postgresql.conf",
        is_problem=True,
    ),
    "transaction_read_only": Rule(
        frozenset({"off"}),
        "nothing can be stored",
        "connect to the primary (?target_session_attrs=read-write), or reset default_transaction_read_only",
        is_problem=True,
    ),
    "synchronous_commit": Rule(
        frozenset({"on", "local", "remote_write", "remote_apply"}),
        "acceptances raise it, but what handlers do in their transactions may be lost in a power cut",
        "set it to on for the role or the database",
    ),
    "default_transaction_isolation": Rule(
        frozenset({"read committed"}),
        "handlers that share the inbox's transaction conflict, and are repeated",
        "set it to 'read committed' for the role of the application",
    ),
}

MARIADB: Final[Mapping[str, Rule]] = {
    "innodb_flush_log_at_trx_commit": Rule(frozenset({"1"}), DURABLE, "set it to 1", is_problem=True),
    "read_only": Rule(frozenset({"0", "off"}), "nothing can be stored", "connect to the primary", is_problem=True),
    "innodb_doublewrite": Rule(frozenset({"1", "on"}), "a power cut may damage the tables", "set it to on"),
}

SQLITE: Final[Mapping[str, Rule]] = {
    "journal_mode": Rule(
        frozenset({"wal", "memory"}),
        "readers block the acceptance of events",
        'in Django, set "init_command": "PRAGMA journal_mode=WAL" in OPTIONS; a network file system cannot have it',
    ),
}

RULES: Final[Mapping[str, Mapping[str, Rule]]] = {"postgresql": POSTGRES, "mariadb": MARIADB, "sqlite": SQLITE}

QUERIES: Final[Mapping[str, str]] = {
    "postgresql": "SELECT current_setting('{name}')",
    "mariadb": "SELECT @@GLOBAL.{name}",
    "sqlite": "PRAGMA {name}",
}

TIMEOUTS: Final[Mapping[str, tuple[int, str]]] = {
    "idle_in_transaction_session_timeout": (10_000, "a handler that shares a transaction fails if it waits for longer"),
    "statement_timeout": (1_000, "the worker's own statements, and those of handlers, fail if they take longer"),
}
"""Milliseconds below which a limit of PostgreSQL is short, and its consequence. Zero is no limit."""

TIMEOUT: Final = "SELECT setting FROM pg_settings WHERE name = '{name}'"

CONNECTIONS: Final = (
    "SELECT current_setting('max_connections'), (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)"
)


def check_server(inbox: InspectableInbox) -> Iterator[Finding]:
    """Check the settings of the inbox's database."""
    dialect = inbox.dialect
    names = RULES[dialect]
    values = {name: str(_first(inbox.read_row(QUERIES[dialect].format(name=name)))) for name in names}
    found = list(setting_findings(dialect, values))
    if dialect == "postgresql":
        found += _connection_findings(inbox.read_row(CONNECTIONS))
        limits = {name: int(str(_first(inbox.read_row(TIMEOUT.format(name=name))))) for name in TIMEOUTS}
        found += timeout_findings(limits)
    yield from found or [Finding.ok(CHECK, f"the settings of {dialect} are safe: {', '.join(names)}")]


def setting_findings(dialect: str, values: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the values of settings, by name.

    Args:
        dialect: `postgresql`, `mariadb` or `sqlite`.
        values: the values.
    """
    for name, rule in RULES[dialect].items():
        value = values[name]
        if value.lower() not in rule.expected:
            make = Finding.problem if rule.is_problem else Finding.warning
            yield make(CHECK, f"{name} is {value}: {rule.consequence}", rule.advice)


def timeout_findings(limits: Mapping[str, int]) -> Iterator[Finding]:
    """Judge the time limits of PostgreSQL.

    Args:
        limits: milliseconds by the name of the setting.
    """
    for name, (short, consequence) in TIMEOUTS.items():
        if 0 < limits[name] < short:
            yield Finding.warning(
                CHECK, f"{name} is {limits[name]} ms: {consequence}", f"raise it for the role to {short} ms or more"
            )


def _connection_findings(row: tuple[object, ...]) -> list[Finding]:
    limits = [int(str(value)) for value in row if value is not None]
    limit = min((each for each in limits if each >= 0), default=MIN_CONNECTIONS)
    if limit >= MIN_CONNECTIONS:
        return []
    return [
        Finding.warning(
            CHECK,
            f"the role may open {limit} connections, and one process of the application may need 13 (CONCURRENCY + 5)",
            "raise the role's CONNECTION LIMIT or max_connections, lower CONCURRENCY, or use PgBouncer",
        )
    ]


def _first(row: tuple[object, ...]) -> object:
    return row[0] if row else ""
