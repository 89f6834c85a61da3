"""Creation and upgrade of the inbox's tables.

Forward only. A step adds only what releases of the previous revision can do without, so that they go on working during
a rolling deploy. The first step that cannot do so must raise `OLDEST_COMPATIBLE`.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Index, Table, inspect, select, text, update
from sqlalchemy.schema import CreateColumn, CreateIndex

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.sql.schema import (
    alerts_table,
    handler_sets_table,
    inbox_table,
    metadata,
    paused_table,
    processes_table,
    rejected_table,
    rollups_table,
    schema_table,
    watermarks_table,
)

__all__ = ["OLDEST_COMPATIBLE", "REVISION", "build_key_online", "build_waits_online", "check_schema", "set_up"]

REVISION = 7
"""The revision of the tables that this release creates."""

OLDEST_COMPATIBLE = 1
"""The oldest revision whose releases can use the tables of this release."""

MIGRATE = "run `envoyou migrate`, with the inbox's URL in ENVOYOU_INBOX"


def _index(name: str) -> Index:
    return next(index for index in inbox_table.indexes if index.name == name)


_KEY = _index("envoyou_inbox_key")
_WAITS = _index("envoyou_inbox_waits")


def set_up(connection: Connection) -> None:
    """Create the tables or bring them up to this release, within the connection's transaction; idempotent.

    MariaDB commits after each statement that changes a table. An interrupted upgrade is therefore repeated there.

    Raises:
        ConfigurationError: the tables are of a later release that this one is not compatible with.
    """
    revision = _revision(connection)
    if revision is None:
        metadata.create_all(connection)
        connection.execute(schema_table.insert().values(version=OLDEST_COMPATIBLE, revision=REVISION))
        return
    _refuse_later(connection)
    for upgrade in _UPGRADES[revision - 1 :]:
        upgrade(connection)
    if revision < REVISION:
        connection.execute(update(schema_table).values(version=OLDEST_COMPATIBLE, revision=REVISION))


def build_key_online(connection: Connection) -> None:
    """Build the unique key on PostgreSQL without blocking writers, as `set_up` would.

    Idempotent; it does nothing if the tables do not exist yet.

    Args:
        connection: a connection in AUTOCOMMIT, because PostgreSQL builds no index concurrently within a transaction.
    """
    if inspect(connection).has_table(inbox_table.name):
        _build_online(connection, _KEY)


def build_waits_online(connection: Connection) -> None:
    """Build the index of what waits on PostgreSQL without blocking writers. `set_up` must have added its column.

    Idempotent. See `build_key_online`.
    """
    _build_online(connection, _WAITS)


def _build_online(connection: Connection, index: Index) -> None:
    if connection.dialect.name != "postgresql":
        return
    is_valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    if connection.scalar(is_valid, {"name": index.name}):
        return
    # An interruption leaves an invalid index.
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"))
    definition = str(CreateIndex(index).compile(dialect=connection.dialect))
    connection.execute(text(definition.replace("INDEX", "INDEX CONCURRENTLY", 1)))


def check_schema(connection: Connection) -> None:
    """Check that the tables fit this release.

    Raises:
        ConfigurationError: the tables do not exist, are of an earlier release, or of a later one that this one is not
            compatible with.
    """
    revision = _revision(connection)
    if revision is None:
        raise ConfigurationError(f"the inbox's tables do not exist: {MIGRATE}")
    if revision < REVISION:
        raise ConfigurationError(f"the inbox's tables are of an earlier release: {MIGRATE}")
    _refuse_later(connection)


def _revision(connection: Connection) -> int | None:
    if not inspect(connection).has_table(schema_table.name):
        return None
    if connection.scalar(select(schema_table.c.version)) is None:
        return None
    if "revision" not in _columns(connection, schema_table):
        return 1
    return connection.scalar(select(schema_table.c.revision)) or 1


def _refuse_later(connection: Connection) -> None:
    needed = connection.scalar(select(schema_table.c.version))
    if needed is not None and needed > REVISION:
        raise ConfigurationError(
            f"the inbox's tables are of a later release (schema {needed}, expected {REVISION} or earlier): "
            "upgrade envoyou-webhooks"
        )


def _to_revision_2(connection: Connection) -> None:
    """Order, retention, history and pauses. Its index is built under a lock: seconds, with millions of events."""
    metadata.create_all(connection, [watermarks_table, paused_table])
    for column in ("object_key", "applied", "history", "scrubbed_at", "to_erase"):
        _add_column(connection, inbox_table, column)
    _add_index(connection, _index("envoyou_inbox_object"))
    # Last, because it shows that the upgrade is complete.
    _add_column(connection, schema_table, "revision")


def _to_revision_3(connection: Connection) -> None:
    """The unique key finds an event by its id alone. One of the two keys holds at every moment."""
    _add_index(connection, _KEY)
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE envoyou_inbox DROP CONSTRAINT IF EXISTS envoyou_inbox_event"))
    if connection.dialect.name == "mariadb":
        connection.execute(text("ALTER TABLE envoyou_inbox DROP INDEX IF EXISTS envoyou_inbox_event"))
    # SQLite could drop the old key only by copying the whole table, which would block writers for too long.


def _to_revision_4(connection: Connection) -> None:
    """Rejected deliveries, handler sets, processes, and what an event owes."""
    metadata.create_all(connection, [rejected_table, handler_sets_table, processes_table])
    for column in ("accepted_set", "claimed_set", "previous_set", "owed", "waits_for", "waits_since"):
        _add_column(connection, inbox_table, column)
    # PostgreSQL reads the whole table for it, so `build_waits_online` builds it there.
    if connection.dialect.name != "postgresql":
        _add_index(connection, _WAITS)


def _to_revision_5(connection: Connection) -> None:
    """The headers that are kept with an event."""
    _add_column(connection, inbox_table, "headers")


def _to_revision_6(connection: Connection) -> None:
    """Roll-ups and the states of alerts."""
    metadata.create_all(connection, [rollups_table, alerts_table])


def _to_revision_7(connection: Connection) -> None:
    """The trace context of the acceptance."""
    _add_column(connection, inbox_table, "traceparent")


_UPGRADES: list[Callable[[Connection], None]] = [
    _to_revision_2,
    _to_revision_3,
    _to_revision_4,
    _to_revision_5,
    _to_revision_6,
    _to_revision_7,
]
"""The upgrades in order; the first one is from revision 1 to 2."""


def _add_column(connection: Connection, table: Table, name: str) -> None:
    if name not in _columns(connection, table):
        definition = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
        connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _add_index(connection: Connection, index: Index) -> None:
    index.create(connection, checkfirst=True)


def _columns(connection: Connection, table: Table) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table.name)}
