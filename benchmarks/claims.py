"""The inbox without a worker: claim 50 events, then settle them together or one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from benchmarks.databases import Database, databases
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core.inbox import Status
from envoyou_core.inbox.records import Claim, NewEvent, Settlement
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event

__all__ = ["PROCESSED", "claim_and_settle", "comparisons", "settle_each"]

BATCH = 50
LEASE = 60.0
PROCESSED = Settlement(Status.PROCESSED, attempts=1)

Settle = Callable[[SqlInbox, Sequence[Claim]], None]


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    return [
        Comparison(
            f"events claimed in batches of {BATCH} and settled per second, {name}",
            {
                "settled one by one": partial(claim_and_settle, run.events, database, settle_each),
                "settled together": partial(claim_and_settle, run.events, database, settle_together),
            },
            [Ratio("settled together", "settled one by one")],
        )
        for name, database in databases(run).items()
    ]


def settle_each(inbox: SqlInbox, claims: Sequence[Claim]) -> None:
    for claim in claims:
        inbox.settle(claim, PROCESSED)


def settle_together(inbox: SqlInbox, claims: Sequence[Claim]) -> None:
    inbox.settle_all([(claim, PROCESSED) for claim in claims])


def claim_and_settle(events: int, database: Database, settle: Settle) -> Round:
    """Process an inbox of `events` waiting events."""
    with database() as url, closing(SqlInbox(url)) as inbox:
        for stored in [inbox.add(NewEvent(sample_event())) for _ in range(events)]:
            stored.result()
        started = time.perf_counter()
        while claims := inbox.claim(BATCH, LEASE):
            settle(inbox, claims)
        elapsed = time.perf_counter() - started
        processed = inbox.stats(exact=True).by_status[Status.PROCESSED]
    if processed != events:
        raise MeasurementError(f"{processed} of {events} events were claimed and settled")
    return Round(done=processed, rate=events / elapsed)
