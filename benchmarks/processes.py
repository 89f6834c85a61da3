"""Runs a worker process on a queue that was filled before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.ledger import Ledger
from benchmarks.measuring import MeasurementError

__all__ = ["ROOT", "drain", "running", "tail"]

ROOT = Path(__file__).parents[1]
ENQUEUE_TIMEOUT = 600.0
"""Seconds to fill the queue."""

STALLED_AFTER = 30.0
"""Seconds without progress, including the start, after which the worker is terminated."""

STOP_TIMEOUT = 20.0
"""Seconds that a worker has to stop after SIGTERM."""

POLL = 0.1


def drain(folder: Path, app: str, worker: Sequence[str], jobs: int, environment: Mapping[str, str]) -> Ledger:
    """Fill the queue of `app`, a module of `benchmarks.workers`, and drain it with one worker.

    Raises:
        MeasurementError: not all jobs were done.
    """
    ledger = Ledger.create(folder / "ledger", jobs)
    environment = {
        **os.environ,
        **environment,
        "BENCHMARK_LEDGER": str(folder / "ledger"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    log = folder / "log"
    enqueue = f"from benchmarks.workers import {app}; {app}.enqueue({jobs})"
    with running([sys.executable, "-c", enqueue], environment, log) as process:
        if process.wait(ENQUEUE_TIMEOUT) != 0:
            raise MeasurementError(f"{app} failed to fill its queue: {tail(log)}")
    if ledger.done:
        raise MeasurementError(f"{app} did {ledger.done} jobs before its worker was started")
    with running(worker, environment, log) as process:
        _wait(ledger, process, log)
    if not ledger.complete:
        raise MeasurementError(f"{ledger.done} of {jobs} jobs of {app} were done: {tail(log)}")
    return ledger


def _wait(ledger: Ledger, process: subprocess.Popen[bytes], log: Path) -> None:
    done, since = 0, time.monotonic()
    while not ledger.complete and process.poll() is None:
        if ledger.done > done:
            done, since = ledger.done, time.monotonic()
        elif time.monotonic() - since > STALLED_AFTER:
            return
        time.sleep(POLL)


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that leads a process group of its own, and end all its processes at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
        # The process leads its own process group: this also kills its children.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path) -> str:
    """Return the end of what a process has written."""
    return log.read_text(errors="replace")[-2000:] or "no output"
