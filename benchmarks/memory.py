"""The memory of one process that accepts and handles many events: how much it grows after the first tenth of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.measuring import Comparison, Limit, MeasurementError, Round, Run
from benchmarks.processes import ROOT

__all__ = ["comparisons"]

SCALE = 50
"""So many times the events of other benchmarks: 200,000 by default."""

GROWTH, TARGET = "growth after the first tenth", 10


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    return [
        Comparison(
            f"MiB by which the resident memory grows, {run.events * SCALE} events accepted and handled, SQLite",
            {GROWTH: partial(measure, run)},
            [Limit(GROWTH, at_most=TARGET)],
        )
    ]


def measure(run: Run) -> Round:
    """Let a new process accept and handle the events; it reports its memory after each tenth."""
    events = run.events * SCALE
    with tempfile.TemporaryDirectory() as folder:
        finished = subprocess.run(
            [sys.executable, "-m", "benchmarks.workers.accumulating", f"sqlite:///{folder}/inbox.db", str(events)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if finished.returncode:
        raise MeasurementError(f"the process failed: {finished.stderr[-2000:]}")
    done, *sizes = map(int, finished.stdout.split())
    if done != events:
        raise MeasurementError(f"{done} of {events} events were processed")
    mebibytes = [size / 2**20 for size in sizes]
    return Round(done, max(mebibytes) - mebibytes[0], {"at a tenth": mebibytes[0], "at most": max(mebibytes)})
