"""Durable acknowledgements a second: commits that concurrent requests share, against one commit each.

Both sides do the whole way of a delivery, from the raw request to the 200, into SQLite with synchronous=FULL. They take
turns in one run, so that whatever else the machine does falls on both; look at the ratio.

    python benchmarks/acknowledgements.py [--requests 32] [--events 4000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.inbox.sql import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_benchmark"
ONE_COMMIT_EACH = 1
SHARED_COMMITS = 128


def deliveries(count: int) -> list[WebhookRequest]:
    """Signed requests of as many different events."""
    signed = [sign_delivery(sample_event(), secret=SECRET) for _ in range(count)]
    return [WebhookRequest.from_http("POST", delivery.headers, delivery.body) for delivery in signed]


def rate(folder: Path, max_batch: int, requests: list[WebhookRequest], concurrent: int) -> float:
    """Acknowledgements a second, with transactions of up to `max_batch` events."""
    inbox = SqlInbox(f"sqlite:///{folder}/inbox.db", max_batch=max_batch)
    webhooks = Webhooks(secret=SECRET, inbox=inbox, handoff="manual")
    inbox.open()
    with ThreadPoolExecutor(concurrent) as pool:
        began = time.perf_counter()
        answers = list(pool.map(webhooks.receive, requests))
        took = time.perf_counter() - began
    if {answer.status for answer in answers} != {200} or inbox.stats().total != len(requests):
        raise SystemExit("not every delivery was acknowledged and stored: the figures would mean nothing")
    inbox.close()
    return len(requests) / took


def main() -> None:
    """Measure both sides in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=32, help="how many at once")
    parser.add_argument("--events", type=int, default=4000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("envoyou").setLevel(logging.ERROR)
    rates: dict[int, list[float]] = {ONE_COMMIT_EACH: [], SHARED_COMMITS: []}
    for _ in range(arguments.rounds):
        for max_batch, measured in rates.items():
            with tempfile.TemporaryDirectory() as folder:
                measured.append(rate(Path(folder), max_batch, deliveries(arguments.events), arguments.requests))
    each, shared = (statistics.median(measured) for measured in rates.values())
    print(f"durable acknowledgements a second, {arguments.requests} requests at once, SQLite synchronous=FULL")
    print(f"  one commit each  {each:8.0f}")
    print(f"  shared commits   {shared:8.0f}")
    print(f"  ratio            {shared / each:8.2f}")


if __name__ == "__main__":
    main()
