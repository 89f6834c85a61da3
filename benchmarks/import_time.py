"""CPU time of the import, which every process and command of an application pays at its start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measuring import Comparison, Limit, MeasurementError, Round, Run

__all__ = ["comparisons"]

ROOT = Path(__file__).parents[1]

BARE, MSGSPEC, PACKAGE = "python -c pass", "import msgspec", "import envoyou_core"
USED = "from envoyou_core import Webhooks, verify"
"""What an application does: names that are loaded on first use are loaded."""

EVENTS_PER_LAUNCH = 100
"""A launch takes as long as this many events of other benchmarks."""


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    statements = {BARE: "pass", MSGSPEC: MSGSPEC, PACKAGE: PACKAGE, USED: USED}
    return [
        Comparison(
            "CPU milliseconds from the start of Python to its end",
            {name: partial(launch, run, statement) for name, statement in statements.items()},
            [
                Limit(PACKAGE, at_most=60, above=BARE),
                Limit(USED, at_most=60, above=BARE),
                Limit(USED, at_most=None, above=MSGSPEC),
            ],
        )
    ]


def launch(run: Run, statement: str) -> Round:
    """Run `statement` in new interpreters, one after another, and return the median of their CPU times."""
    _cost(statement)  # the first one may compile
    launches = max(2, run.events // EVENTS_PER_LAUNCH)
    costs = sorted(_cost(statement) for _ in range(launches))
    return Round(done=launches, rate=statistics.median(costs))


def _cost(statement: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, "-c", statement], cwd=ROOT, env=environment)
    # Of this process alone, and in microseconds.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MeasurementError(f"{statement!r} failed")
    return (usage.ru_utime + usage.ru_stime) * 1000
