"""Handlers that use the inbox's connection, compared with plain loops that commit as often.

The transaction of a handler contains its writes, its success and the settling of the event.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import partial

from benchmarks.claims import PROCESSED, claim_and_settle, settle_each
from benchmarks.databases import Database, databases
from benchmarks.drain import drain_inbox
from benchmarks.effects import (
    Loop,
    effects_database,
    engine_of,
    insert_effect,
    insert_with_driver,
    insert_with_sqlalchemy,
)
from benchmarks.measuring import Comparison, Ratio, Round, Run
from envoyou_core.inbox.records import Claim, HandlerStatus
from envoyou_core.inbox.sql.inbox import SqlInbox

__all__ = ["comparisons"]

TARGET = 0.7


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    return [
        Comparison(
            f"transactions per second of handlers and of loops, {name}",
            {
                "loop with the driver": partial(loop, run.events, database, insert_with_driver),
                "loop with SQLAlchemy": partial(loop, run.events, database, insert_with_sqlalchemy),
                "loop with the inbox, settling one by one": partial(
                    claim_and_settle, run.events, database, settle_each
                ),
                "loop with the inbox, settling with a row": partial(
                    claim_and_settle, run.events, partial(effects_database, database, run.events), settle_with_row
                ),
                "envoyou worker": partial(work, run.events, database),
                "envoyou worker, no-op handler": partial(drain_inbox, run.events, database, "idle_in_transaction"),
            },
            [
                Ratio("envoyou worker", "loop with the driver"),
                Ratio("envoyou worker", "loop with SQLAlchemy"),
                Ratio("envoyou worker", "loop with the inbox, settling one by one"),
                Ratio("envoyou worker", "loop with the inbox, settling with a row"),
                Ratio(
                    "envoyou worker, no-op handler",
                    "loop with the inbox, settling one by one",
                    target=TARGET,
                ),
            ],
        )
        for name, database in databases(run).items()
    ]


def loop(events: int, database: Database, insert: Loop) -> Round:
    """Insert the rows in a plain loop."""
    event_ids = [f"evt_{uuid.uuid4().hex}" for _ in range(events)]
    with effects_database(database, events) as url, engine_of(url) as engine:
        started = time.perf_counter()
        insert(engine, event_ids)
        elapsed = time.perf_counter() - started
    return Round(done=events, rate=events / elapsed)


def settle_with_row(inbox: SqlInbox, claims: Sequence[Claim]) -> None:
    """Insert the row and settle the event in one transaction, as the worker does."""
    for claim in claims:
        with inbox.transaction(claim, {"handler": HandlerStatus.DONE}, lambda: PROCESSED) as connection:
            insert_effect(connection, claim.key, claim.event.id)


def work(events: int, database: Database) -> Round:
    """Drain `events` events with a worker whose handler inserts the row."""
    return drain_inbox(events, partial(effects_database, database, events), "transactional")
