"""The time of what applications and workers ask of an inbox, by how many events it has."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from sqlalchemy import Engine, create_engine, event

from benchmarks.databases import databases
from benchmarks.measuring import Comparison, Ratio, Round, Run
from envoyou_core.inbox import NewEvent, Settlement, SqlInbox, Status
from envoyou_core.testing import sample_event

__all__ = ["comparisons"]

SIZES = {"SQLite": (10_000, 1_000_000), "PostgreSQL": (10_000, 1_000_000, 5_000_000)}
"""Rows with the default number of events; other numbers of events scale them."""

DEFAULT_EVENTS = 4000
TARGET = 1.3
REPETITIONS = 100
BATCH = 50
LEASE = 60.0

ROWS = {
    "SQLite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})"
    " {select} FROM numbers",
    "PostgreSQL": "{select} FROM generate_series(1, {rows}) AS numbers(n)",
}
BODY = {"SQLite": "CAST('x' AS BLOB)", "PostgreSQL": r"'\x78'::bytea"}

# Processed events, received one a second: ten of each object, of several types.
FILL = """
    INSERT INTO envoyou_inbox (name, tenant, event_id, type, created, body, status, attempts, crashes, progress,
                               received_at, settled_at, object_key)
"""
SELECT = """
    SELECT 'default', '', 'evt_old_' || n,
           CASE n % 3 WHEN 0 THEN 'user.created' WHEN 1 THEN 'user.updated' ELSE 'auth.login' END,
           0, {body}, 'processed', 1, 0, '{{}}', n * CAST(1000000 AS BIGINT), n * CAST(1000000 AS BIGINT),
           'user_' || (n / 10)
"""

Operation = Callable[[SqlInbox], object]


def comparisons(run: Run) -> Iterator[Comparison]:
    """Yield the comparisons of this benchmark. The filled databases exist until the last one is measured."""
    for name, database in databases(run).items():
        with ExitStack() as stack:
            inboxes = {}
            for size in sizes_of(run, name):
                engine = create_engine(stack.enter_context(database()))
                stack.callback(engine.dispose)
                inbox = stack.enter_context(closing(SqlInbox(engine)))
                inbox.open()
                fill(engine, name, size)
                inboxes[f"{size} rows"] = (inbox, engine)
            smallest, *larger = inboxes
            for title, operation in OPERATIONS.items():
                yield Comparison(
                    f"milliseconds to {title}, {name}",
                    {size: partial(measure, run, *inboxes[size], operation) for size in inboxes},
                    [Ratio(size, smallest, at_most=TARGET) for size in larger],
                )


def sizes_of(run: Run, name: str) -> Sequence[int]:
    """Return the numbers of rows that are compared in a database of this kind, the smallest first."""
    return list(dict.fromkeys(max(100, size * run.events // DEFAULT_EVENTS) for size in SIZES[name]))


def fill(engine: Engine, name: str, rows: int) -> None:
    """Insert finished events, and let the database count them."""
    statement = FILL + ROWS[name].format(rows=rows, select=SELECT.format(body=BODY[name]))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement.replace("%", "%%") if name == "PostgreSQL" else statement)
        connection.exec_driver_sql("ANALYZE envoyou_inbox" if name == "SQLite" else "VACUUM ANALYZE envoyou_inbox")


_numbers = itertools.count()


def accept(inbox: SqlInbox) -> None:
    inbox.add(NewEvent(sample_event(object={"id": f"new_{next(_numbers)}"}))).result()


def claim(inbox: SqlInbox) -> None:
    """Claim one event, which is accepted before, and settle it."""
    accept(inbox)
    (claimed,) = inbox.claim(1, LEASE)
    inbox.settle(claimed, Settlement(Status.PROCESSED, attempts=1))


def list_events(inbox: SqlInbox) -> None:
    inbox.list(limit=BATCH)


def list_of_object(inbox: SqlInbox) -> None:
    inbox.list(object_id="user_7", limit=BATCH)


def stats(inbox: SqlInbox) -> None:
    inbox.stats()


def get(inbox: SqlInbox) -> None:
    inbox.get("evt_old_7")


OPERATIONS: dict[str, Operation] = {
    "accept an event": accept,
    "accept, claim and settle an event": claim,
    "list the newest events": list_events,
    "list the events of an object": list_of_object,
    "find an event": get,
    "count events by status": stats,
}


def measure(run: Run, inbox: SqlInbox, engine: Engine, operation: Operation) -> Round:
    """Repeat an operation and return the median of its times."""
    scans = full_scans(engine, sent_by(engine, partial(operation, inbox)))
    times = []
    for _ in range(min(REPETITIONS, run.events)):
        started = time.perf_counter()
        operation(inbox)
        times.append(time.perf_counter() - started)
    return Round(len(times), statistics.median(times) * 1000, {"full scans": scans})


def sent_by(engine: Engine, action: Callable[[], object]) -> list[tuple[str, Any]]:
    """Return the statements that `action` sends, with their parameters."""
    sent: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return sent


def full_scans(engine: Engine, statements: Sequence[tuple[str, Any]]) -> int:
    """Return how many of the statements read all rows of the inbox, by the database's own plan."""
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    scans = 0
    with engine.connect() as connection:
        for statement, parameters in statements:
            # A scan in the order of the key that ends at a limit is what lists the newest events.
            if "envoyou_inbox" not in statement or statement.lstrip().startswith("INSERT") or "LIMIT" in statement:
                continue
            lines = [str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters)]
            connection.rollback()
            scans += any(line == "SCAN envoyou_inbox" or "Seq Scan on envoyou_inbox" in line for line in lines)
    return scans
