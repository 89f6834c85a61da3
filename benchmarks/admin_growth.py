"""The time of the admin's list of events in Django, by how many events the inbox has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.databases import databases
from benchmarks.growth import TARGET, sizes_of
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from benchmarks.processes import ROOT

__all__ = ["comparisons"]

REPETITIONS = 20

PAGES = {
    "the admin's list of events": "",
    "the admin's list by status": "?status__exact=processed",
    "the admin's search for an event": "?q=evt_old_7",
}


def comparisons(run: Run) -> Iterator[Comparison]:
    """Yield the comparisons of this benchmark. The filled databases exist until the last one is measured."""
    for name, database in databases(run, migrated=False).items():
        with ExitStack() as stack:
            urls = {}
            for size in sizes_of(run, name):
                url = urls[f"{size} rows"] = stack.enter_context(database())
                call(url, ["fill", str(size)])
            smallest, *larger = urls
            for title, query in PAGES.items():
                yield Comparison(
                    f"milliseconds for {title}, {name}",
                    {size: partial(measure, run, urls[size], query) for size in urls},
                    [Ratio(size, smallest, at_most=TARGET) for size in larger],
                )


def measure(run: Run, url: str, query: str) -> Round:
    """Ask for a page of the admin several times and return the median of its times."""
    times = min(REPETITIONS, run.events)
    return Round(times, float(call(url, ["get", str(times), query])))


def call(url: str, arguments: Sequence[str]) -> str:
    """Run `benchmarks.workers.admin_pages` and return what it prints."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.workers.admin_pages", *arguments],
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_DATABASE": url, "BENCHMARK_VARIANT": "bare"},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise MeasurementError(f"the project of Django failed: {finished.stderr[-2000:]}")
    return finished.stdout
