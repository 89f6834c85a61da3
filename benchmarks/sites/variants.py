"""Which variant of an endpoint this process serves, and what the variants share in every framework."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.guide_sample import verify_signature
from envoyou_core import Webhooks

__all__ = [
    "BARE",
    "LEAN",
    "PATH",
    "RECEIVED",
    "ROUTE",
    "SECRET",
    "VARIANT",
    "blocks",
    "make_webhooks",
    "verified",
    "work",
]

VARIANT = os.environ["BENCHMARK_VARIANT"]
BARE, SAMPLE, COMMIT, DELAY, ROUTE, LEAN = "bare", "sample", "commit", "delay", "route", "lean"
PATH = "/webhooks/envoyou"
SECRET = "whsec_benchmark"
RECEIVED = {"received": True}


def make_webhooks() -> Webhooks:
    """Return ours. It accepts events and leaves the work to another process, like a task queue."""
    return Webhooks(secret=SECRET, inbox=os.environ["BENCHMARK_DATABASE"], handoff="manual")


def verified(payload: dict[str, Any], signature: str | None, timestamp: str | None) -> bool:
    """Verify as the guide's sample does."""
    return verify_signature(SECRET.encode(), payload, signature or "", timestamp or "")


def _do_nothing(payload: dict[str, Any], body: bytes) -> None:
    pass


def _insert() -> Callable[[dict[str, Any], bytes], None]:
    """Return a function that inserts a row in a transaction of its own, with a connection for each thread."""
    kept = threading.local()
    file = os.environ["BENCHMARK_DATABASE"].removeprefix("sqlite:///")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS accepted (id TEXT PRIMARY KEY, type TEXT, body BLOB)")
    connection.close()

    def insert(payload: dict[str, Any], body: bytes) -> None:
        if not hasattr(kept, "connection"):
            kept.connection = sqlite3.connect(file, timeout=60)
            kept.connection.execute("PRAGMA synchronous=FULL")
        with kept.connection:
            kept.connection.execute("INSERT INTO accepted VALUES (?, ?, ?)", (payload["id"], payload["type"], body))

    return insert


def _delay() -> Callable[[dict[str, Any], bytes], None]:
    """Return a function that sends the payload to a task of Celery."""
    from celery import Celery

    app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"])
    app.conf.broker_transport_options = {"global_keyprefix": os.environ["BENCHMARK_PREFIX"]}

    @app.task(name="handle")
    def handle(payload: dict[str, Any]) -> None:
        pass

    def delay(payload: dict[str, Any], body: bytes) -> None:
        handle.delay(payload)

    return delay


def _work() -> Callable[[dict[str, Any], bytes], None]:
    match VARIANT:
        case "commit":
            return _insert()
        case "delay":
            return _delay()
    return _do_nothing


work = _work()
"""What the sample's endpoint does with a verified payload before it answers."""

blocks = VARIANT in {COMMIT, DELAY}
"""Whether `work` blocks, so that an event loop must leave it to a thread."""
