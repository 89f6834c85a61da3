"""No-op jobs per second that one worker processes: envoyou, Celery and Dramatiq.

Each worker has its default settings, except that envoyou logs no successful jobs, because the others do not either.

The jobs are queued before the worker starts; the time from the first job to the last is measured.
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

LOGGING_WORKER = [
    *[sys.executable, "-c", "from envoyou_core.cli import main; main()"],
    *["--app", "benchmarks.workers.envoyou_app", "worker"],
]
WORKER = [*LOGGING_WORKER, "--log-level", "warning"]
CELERY = [sys.executable, "-m", "celery", "-A", "benchmarks.workers.celery_app", "worker"]
DRAMATIQ = [sys.executable, "-m", "dramatiq", "benchmarks.workers.dramatiq_app"]


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparison of this benchmark."""
    ours: dict[str, Callable[[], Round]] = {}
    plain: list[str] = []
    between_ours: list[Ratio] = []
    for name, database in databases(run).items():
        quiet, logging = f"envoyou worker, {name}", f"envoyou worker, {name}, one log line per job"
        ours[quiet] = partial(drain_inbox, run.events, database, "plain")
        ours[logging] = partial(drain_inbox, run.events, database, "plain", LOGGING_WORKER)
        ours[f"{quiet}, async handler"] = partial(drain_inbox, run.events, database, "asynchronous")
        plain.append(quiet)
        between_ours.append(Ratio(logging, quiet))
    theirs: dict[str, Callable[[], Round]] = {}
    targets: dict[str, float] = {}
    if run.redis is not None:
        celery = partial(drain_redis, run.events, run.redis, "celery_app")
        dramatiq = partial(drain_redis, run.events, run.redis, "dramatiq_app")
        processes = os.cpu_count() or 1
        celery_on_all_cpus = f"Celery {version('celery')}, {processes} processes"
        dramatiq_in_one_process = f"Dramatiq {version('dramatiq')}, 1 process of 8 threads"
        theirs = {
            celery_on_all_cpus: partial(celery, CELERY),
            f"Dramatiq {version('dramatiq')}, {processes} processes of 8 threads": partial(dramatiq, DRAMATIQ),
            dramatiq_in_one_process: partial(dramatiq, [*DRAMATIQ, "--processes", "1"]),
        }
        targets = {celery_on_all_cpus: 5, dramatiq_in_one_process: 2}
    return [
        Comparison(
            "no-op jobs per second; Celery and Dramatiq use Redis",
            ours | theirs,
            [Ratio(of, to, targets.get(to)) for of in plain for to in theirs] + between_ours,
        )
    ]


def drain_inbox(events: int, database: Database, handler: str, worker: Sequence[str] = WORKER) -> Round:
    """Drain an inbox with our worker, and verify the result in the inbox."""
    with tempfile.TemporaryDirectory() as folder, database() as url:
        ledger = drain(
            Path(folder), "envoyou_app", worker, events, {"BENCHMARK_INBOX": url, "BENCHMARK_HANDLER": handler}
        )
        with closing(SqlInbox(url)) as inbox:
            processed = inbox.stats(exact=True).by_status[Status.PROCESSED]
    if processed != events:
        raise MeasurementError(f"{processed} of {events} events were processed")
    return ledger.round()


def drain_redis(jobs: int, redis: str, app: str, worker: Sequence[str]) -> Round:
    """Drain a queue in Redis with another worker."""
    with tempfile.TemporaryDirectory() as folder, key_prefix(redis) as prefix:
        return drain(Path(folder), app, worker, jobs, {"BENCHMARK_REDIS": redis, "BENCHMARK_PREFIX": prefix}).round()
