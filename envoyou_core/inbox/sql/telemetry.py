"""The SQL inbox's statements for roll-ups and the states of alerts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from envoyou_core.analytics.rollups import Fold, Period, RollUp, Tally, fold, scope_of, scoped_name
from envoyou_core.inbox.protocol import TelemetryInbox
from envoyou_core.inbox.rows import instant
from envoyou_core.inbox.sql.database import SqlDatabase
from envoyou_core.inbox.sql.engines import dialect_of
from envoyou_core.inbox.sql.schema import BUCKET_COLUMNS, alerts_table, rollups_table

__all__ = ["SqlTelemetry"]

BATCH = 500
"""The number of roll-ups that are folded in one transaction."""

_r = rollups_table.c
_a = alerts_table.c
_SUMMED = ("number", "total", *BUCKET_COLUMNS)
_KEY = ("name", "period", "start", "measure", "event_type", "handler")


class SqlTelemetry(SqlDatabase, TelemetryInbox):
    """The methods of `TelemetryInbox`, for an inbox."""

    name: str

    @abstractmethod
    def _moment(self) -> datetime: ...

    def add_rollups(self, rollups: Sequence[RollUp]) -> None:
        self.open()
        with self._writing() as connection:
            _add(connection, self.name, rollups)

    def sum_rollups(self, since: datetime, until: datetime) -> list[Tally]:
        self.open()
        key = (_r.measure, _r.event_type, _r.handler)
        sums = (func.sum(_r[column]).label(column) for column in _SUMMED)
        # By period, so that the primary key finds the rows.
        overlaps = or_(
            *(
                and_(
                    _r.period == int(period), _r.start > instant(since) - period * 1_000_000, _r.start < instant(until)
                )
                for period in Period
            )
        )
        with self._reading() as connection:
            rows = connection.execute(
                select(*key, *sums).where(_r.name == self.name, overlaps).group_by(*key).order_by(*key)
            )
            return [_tally(row) for row in rows]

    def fold_rollups(self, step: Fold) -> int:
        self.open()
        before = instant(self._moment() - step.after)
        old = and_(_r.name == self.name, _r.period == int(step.period), _r.start < before)
        folded = 0
        while True:
            with self._writing() as connection:
                batch = connection.execute(select(rollups_table).where(old).limit(BATCH).with_for_update()).all()
                _delete(connection, batch)
                if step.into is not None:
                    _add(connection, self.name, fold(map(_rollup, batch), step.into))
            folded += len(batch)
            if len(batch) < BATCH:
                return folded

    def alert_states(self) -> dict[str, str]:
        self.open()
        own = or_(_a.name == self.name, _a.name.startswith(scoped_name(self.name, "@")[:-1], autoescape=True))
        with self._reading() as connection:
            rows = connection.execute(select(_a.name, _a.states).where(own).order_by(_a.name))
            return {scope_of(row.name, self.name): row.states for row in rows}

    def claim_alerts(self, token: str, lease: float, scope: str = "") -> str | None:
        self.open()
        name = scoped_name(self.name, scope)
        now = self._moment()
        until = instant(now + timedelta(seconds=lease))
        with self._reading() as connection:
            row = connection.execute(select(_a.due_at).where(_a.name == name)).first()
        if row is not None and row.due_at > instant(now):
            return None
        try:
            with self._writing() as connection:
                if row is None:
                    new = {"name": name, "states": "", "token": token, "due_at": until}
                    connection.execute(alerts_table.insert().values(new))
                    return ""
                is_due = and_(_a.name == name, _a.due_at <= instant(now))
                if not connection.execute(
                    update(alerts_table).where(is_due).values(token=token, due_at=until)
                ).rowcount:
                    return None
                return connection.scalar(select(_a.states).where(_a.name == name, _a.token == token))
        except IntegrityError:
            # Another process has inserted the row.
            return None

    def store_alerts(self, token: str, states: str, due_in: float, scope: str = "") -> bool:
        name = scoped_name(self.name, scope)
        held = and_(_a.name == name, _a.token == token)
        due_at = instant(self._moment() + timedelta(seconds=due_in))
        with self._writing() as connection:
            stored = connection.execute(update(alerts_table).where(held).values(states=states, due_at=due_at))
            return stored.rowcount == 1


def _add(connection: Connection, name: str, rollups: Iterable[RollUp]) -> None:
    # In one order: two processes that add to the same rows in opposite orders would deadlock.
    rows = sorted((_row(name, rollup) for rollup in rollups), key=lambda row: tuple(row[column] for column in _KEY))
    if not rows:
        return
    dialect = dialect_of(connection)
    if dialect == "mariadb":
        upsert = mysql.insert(rollups_table)
        connection.execute(
            upsert.on_duplicate_key_update({column: _r[column] + upsert.inserted[column] for column in _SUMMED}), rows
        )
        return
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(rollups_table)
    added = {column: _r[column] + insert.excluded[column] for column in _SUMMED}
    connection.execute(insert.on_conflict_do_update(index_elements=[_r[column] for column in _KEY], set_=added), rows)


def _delete(connection: Connection, rows: Sequence[Any]) -> None:
    key = tuple_(*(_r[column] for column in _KEY))
    if rows:
        connection.execute(
            delete(rollups_table).where(key.in_([tuple(getattr(row, column) for column in _KEY) for row in rows]))
        )


def _row(name: str, rollup: RollUp) -> dict[str, Any]:
    tally = rollup.tally
    return {
        "name": name,
        "period": int(rollup.period),
        "start": rollup.start * 1_000_000,
        "measure": str(tally.measure),
        "event_type": tally.event_type,
        "handler": tally.handler,
        "number": tally.number,
        "total": tally.total,
        **dict(zip(BUCKET_COLUMNS, tally.buckets, strict=True)),
    }


def _rollup(row: Any) -> RollUp:
    return RollUp(row.period, row.start // 1_000_000, _tally(row))


def _tally(row: Any) -> Tally:
    # PostgreSQL and MariaDB return sums as decimals.
    buckets = tuple(int(getattr(row, column)) for column in BUCKET_COLUMNS)
    return Tally(row.measure, row.event_type, row.handler, int(row.number), int(row.total), buckets)
