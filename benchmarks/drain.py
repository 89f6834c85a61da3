"""No-op jobs a second that one worker drains: ours beside Celery and Dramatiq.

Each has its usual settings, but that ours tells no more of a job that went well than the others do: nothing.

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
from envoyou_core.inbox.sql.inbox import SqlInbox
from tests.services import key_prefix

__all__ = ["comparisons", "drain_inbox"]

WITH_ITS_LOG = [
    *[sys.executable, "-c", "from envoyou_core.cli import main; main()"],
    *["worker", "benchmarks.workers.envoyou_app"],
]
OURS = [*WITH_ITS_LOG, "--log-level", "warning"]
CELERY = [sys.executable, "-m", "celery", "-A", "benchmarks.workers.celery_app", "worker"]
DRAMATIQ = [sys.executable, "-m", "dramatiq", "benchmarks.workers.dramatiq_app"]


def comparisons(run: Run) -> list[Comparison]:
    """See docs/performance.md."""
    ours: dict[str, Callable[[], Round]] = {}
    plain: list[str] = []
    of_ours: list[Ratio] = []
    for name, database in databases(run).items():
        quiet, telling = f"envoyou worker, {name}", f"envoyou worker, {name}, a line in the log for each job"
        ours[quiet] = partial(drain_inbox, run.events, database, "plain")
        ours[telling] = partial(drain_inbox, run.events, database, "plain", WITH_ITS_LOG)
        ours[f"{quiet}, async handler"] = partial(drain_inbox, run.events, database, "asynchronous")
        plain.append(quiet)
        of_ours.append(Ratio(telling, quiet))
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
    return [
        Comparison(
            "no-op jobs drained a second, Celery's and Dramatiq's from Redis",
            ours | theirs,
            [Ratio(of, to, aims.get(to)) for of in plain for to in theirs] + of_ours,
        )
    ]


def drain_inbox(events: int, database: Database, handler: str, worker: Sequence[str] = OURS) -> Round:
    """Drain an inbox by our worker, and look in the inbox whether it did."""
    with tempfile.TemporaryDirectory() as folder, database() as url:
        ledger = drain(
            Path(folder), "envoyou_app", worker, events, {"BENCHMARK_INBOX": url, "BENCHMARK_HANDLER": handler}
        )
        with closing(SqlInbox(url)) as inbox:
            processed = inbox.stats(exact=True).by_status[Status.PROCESSED]
    if processed != events:
        raise MeasurementError(f"{processed} of {events} events are processed")
    return ledger.round()


def drain_redis(jobs: int, redis: str, app: str, worker: Sequence[str]) -> Round:
    """Drain a queue in Redis by somebody else's worker."""
    with tempfile.TemporaryDirectory() as folder, key_prefix(redis) as prefix:
        return drain(Path(folder), app, worker, jobs, {"BENCHMARK_REDIS": redis, "BENCHMARK_PREFIX": prefix}).round()
