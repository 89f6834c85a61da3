"""Measures candidates alternately, so that other load on the machine affects all of them; the results are ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Comparison", "Limit", "MeasurementError", "Ratio", "Round", "Run", "medians_of", "table"]


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
        rate: the measured figure, in the unit of the comparison's title: per second, or a cost.
        details: other figures, by name and unit.
    """

    done: int
    rate: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The figure of one candidate divided by that of another, and its target.

    Attributes:
        of: name of the candidate in the numerator.
        to: name of the candidate in the denominator.
        target: the minimum that is aimed at, if any.
        at_most: the maximum that is aimed at, if any.
    """

    of: str
    to: str
    target: float | None = None
    at_most: float | None = None

    @property
    def label(self) -> str:
        return f"{self.of} / {self.to}"

    def value(self, medians: Mapping[str, float]) -> float:
        return medians[self.of] / medians[self.to]


@dataclass(frozen=True, slots=True)
class Limit:
    """The figure of one candidate, or how much it exceeds that of another, and its target.

    Attributes:
        of: name of the candidate.
        at_most: the maximum that is aimed at, in the unit of the comparison; `None` for a figure without a target.
        above: name of the candidate whose figure is subtracted, if any.
    """

    of: str
    at_most: float | None
    above: str | None = None
    target: None = None

    @property
    def label(self) -> str:
        return self.of if self.above is None else f"{self.of} - {self.above}"

    def value(self, medians: Mapping[str, float]) -> float:
        return medians[self.of] - (0 if self.above is None else medians[self.above])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates that do the same work.

    Attributes:
        title: what is measured, and its unit.
        candidates: functions that run one round, by name.
        ratios: the ratios and limits to report.
    """

    title: str
    candidates: Mapping[str, Callable[[], Round]]
    ratios: Sequence[Ratio | Limit]

    def measure(self, rounds: int) -> dict[str, list[Round]]:
        """Run all candidates in turn, `rounds` times."""
        measured: dict[str, list[Round]] = {name: [] for name in self.candidates}
        for _ in range(rounds):
            for name, run in self.candidates.items():
                measured[name].append(run())
        return measured


def medians_of(measured: Mapping[str, Sequence[Round]]) -> dict[str, float]:
    """Return the median of each candidate's rounds."""
    return {name: statistics.median(result.rate for result in rounds) for name, rounds in measured.items()}


def table(comparison: Comparison, measured: Mapping[str, Sequence[Round]]) -> Iterator[str]:
    """Yield the lines of the table of results."""
    medians = medians_of(measured)
    details = list(dict.fromkeys(name for rounds in measured.values() for it in rounds for name in it.details))
    columns = "".join(f"{name:>12}" for name in details)
    yield f"{comparison.title:<76}{'median':>9}{'lowest':>9}{'highest':>9}{'done':>9}{columns}"
    for name, rounds in measured.items():
        rates = [result.rate for result in rounds]
        done = sum(result.done for result in rounds)
        figures = f"{_figure(medians[name]):>9}{_figure(min(rates)):>9}{_figure(max(rates)):>9}{done:>9}"
        yield f"  {name:<74}{figures}" + "".join(f"{_median_detail(rounds, detail):>12}" for detail in details)
    for ratio in comparison.ratios:
        yield f"  = {ratio.label:<72}{ratio.value(medians):>9.2f}{_target(ratio)}"


def _median_detail(rounds: Sequence[Round], name: str) -> str:
    values = [result.details[name] for result in rounds if name in result.details]
    return _figure(statistics.median(values)) if values else ""


def _figure(value: float) -> str:
    """Write a figure with at least three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _target(ratio: Ratio | Limit) -> str:
    if ratio.target is not None:
        return f"  (target: at least {ratio.target:g})"
    return "" if ratio.at_most is None else f"  (target: at most {ratio.at_most:g})"
