"""Durable acknowledgements per second: group commit, compared with one commit for each request.

Both candidates handle a delivery from the raw request to the 200, with SQLite and synchronous=FULL.
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
SINGLE_COMMITS = 1
GROUP_COMMIT = 128


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    return [
        Comparison(
            f"durable acknowledgements per second, {run.requests} concurrent, SQLite FULL",
            {
                "single commits": partial(acknowledge, run, SINGLE_COMMITS),
                "group commit": partial(acknowledge, run, GROUP_COMMIT),
            },
            [Ratio("group commit", "single commits", target=2.5)],
        )
    ]


def acknowledge(run: Run, max_batch: int) -> Round:
    """Receive `run.events` deliveries, with at most `max_batch` events in a transaction."""
    requests = deliveries(run.events)
    with tempfile.TemporaryDirectory() as folder:
        inbox = SqlInbox(f"sqlite:///{folder}/inbox.db", max_batch=max_batch)
        webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual")
        inbox.open()
        with ThreadPoolExecutor(run.requests) as pool:
            started = time.perf_counter()
            responses = list(pool.map(webhooks.receive, requests))
            elapsed = time.perf_counter() - started
        stored = inbox.stats(exact=True).total
        inbox.close()
    if {response.status for response in responses} != {200} or stored != run.events:
        raise MeasurementError("not every delivery was acknowledged and stored")
    return Round(done=stored, rate=run.events / elapsed)


def deliveries(count: int) -> list[WebhookRequest]:
    """Return `count` signed requests with different events."""
    signed = [sign_delivery(sample_event(), secret=SECRET) for _ in range(count)]
    return [WebhookRequest.from_http("POST", delivery.headers, delivery.body) for delivery in signed]
