"""The tables of the SQL inbox.

Times are whole microseconds since the epoch, in UTC: exact in every database, and comparable across them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

__all__ = [
    "BUCKET_COLUMNS",
    "alerts_table",
    "handler_sets_table",
    "inbox_table",
    "metadata",
    "paused_table",
    "processes_table",
    "rejected_table",
    "rollups_table",
    "schema_table",
    "watermarks_table",
]

metadata = MetaData()

# SQLite counts only a column declared INTEGER as the row's own number.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

# MariaDB's usual collations take "EVT_1 " for "evt_1", and its usual types hold 64 KiB.
_EXACT = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
_Body = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_LongText = Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb")


def _exact(length: int) -> TypeEngine[str]:
    return String(length).with_variant(mysql.VARCHAR(length, **_EXACT), "mysql", "mariadb")


inbox_table = Table(
    "envoyou_inbox",
    metadata,
    Column("key", _RowNumber, primary_key=True, autoincrement=True),
    Column("name", _exact(64), nullable=False),
    Column("tenant", _exact(255), nullable=False),
    Column("event_id", _exact(255), nullable=False),
    Column("type", _exact(255), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("webhook_id", _exact(255)),
    Column("body", _Body, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("progress", _LongText, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("lease_token", String(32)),
    Column("settled_at", BigInteger),
    Column("last_error", _LongText),
    # Since revision 2. Releases of revision 1 leave them NULL.
    Column("object_key", _exact(255)),  # empty if the event has no object; NULL if it is unknown yet
    Column("applied", Integer),  # 1 if a handler succeeded
    Column("history", _LongText),
    Column("scrubbed_at", BigInteger),
    Column("to_erase", Integer),  # 1 if the payload is to be deleted when the event is finished
    # Since revision 4. Earlier releases leave them as they are.
    Column("accepted_set", String(16)),  # the handler set of the process that accepted the event
    Column("claimed_set", String(16)),  # that of the process that claimed it last
    Column("previous_set", String(16)),  # that of the process before, for a claim that takes over
    Column("owed", _LongText),  # JSON: handlers that still have to run, and whether each has begun
    Column("waits_for", _exact(255)),  # the handler that the event waits for
    Column("waits_since", BigInteger),
    # Since revision 5. Earlier releases leave it NULL.
    Column("headers", _LongText),  # JSON: the headers of the request that were kept
    # Since revision 7. Earlier releases leave it NULL.
    Column("traceparent", String(64)),  # the trace context of the acceptance
    # The key of a pruned row must not be reused, because keys are the order of arrival.
    sqlite_autoincrement=True,
)
Index(
    "envoyou_inbox_key",
    inbox_table.c.name,
    # Before the tenant, so that the index also finds an event by its id alone.
    inbox_table.c.event_id,
    inbox_table.c.tenant,
    unique=True,
)
_due = inbox_table.c.due_at.is_not(None)
Index("envoyou_inbox_due", inbox_table.c.name, inbox_table.c.due_at, sqlite_where=_due, postgresql_where=_due)
_waits = inbox_table.c.waits_for.is_not(None)
Index("envoyou_inbox_waits", inbox_table.c.name, inbox_table.c.waits_for, sqlite_where=_waits, postgresql_where=_waits)
Index("envoyou_inbox_settled", inbox_table.c.name, inbox_table.c.status, inbox_table.c.settled_at)
Index(
    "envoyou_inbox_object",
    inbox_table.c.name,
    # Before the tenant, so that the index also finds events whose object is unknown yet.
    inbox_table.c.object_key,
    inbox_table.c.tenant,
    inbox_table.c.created,
)

watermarks_table = Table(
    "envoyou_marks",
    metadata,
    Column("name", _exact(64), primary_key=True),
    Column("tenant", _exact(255), primary_key=True),
    Column("object_key", _exact(255), primary_key=True),
    Column("created", BigInteger, nullable=False),
)
"""The creation time of the newest pruned event of an object that had an effect."""

paused_table = Table(
    "envoyou_paused",
    metadata,
    Column("key", _RowNumber, primary_key=True, autoincrement=True),
    Column("name", _exact(64), nullable=False),
    Column("subject", _LongText, nullable=False),
)
"""The paused subjects. There is no unique key, because a subject may be of any length; duplicates are harmless."""

rejected_table = Table(
    "envoyou_rejected",
    metadata,
    Column("key", _RowNumber, primary_key=True, autoincrement=True),
    Column("name", _exact(64), nullable=False),
    Column("tenant", _exact(255), nullable=False),
    Column("digest", _exact(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("error", _LongText, nullable=False),
    Column("headers", _LongText, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("object_key", _exact(255), nullable=False),
    # Before the body, so that the sizes can be summed without reading the bodies.
    Column("size", BigInteger, nullable=False),
    Column("body", _Body, nullable=False),
    # A retry must not find another delivery under the key of a deleted one.
    sqlite_autoincrement=True,
)
"""Genuine deliveries that were answered 400; see `envoyou_core.inbox.rejected`. Since revision 4."""
Index("envoyou_rejected_key", rejected_table.c.name, rejected_table.c.tenant, rejected_table.c.digest, unique=True)

handler_sets_table = Table(
    "envoyou_handler_sets",
    metadata,
    Column("name", _exact(64), primary_key=True),
    Column("id", String(16), primary_key=True),
    Column("handlers", _LongText, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)
"""The handler sets of the processes, with the names and patterns of the handlers as JSON. A set never changes."""

processes_table = Table(
    "envoyou_processes",
    metadata,
    Column("name", _exact(64), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("handler_set", String(16), nullable=False),
    Column("host", _exact(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", _exact(64), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("boot_id", String(64)),
    Column("pid_namespace", String(64)),
    Column("pid_started", BigInteger),
)
"""The processes that use the inbox; see `envoyou_core.inbox.processes`."""

BUCKET_COLUMNS = tuple(f"b{number:02}" for number in range(18))
"""The columns of a roll-up's histogram, one for each bucket of `envoyou_core.analytics.histogram`."""

rollups_table = Table(
    "envoyou_rollups",
    metadata,
    Column("name", _exact(64), primary_key=True),
    Column("period", Integer, primary_key=True, autoincrement=False),  # seconds: a minute, an hour or a day
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("measure", _exact(32), primary_key=True),
    Column("event_type", _exact(255), primary_key=True),  # empty if it is unknown or not counted by type
    Column("handler", _exact(255), primary_key=True),  # empty if it is not counted by handler
    Column("number", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),  # microseconds, over the counts in the buckets
    *(Column(bucket, BigInteger, nullable=False) for bucket in BUCKET_COLUMNS),
)
"""Counts for each minute, hour and day; see `envoyou_core.analytics`. Since revision 6."""

alerts_table = Table(
    "envoyou_alerts",
    metadata,
    Column("name", _exact(64), primary_key=True),
    Column("states", _LongText, nullable=False),
    Column("token", String(32)),
    Column("due_at", BigInteger, nullable=False),
)
"""The states of all alert rules as JSON, the process that evaluates them, and until when. Since revision 6."""

schema_table = Table(
    "envoyou_schema",
    metadata,
    Column("version", Integer, nullable=False),
    Column("revision", Integer),  # NULL in revision 1, which had no such column
)
"""One row: the oldest revision whose releases can use these tables, and the revision of the tables."""
