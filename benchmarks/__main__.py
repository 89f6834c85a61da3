"""Measure, and print one table."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks import acknowledgements, claims, django_acknowledgements, drain, transactions, unsigned
from benchmarks.measuring import MeasurementError, Run, table
from tests.services import POSTGRES, REDIS, Service

BENCHMARKS = {
    "acknowledgements": acknowledgements.comparisons,
    "django": django_acknowledgements.comparisons,
    "claims": claims.comparisons,
    "transactions": transactions.comparisons,
    "drain": drain.comparisons,
    "unsigned": unsigned.comparisons,
}


@contextmanager
def where_there_is_one(service: Service) -> Iterator[str | None]:
    with ExitStack() as stack:
        try:
            address = stack.enter_context(service.running())
        except pytest.skip.Exception as missing:
            print(f"left out: {missing}", file=sys.stderr)
            address = None
        yield address


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("which", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--events", type=int, default=4000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=32, help="deliveries at once")
    arguments = parser.parse_args()
    if unknown := set(arguments.which) - BENCHMARKS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if arguments.events < 2 or arguments.rounds < 1 or arguments.requests < 1:
        parser.error("two events, a round and a request are the least")
    logging.getLogger("envoyou").setLevel(logging.ERROR)
    with where_there_is_one(REDIS) as redis, where_there_is_one(POSTGRES) as postgres:
        run = Run(arguments.events, arguments.rounds, arguments.requests, redis, postgres)
        tables = []
        for name in arguments.which or BENCHMARKS:
            for comparison in BENCHMARKS[name](run):
                print(f"measuring: {comparison.title}", file=sys.stderr)
                tables.append("\n".join(table(comparison, comparison.measure(run.rounds))))
        print("\n\n".join(tables))


if __name__ == "__main__":
    try:
        main()
    except MeasurementError as error:
        sys.exit(f"no figures: {error}")
