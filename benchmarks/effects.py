"""The work of a handler in the inbox's database: one row each."""

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

__all__ = ["Loop", "by_driver", "by_sqlalchemy", "engine_of", "have_effect", "place_for_effects"]

_effects = Table("effects", MetaData(), Column("number", Integer, primary_key=True), Column("event_id", String(255)))
_INSERT = {
    "sqlite": "INSERT INTO effects (number, event_id) VALUES (?, ?)",
    "postgresql": "INSERT INTO effects (number, event_id) VALUES (%s, %s)",
}

Loop = Callable[[Engine, list[str]], None]


@contextmanager
def place_for_effects(database: Database, expected: int) -> Iterator[str]:
    """The URL of a database with an empty table; it must hold as many rows in the end.

    Raises:
        MeasurementError: it does not.
    """
    with database() as url, engine_of(url) as engine:
        _effects.create(engine)
        yield url
        with engine.connect() as connection:
            found = connection.scalar(select(func.count()).select_from(_effects))
        if found != expected:
            raise MeasurementError(f"there are {found} rows of {expected} events")


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """One with the settings that the inbox has on SQLite."""
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


def have_effect(connection: Connection, number: int, event_id: str) -> None:
    """Insert the row of one event."""
    connection.execute(insert(_effects), {"number": number, "event_id": event_id})


def by_sqlalchemy(engine: Engine, event_ids: list[str]) -> None:
    """One transaction for each row, with what a handler would write it."""
    for number, event_id in enumerate(event_ids):
        with engine.begin() as connection:
            have_effect(connection, number, event_id)


def by_driver(engine: Engine, event_ids: list[str]) -> None:
    """One transaction for each row, with nothing between the loop and the driver."""
    statement = _INSERT[engine.dialect.name]
    with engine.connect() as pooled:
        connection = pooled.connection
        cursor = connection.cursor()
        for row in enumerate(event_ids):
            cursor.execute(statement, row)
            connection.commit()
