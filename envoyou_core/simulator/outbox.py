"""The platform's outbox: events, their deliveries to webhooks, and every attempt with its answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from envoyou_core.event import Event
from envoyou_core.simulator.database import Database
from envoyou_core.simulator.trouble import Trouble
from envoyou_core.simulator.webhook import Webhook

__all__ = ["Attempt", "DueDelivery", "Outbox"]

_ATTEMPTS = """
SELECT attempts.*, deliveries.webhook_id, events.id AS event_id, events.type AS event_type
FROM attempts
JOIN deliveries ON deliveries.sequence = attempts.delivery
JOIN events ON events.sequence = deliveries.event
"""
_DUE = """
SELECT deliveries.*, events.body FROM deliveries JOIN events ON events.sequence = deliveries.event
WHERE state = 'pending' AND due_at <= ? ORDER BY due_at, deliveries.sequence LIMIT ?
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to a webhook, and its answer.

    Attributes:
        sequence: the position among all attempts, by their end.
        event_id: the event's id.
        event_type: the event's type.
        webhook_id: the webhook's id.
        delivery: identifies the delivery. A duplicate and a resent event are deliveries of their own.
        number: of the attempt within the delivery, from 1.
        sent_at: epoch seconds.
        seconds: until the answer or the error.
        status: of the answer; `None` if there was no answer.
        answer: the beginning of the answer's body.
        error: why there was no answer, or why it was ignored; empty otherwise.
        delivered: whether the platform considers the event delivered.
    """

    sequence: int
    event_id: str
    event_type: str
    webhook_id: str
    delivery: int
    number: int
    sent_at: float
    seconds: float
    status: int | None
    answer: str
    error: str
    delivered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A delivery whose next attempt is due.

    Attributes:
        sequence: identifies the delivery.
        event: identifies the event.
        webhook_id: the webhook's id.
        attempts: the number of attempts so far.
        body: the event's, without a webhook id.
    """

    sequence: int
    event: int
    webhook_id: str
    attempts: int
    body: bytes


