"""Run benchmarks and print their results."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from benchmarks import (
    acknowledgements,
    admin_growth,
    claims,
    django_acknowledgements,
    drain,
    endpoints,
    growth,
    import_time,
    memory,
    telemetry,
    transactions,
    unsigned,
    verification,
)
from benchmarks.measuring import Comparison, MeasurementError, Run, table
from benchmarks.results import Result, summary, write_json
from tests.services import POSTGRES, REDIS, Service

BENCHMARKS = {
    "acknowledgements": acknowledgements.comparisons,
    "django": django_acknowledgements.comparisons,
    "claims": claims.comparisons,
    "transactions": transactions.comparisons,
    "drain": drain.comparisons,
    "telemetry": telemetry.comparisons,
    "unsigned": unsigned.comparisons,
    "endpoints": endpoints.comparisons,
    "verify": verification.comparisons,
    "import": import_time.comparisons,
    "memory": memory.comparisons,
    "growth": growth.comparisons,
    "admin": admin_growth.comparisons,
}
LONG = frozenset({"admin", "growth", "memory"})
"""Benchmarks that take longer than some minutes: they run if they are named."""

OUTPUT = Path(__file__).parents[1] / "build" / "benchmarks"
"""Where the raw results are written. Git ignores it."""


@contextmanager
def optional(service: Service) -> Iterator[str | None]:
    """Yield the URL of a server, or `None` if there is none."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(service.running())
        except pytest.skip.Exception as missing:
            print(f"skipped: {missing}", file=sys.stderr)
            address = None
        yield address


def each_of(comparisons: Iterable[Comparison]) -> Generator[Comparison, None, None]:
    """Yield the comparisons. What they have prepared is removed when this is closed, also after an error."""
    yield from comparisons


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run benchmarks and print their results; see docs/performance.md."
    )
    long = ", ".join(sorted(LONG))
    parser.add_argument("benchmark", nargs="*", help=f"{', '.join(BENCHMARKS)}; by default, all but {long}")
    parser.add_argument("--events", type=int, default=4000, help="number of events in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    parser.add_argument("--requests", type=int, default=32, help="number of concurrent deliveries (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the raw results (%(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.benchmark) - BENCHMARKS.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    if arguments.events < 2 or arguments.rounds < 1 or arguments.requests < 1:
        parser.error("--events must be at least 2, --rounds and --requests at least 1")
    logging.getLogger("envoyou").setLevel(logging.ERROR)
    with optional(REDIS) as redis, optional(POSTGRES) as postgres:
        run = Run(arguments.events, arguments.rounds, arguments.requests, redis, postgres)
        results = []
        for name in arguments.benchmark or [name for name in BENCHMARKS if name not in LONG]:
            with closing(each_of(BENCHMARKS[name](run))) as comparisons:
                for comparison in comparisons:
                    print(f"measuring: {comparison.title}", file=sys.stderr)
                    results.append(Result(name, comparison, comparison.measure(run.rounds)))
        for result in results:
            print("\n".join(table(result.comparison, result.measured)), end="\n\n")
        print("\n".join(summary(results)))
        print(f"raw results: {write_json(results, run, arguments.output)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except MeasurementError as error:
        sys.exit(f"Error: {error}")
