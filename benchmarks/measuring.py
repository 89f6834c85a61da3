"""Measures candidates alternately, so that other load on the machine affects all of them; the results are ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Comparison", "MeasurementError", "Ratio", "Round", "Run", "table"]


class MeasurementError(Exception):
    """The work to be measured was not done completely, so there is no result."""


@dataclass(frozen=True, slots=True)
class Run:
    """The parameters of a run and the available servers.

    Attributes:
        events: number of events in each round of each candidate.
        rounds: number of rounds; the result is their median.
        requests: number of concurrent deliveries.
        redis: the URL of a Redis server, or `None`.
        postgres: the URL of a PostgreSQL server, or `None`.
    """

    events: int
    rounds: int
    requests: int
    redis: str | None
    postgres: str | None


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round of one candidate.

    Attributes:
        done: how much work was verified to be done.
        rate: per second.
    """

    done: int
    rate: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The rate of one candidate divided by that of another, and its target.

    Attributes:
        of: name of the candidate in the numerator.
        to: name of the candidate in the denominator.
        target: the minimum that is aimed at, if any.
    """

    of: str
    to: str
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates that do the same work.

    Attributes:
        title: what is measured, and its unit.
        candidates: functions that run one round, by name.
        ratios: the ratios to report.
    """

    title: str
    candidates: Mapping[str, Callable[[], Round]]
    ratios: Sequence[Ratio]

    def measure(self, rounds: int) -> dict[str, list[Round]]:
        """Run all candidates in turn, `rounds` times."""
        measured: dict[str, list[Round]] = {name: [] for name in self.candidates}
        for _ in range(rounds):
            for name, run in self.candidates.items():
                measured[name].append(run())
        return measured


def table(comparison: Comparison, measured: Mapping[str, Sequence[Round]]) -> Iterator[str]:
    """Yield the lines of the table of results."""
    medians = {name: statistics.median(result.rate for result in rounds) for name, rounds in measured.items()}
    yield f"{comparison.title:<76}{'median':>9}{'lowest':>9}{'highest':>9}{'done':>9}"
    for name, rounds in measured.items():
        rates = [result.rate for result in rounds]
        done = sum(result.done for result in rounds)
        yield f"  {name:<74}{medians[name]:>9.0f}{min(rates):>9.0f}{max(rates):>9.0f}{done:>9}"
    for ratio in comparison.ratios:
        target = "" if ratio.target is None else f"  (target: at least {ratio.target:g})"
        yield f"  = {f'{ratio.of} / {ratio.to}':<72}{medians[ratio.of] / medians[ratio.to]:>9.2f}{target}"