class Outbox:
    """Stores what is to be delivered, and what was.

    Args:
        database: where it is stored.
        trouble: which deliveries are duplicated or held back.
    """

    def __init__(self, database: Database, trouble: Trouble) -> None:
        self._database = database
        self._trouble = trouble

    def add(self, events: Iterable[Event], webhooks: Sequence[Webhook], now: float) -> None:
        """Store new events and their deliveries to `webhooks`, due at `now`, in epoch seconds, unless held back."""
        with self._database.transaction() as connection:
            for event in events:
                row = connection.execute(
                    "INSERT INTO events (id, type, body) VALUES (?, ?, ?)", (event.id, event.type, event.body)
                )
                self._add_deliveries(connection, row.lastrowid or 0, webhooks, now)

    def add_again(self, event_id: str, webhooks: Sequence[Webhook], now: float) -> None:
        """Store another delivery of a stored event to each of `webhooks`, due at `now`, in epoch seconds."""
        with self._database.transaction() as connection:
            [event] = connection.execute("SELECT sequence FROM events WHERE id = ?", (event_id,)).fetchone()
            self._add_deliveries(connection, event, webhooks, now)

    def _add_deliveries(
        self, connection: sqlite3.Connection, event: int, webhooks: Sequence[Webhook], now: float
    ) -> None:
        for webhook in webhooks:
            delivery = self._add_delivery(connection, event, webhook, now)
            if self._trouble.hits("duplicates", delivery):
                self._add_delivery(connection, event, webhook, now)

    def _add_delivery(self, connection: sqlite3.Connection, event: int, webhook: Webhook, now: float) -> int:
        [newest] = connection.execute("SELECT coalesce(max(sequence), 0) FROM deliveries").fetchone()
        delivery: int = newest + 1
        connection.execute(
            "INSERT INTO deliveries (sequence, event, webhook_id, state, due_at) VALUES (?, ?, ?, 'pending', ?)",
            (delivery, event, webhook.id, now + self._trouble.hold(delivery)),
        )
        return delivery

    def type_of(self, event_id: str) -> str | None:
        """Return the type of a stored event, or `None` if there is none with this id."""
        rows = self._database.rows("SELECT type FROM events WHERE id = ?", event_id)
        return rows[0]["type"] if rows else None

    def recover(self) -> None:
        """Make due again what an earlier process was sending when it ended: it may not have arrived."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE deliveries SET state = 'pending' WHERE state = 'sending'")

    def claim(self, now: float, limit: int) -> list[DueDelivery]:
        """Take up to `limit` deliveries that are due at `now`, in epoch seconds. Each is taken once."""
        with self._database.transaction() as connection:
            rows = connection.execute(_DUE, (now, limit)).fetchall()
            connection.executemany(
                "UPDATE deliveries SET state = 'sending' WHERE sequence = ?", [(row["sequence"],) for row in rows]
            )
        return [
            DueDelivery(
                sequence=row["sequence"],
                event=row["event"],
                webhook_id=row["webhook_id"],
                attempts=row["attempts"],
                body=row["body"],
            )
            for row in rows
        ]

    def next_due(self) -> float | None:
        """Return when the next delivery is due, in epoch seconds, or `None` if none is pending."""
        [row] = self._database.rows("SELECT min(due_at) AS due_at FROM deliveries WHERE state = 'pending'")
        due: float | None = row["due_at"]
        return due

    def record(
        self,
        delivery: DueDelivery,
        *,
        sent_at: float,
        seconds: float,
        status: int | None,
        answer: str,
        error: str,
        delivered: bool,
        next_due: float | None,
    ) -> Attempt:
        """Store an attempt, and when the next one is due; `None` if there is none."""
        state = "delivered" if delivered else "failed" if next_due is None else "pending"
        number = delivery.attempts + 1
        with self._database.transaction() as connection:
            row = connection.execute(
                "INSERT INTO attempts (delivery, number, sent_at, seconds, status, answer, error, delivered) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (delivery.sequence, number, sent_at, seconds, status, answer, error, delivered),
            )
            connection.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due_at = coalesce(?, due_at) WHERE sequence = ?",
                (state, number, next_due, delivery.sequence),
            )
        [stored] = self._database.rows(f"{_ATTEMPTS} WHERE attempts.sequence = ?", row.lastrowid)
        return _attempt(stored)

    def cancel(self, delivery: DueDelivery) -> None:
        """Drop a delivery whose webhook is not active, or deleted."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE deliveries SET state = 'cancelled' WHERE sequence = ?", (delivery.sequence,))

    def count_unfinished(self) -> int:
        """Return the number of deliveries that are due, wait for a retry, or are being sent."""
        [row] = self._database.rows("SELECT count(*) AS number FROM deliveries WHERE state IN ('pending', 'sending')")
        number: int = row["number"]
        return number

    def is_idle(self) -> bool:
        """Return whether no delivery is unfinished. It takes the same time however many there are."""
        return not self._database.rows("SELECT 1 FROM deliveries WHERE state IN ('pending', 'sending') LIMIT 1")

    def attempts(self, event_id: str | None = None, *, after: int = 0, limit: int = -1) -> list[Attempt]:
        """Return the attempts in the order of their ends.

        Args:
            event_id: only those of this event.
            after: only those with a greater `sequence`.
            limit: the maximum number; negative for all.
        """
        condition = "attempts.sequence > ?"
        values: list[object] = [after]
        if event_id is not None:
            condition += " AND events.id = ?"
            values.append(event_id)
        rows = self._database.rows(f"{_ATTEMPTS} WHERE {condition} ORDER BY attempts.sequence LIMIT ?", *values, limit)
        return [_attempt(row) for row in rows]


def _attempt(row: sqlite3.Row) -> Attempt:
    values = dict(zip(row.keys(), row, strict=True))
    return Attempt(**{**values, "delivered": bool(values["delivered"])})
