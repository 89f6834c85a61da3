"""Handlers that take the inbox's connection, against bare loops that commit as often.

A handler's transaction holds what it does, that it is done, and that the event is finished.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import partial

from benchmarks.claims import PROCESSED, claim_and_settle, settle_each
from benchmarks.databases import Database, databases
from benchmarks.drain import drain_inbox
from benchmarks.effects import Loop, by_driver, by_sqlalchemy, engine_of, have_effect, place_for_effects
from benchmarks.measuring import Comparison, Ratio, Round, Run
from envoyou_core.inbox.records import Claim, HandlerStatus
from envoyou_core.inbox.sql.inbox import SqlInbox

__all__ = ["comparisons"]

AIM = 0.7


def comparisons(run: Run) -> list[Comparison]:
    """See docs/performance.md."""
    return [
        Comparison(
            f"transactions a second, of handlers and of loops, {name}",
            {
                "a loop on the driver, one commit each": partial(loop, run.events, database, by_driver),
                "a loop on SQLAlchemy, one commit each": partial(loop, run.events, database, by_sqlalchemy),
                "a loop on the inbox, events settled one by one": partial(
                    claim_and_settle, run.events, database, settle_each
                ),
                "a loop on the inbox, each event with its row": partial(
                    claim_and_settle, run.events, partial(place_for_effects, database, run.events), settle_with_row
                ),
                "envoyou worker": partial(work, run.events, database),
                "envoyou worker, a handler that does nothing": partial(
                    drain_inbox, run.events, database, "idle_in_transaction"
                ),
            },
            [
                Ratio("envoyou worker", "a loop on the driver, one commit each"),
                Ratio("envoyou worker", "a loop on SQLAlchemy, one commit each"),
                Ratio("envoyou worker", "a loop on the inbox, events settled one by one"),
                Ratio("envoyou worker", "a loop on the inbox, each event with its row"),
                Ratio(
                    "envoyou worker, a handler that does nothing",
                    "a loop on the inbox, events settled one by one",
                    aim=AIM,
                ),
            ],
        )
        for name, database in databases(run).items()
    ]


def loop(events: int, database: Database, insert: Loop) -> Round:
    """Insert the rows in this process, with nothing else to do."""
    event_ids = [f"evt_{uuid.uuid4().hex}" for _ in range(events)]
    with place_for_effects(database, events) as url, engine_of(url) as engine:
        began = time.perf_counter()
        insert(engine, event_ids)
        took = time.perf_counter() - began
    return Round(done=events, rate=events / took)


def settle_with_row(inbox: SqlInbox, claims: Sequence[Claim]) -> None:
    """Do by hand what the worker does: the row and the event's end are one transaction."""
    for claim in claims:
        with inbox.transaction(claim, {"handler": HandlerStatus.DONE}, lambda: PROCESSED) as connection:
            have_effect(connection, claim.key, claim.event.id)


def work(events: int, database: Database) -> Round:
    """Have a worker drain as many events, whose handler inserts the row."""
    return drain_inbox(events, partial(place_for_effects, database, events), "transactional")
