"""No-op jobs a second that one worker drains: ours beside Celery and Dramatiq, each with its usual settings.

The jobs are queued before the worker starts; what counts is the time from the first job done to the last.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks.databases import Database, databases
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from benchmarks.processes import drain
from envoyou_core.inbox import Status
from envoyou_core.inbox.sql import SqlInbox
from tests.services import key_prefix

__all__ = ["comparisons", "drain_inbox"]

OURS = [sys.executable, "-c", "from envoyou_core.cli import main; main()", "worker", "benchmarks.workers.envoyou_app"]
CELERY = [sys.executable, "-m", "celery", "-A", "benchmarks.workers.celery_app", "worker"]
DRAMATIQ = [sys.executable, "-m", "dramatiq", "benchmarks.workers.dramatiq_app"]


def comparisons(run: Run) -> list[Comparison]:
    """See docs/performance.md."""
    ours: dict[str, Callable[[], Round]] = {}
    for name, database in databases(run).items():
        ours[f"envoyou worker, {name}"] = partial(drain_inbox, run.events, database, "plain")
        ours[f"envoyou worker, {name}, async handler"] = partial(drain_inbox, run.events, database, "asynchronous")
    theirs: dict[str, Callable[[], Round]] = {}
    aims: dict[str, float] = {}
    if run.redis is not None:
        celery = partial(drain_redis, run.events, run.redis, "celery_app")
        dramatiq = partial(drain_redis, run.events, run.redis, "dramatiq_app")
        processes = os.cpu_count() or 1
        of_all_processors = f"Celery {version('celery')}, {processes} processes"
        of_one_process = f"Dramatiq {version('dramatiq')}, 1 process of 8 threads"
        theirs = {
            of_all_processors: partial(celery, CELERY),
            f"Dramatiq {version('dramatiq')}, {processes} processes of 8 threads": partial(dramatiq, DRAMATIQ),
            of_one_process: partial(dramatiq, [*DRAMATIQ, "--processes", "1"]),
        }
        aims = {of_all_processors: 5, of_one_process: 2}
    plain = [name for name in ours if not name.endswith("async handler")]
    return [
        Comparison(
            "no-op jobs drained a second, Celery's and Dramatiq's from Redis",
            ours | theirs,
            [Ratio(of, to, aims.get(to)) for of in plain for to in theirs],
        )
    ]


def drain_inbox(events: int, database: Database, handler: str, worker: Sequence[str] = OURS) -> Round:
    """Drain an inbox by our worker, and look in the inbox whether it did."""
    with tempfile.TemporaryDirectory() as folder, database() as url:
        ledger = drain(
            Path(folder), "envoyou_app", worker, events, {"BENCHMARK_INBOX": url, "BENCHMARK_HANDLER": handler}
        )
        with closing(SqlInbox(url)) as inbox:
            processed = inbox.stats().by_status[Status.PROCESSED]
    if processed != events:
        raise MeasurementError(f"{processed} of {events} events are processed")
    return ledger.round()


def drain_redis(jobs: int, redis: str, app: str, worker: Sequence[str]) -> Round:
    """Drain a queue in Redis by somebody else's worker."""
    with tempfile.TemporaryDirectory() as folder, key_prefix(redis) as prefix:
        return drain(Path(folder), app, worker, jobs, {"BENCHMARK_REDIS": redis, "BENCHMARK_PREFIX": prefix}).round()
