"""The tables of the SQL inbox, and how a database gets them.

Times are whole microseconds since the epoch, in UTC: exact in every database, and comparable across them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
)

from envoyou_core.errors import ConfigurationError

__all__ = ["SCHEMA_VERSION", "check_schema", "create_schema", "inbox_table", "metadata"]

SCHEMA_VERSION = 1

metadata = MetaData()

# SQLite counts only a column declared INTEGER as the row's own number.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

inbox_table = Table(
    "envoyou_inbox",
    metadata,
    Column("key", _RowNumber, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("tenant", String(255), nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("type", String(255), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("webhook_id", String(255)),
    Column("body", LargeBinary, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("progress", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("lease_token", String(32)),
    Column("settled_at", BigInteger),
    Column("last_error", Text),
    UniqueConstraint("name", "tenant", "event_id", name="envoyou_inbox_event"),
    # A number that was pruned must not come again: it is the order of arrival.
    sqlite_autoincrement=True,
)
_due = inbox_table.c.due_at.is_not(None)
Index("envoyou_inbox_due", inbox_table.c.name, inbox_table.c.due_at, sqlite_where=_due, postgresql_where=_due)
Index("envoyou_inbox_settled", inbox_table.c.name, inbox_table.c.status, inbox_table.c.settled_at)

_version_table = Table("envoyou_schema", metadata, Column("version", Integer, nullable=False))


def create_schema(connection: Connection) -> None:
    """Create what is missing, within the connection's transaction; idempotent.

    Raises:
        ConfigurationError: the database was set up by a later release.
    """
    metadata.create_all(connection)
    if _version(connection) is None:
        connection.execute(_version_table.insert().values(version=SCHEMA_VERSION))
    check_schema(connection)


def check_schema(connection: Connection) -> None:
    """Hold the database's schema against this release.

    Raises:
        ConfigurationError: it was not created, or by a later release.
    """
    version = _version(connection) if inspect(connection).has_table(_version_table.name) else None
    if version is None:
        raise ConfigurationError(
            "the inbox's tables do not exist yet: run `envoyou migrate` once, with the inbox's URL in ENVOYOU_INBOX"
        )
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the inbox was set up by a later release (schema {version}, this one knows {SCHEMA_VERSION}): upgrade "
            "envoyou-webhooks"
        )


def _version(connection: Connection) -> int | None:
    return connection.scalar(select(_version_table.c.version))
