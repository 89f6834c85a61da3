"""Durable acknowledgements a second: commits that concurrent requests share, against one commit each.

Both sides do the whole way of a delivery, from the raw request to the 200, into SQLite with synchronous=FULL.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery

__all__ = ["comparisons"]

SECRET = "whsec_benchmark"
ONE_COMMIT_EACH = 1
SHARED_COMMITS = 128


def comparisons(run: Run) -> list[Comparison]:
    """See docs/performance.md."""
    return [
        Comparison(
            f"durable acknowledgements a second, {run.requests} at once, SQLite FULL",
            {
                "one commit each": partial(acknowledge, run, ONE_COMMIT_EACH),
                "shared commits": partial(acknowledge, run, SHARED_COMMITS),
            },
            [Ratio("shared commits", "one commit each", aim=2.5)],
        )
    ]


def acknowledge(run: Run, max_batch: int) -> Round:
    """Receive as many deliveries, with transactions of up to `max_batch` events."""
    requests = deliveries(run.events)
    with tempfile.TemporaryDirectory() as folder:
        inbox = SqlInbox(f"sqlite:///{folder}/inbox.db", max_batch=max_batch)
        webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual")
        inbox.open()
        with ThreadPoolExecutor(run.requests) as pool:
            began = time.perf_counter()
            answers = list(pool.map(webhooks.receive, requests))
            took = time.perf_counter() - began
        stored = inbox.stats(exact=True).total
        inbox.close()
    if {answer.status for answer in answers} != {200} or stored != run.events:
        raise MeasurementError("not every delivery was acknowledged and stored")
    return Round(done=stored, rate=run.events / took)


def deliveries(count: int) -> list[WebhookRequest]:
    """Signed requests of as many different events."""
    signed = [sign_delivery(sample_event(), secret=SECRET) for _ in range(count)]
    return [WebhookRequest.from_http("POST", delivery.headers, delivery.body) for delivery in signed]
