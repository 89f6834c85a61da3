"""Run benchmarks and print their results."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks import acknowledgements, claims, django_acknowledgements, drain, telemetry, transactions, unsigned
from benchmarks.measuring import MeasurementError, Run, table
from tests.services import POSTGRES, REDIS, Service

BENCHMARKS = {
    "acknowledgements": acknowledgements.comparisons,
    "django": django_acknowledgements.comparisons,
    "claims": claims.comparisons,
    "transactions": transactions.comparisons,
    "drain": drain.comparisons,
    "telemetry": telemetry.comparisons,
    "unsigned": unsigned.comparisons,
}


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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run benchmarks and print their results; see docs/performance.md."
    )
    parser.add_argument("benchmark", nargs="*", help=f"benchmarks to run: {', '.join(BENCHMARKS)}; by default, all")
    parser.add_argument("--events", type=int, default=4000, help="number of events in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    parser.add_argument("--requests", type=int, default=32, help="number of concurrent deliveries (%(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.benchmark) - BENCHMARKS.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    if arguments.events < 2 or arguments.rounds < 1 or arguments.requests < 1:
        parser.error("--events must be at least 2, --rounds and --requests at least 1")
    logging.getLogger("envoyou").setLevel(logging.ERROR)
    with optional(REDIS) as redis, optional(POSTGRES) as postgres:
        run = Run(arguments.events, arguments.rounds, arguments.requests, redis, postgres)
        tables = []
        for name in arguments.benchmark or BENCHMARKS:
            for comparison in BENCHMARKS[name](run):
                print(f"measuring: {comparison.title}", file=sys.stderr)
                tables.append("\n".join(table(comparison, comparison.measure(run.rounds))))
        print("\n\n".join(tables))


if __name__ == "__main__":
    try:
        main()
    except MeasurementError as error:
        sys.exit(f"Error: {error}")
