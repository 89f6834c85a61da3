"""The statements of Django's inbox for roll-ups and the states of alerts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Q, QuerySet, Sum

from envoyou_core.adapter import Fold, Period, RollUp, Tally, fold, scope_of, scoped_name
from envoyou_core.inbox import TelemetryInbox
from envoyou_django.inbox.commits import own_statement, own_transaction
from envoyou_django.models import BUCKET_COLUMNS, AlertStates
from envoyou_django.models import RollUp as Row

__all__ = ["OrmTelemetry"]

BATCH = 500
"""The number of roll-ups that are folded in one transaction."""

_KEY = ("name", "period", "start", "measure", "event_type", "handler")
_SUMMED = ("number", "total", *BUCKET_COLUMNS)


class OrmTelemetry(TelemetryInbox):
    """The methods of `TelemetryInbox`, for an inbox."""

    name: str

    @property
    @abstractmethod
    def _alias(self) -> str: ...

    @abstractmethod
    def _now(self) -> datetime: ...

    def add_rollups(self, rollups: Sequence[RollUp]) -> None:
        with own_transaction(self._alias):
            _add(self.name, rollups, self._alias)

    def sum_rollups(self, since: datetime, until: datetime) -> list[Tally]:
        # By period, because databases add seconds to times in different ways.
        overlaps = Q()
        for period in Period:
            overlaps |= Q(period=int(period), start__gt=since - timedelta(seconds=period), start__lt=until)
        key = ("measure", "event_type", "handler")
        sums = {f"sum_{column}": Sum(column) for column in _SUMMED}
        return [
            Tally(
                row["measure"],
                row["event_type"],
                row["handler"],
                int(row["sum_number"]),
                int(row["sum_total"]),
                tuple(int(row[f"sum_{column}"]) for column in BUCKET_COLUMNS),
            )
            for row in self._stored.filter(overlaps).values(*key).annotate(**sums).order_by(*key)
        ]

    def fold_rollups(self, step: Fold) -> int:
        alias, folded = self._alias, 0
        old = self._stored.filter(period=int(step.period), start__lt=self._now() - step.after).order_by("pk")
        while True:
            with own_transaction(alias):
                batch = list(old.select_for_update()[:BATCH])
                Row.objects.using(alias).filter(pk__in=[row.pk for row in batch]).delete()
                if step.into is not None:
                    _add(self.name, fold(map(_rollup, batch), step.into), alias)
            folded += len(batch)
            if len(batch) < BATCH:
                return folded

    def alert_states(self) -> dict[str, str]:
        own = Q(name=self.name) | Q(name__startswith=scoped_name(self.name, "@")[:-1])
        rows = AlertStates.objects.using(self._alias).filter(own).order_by("name").values_list("name", "states")
        return {scope_of(name, self.name): states for name, states in rows}

    def claim_alerts(self, token: str, lease: float, scope: str = "") -> str | None:
        alias, now = self._alias, self._now()
        until = now + timedelta(seconds=lease)
        due_at = self._alerts(scope).values_list("due_at", flat=True).first()
        if due_at is None:
            try:
                with transaction.atomic(using=alias):
                    AlertStates.objects.using(alias).create(
                        name=scoped_name(self.name, scope), states="", token=token, due_at=until
                    )
            except IntegrityError:
                # Another process has inserted the row.
                return None
            return ""
        if due_at > now:
            return None
        with own_statement(alias):
            if not self._alerts(scope).filter(due_at__lte=now).update(token=token, due_at=until):
                return None
        return self._alerts(scope).filter(token=token).values_list("states", flat=True).first()

    def store_alerts(self, token: str, states: str, due_in: float, scope: str = "") -> bool:
        due_at = self._now() + timedelta(seconds=due_in)
        with own_statement(self._alias):
            return bool(self._alerts(scope).filter(token=token).update(states=states, due_at=due_at))

    @property
    def _stored(self) -> QuerySet:
        return Row.objects.using(self._alias).filter(name=self.name)

    def _alerts(self, scope: str) -> QuerySet:
        return AlertStates.objects.using(self._alias).filter(name=scoped_name(self.name, scope))


def _add(name: str, rollups: Iterable[RollUp], alias: str) -> None:
    """Add counts to rows by one statement, which the ORM's upsert cannot do: it only overwrites."""
    connection = connections[alias]
    options = Row._meta  # noqa: SLF001 - a documented API of Django
    columns = (*_KEY, *_SUMMED)
    # In one order: two processes that add to the same rows in opposite orders would deadlock.
    rows = sorted((_values(name, rollup) for rollup in rollups), key=lambda values: values[: len(_KEY)])
    parameters = [
        [
            options.get_field(column).get_db_prep_save(value, connection)
            for column, value in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    quote = connection.ops.quote_name
    table, names = quote(options.db_table), ", ".join(map(quote, columns))
    if connection.vendor == "mysql":
        added = ", ".join(f"{quote(name)} = {quote(name)} + VALUES({quote(name)})" for name in _SUMMED)
        conflict = f"ON DUPLICATE KEY UPDATE {added}"
    else:
        added = ", ".join(f"{quote(name)} = {table}.{quote(name)} + excluded.{quote(name)}" for name in _SUMMED)
        conflict = f"ON CONFLICT ({', '.join(map(quote, _KEY))}) DO UPDATE SET {added}"
    statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(columns))}) {conflict}"  # noqa: S608
    if parameters:
        with connection.cursor() as cursor:
            cursor.executemany(statement, parameters)


def _values(name: str, rollup: RollUp) -> list[Any]:
    tally = rollup.tally
    start = datetime.fromtimestamp(rollup.start, UTC)
    key = [name, int(rollup.period), start, str(tally.measure), tally.event_type, tally.handler]
    return [*key, tally.number, tally.total, *tally.buckets]


def _rollup(row: Any) -> RollUp:
    buckets = tuple(getattr(row, column) for column in BUCKET_COLUMNS)
    tally = Tally(row.measure, row.event_type, row.handler, row.number, row.total, buckets)
    return RollUp(row.period, round(row.start.timestamp()), tally)
