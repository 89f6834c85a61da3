"""The work of a handler in the inbox's database: inserting one row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    select,
)

from benchmarks.databases import Database
from benchmarks.measuring import MeasurementError

__all__ = [
    "Loop",
    "effects_database",
    "engine_of",
    "insert_effect",
    "insert_with_driver",
    "insert_with_sqlalchemy",
]

_effects = Table("effects", MetaData(), Column("number", Integer, primary_key=True), Column("event_id", String(255)))
_INSERT = {
    "sqlite": "INSERT INTO effects (number, event_id) VALUES (?, ?)",
    "postgresql": "INSERT INTO effects (number, event_id) VALUES (%s, %s)",
}

Loop = Callable[[Engine, list[str]], None]


@contextmanager
def effects_database(database: Database, expected: int) -> Iterator[str]:
    """Yield the URL of a database with an empty table.

    Raises:
        MeasurementError: the table does not have `expected` rows at the end.
    """
    with database() as url, engine_of(url) as engine:
        _effects.create(engine)
        yield url
        with engine.connect() as connection:
            count = connection.scalar(select(func.count()).select_from(_effects))
        if count != expected:
            raise MeasurementError(f"{count} rows of {expected} events were inserted")


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """Yield an engine with the settings of the inbox for SQLite."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        yield engine
    finally:
        engine.dispose()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def insert_effect(connection: Connection, number: int, event_id: str) -> None:
    """Insert the row of one event."""
    connection.execute(insert(_effects), {"number": number, "event_id": event_id})


def insert_with_sqlalchemy(engine: Engine, event_ids: list[str]) -> None:
    """Insert each row in a transaction, with SQLAlchemy as a handler would."""
    for number, event_id in enumerate(event_ids):
        with engine.begin() as connection:
            insert_effect(connection, number, event_id)


def insert_with_driver(engine: Engine, event_ids: list[str]) -> None:
    """Insert each row in a transaction, directly with the driver."""
    statement = _INSERT[engine.dialect.name]
    with engine.connect() as pooled:
        connection = pooled.connection
        cursor = connection.cursor()
        for row in enumerate(event_ids):
            cursor.execute(statement, row)
            connection.commit()
