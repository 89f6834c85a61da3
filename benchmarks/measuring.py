"""Sides that take turns, so that whatever else the machine does falls on all of them; the ratios are what counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Comparison", "MeasurementError", "Ratio", "Round", "Run", "table"]


class MeasurementError(Exception):
    """What was to be measured did not happen, or not all of it: a figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for, and what there is.

    Attributes:
        events: in each round of each side.
        rounds: of which the median is taken.
        requests: how many deliveries arrive at once.
        redis: the URL of a server, where there is one.
        postgres: the same.
    """

    events: int
    rounds: int
    requests: int
    redis: str | None
    postgres: str | None


@dataclass(frozen=True, slots=True)
class Round:
    """What one side did in one turn.

    Attributes:
        done: how much of it was found done afterwards, counted where it leaves its traces.
        rate: a second.
    """

    done: int
    rate: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One side's rate over another's, and what it should come to."""

    of: str
    to: str
    aim: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Sides that do the same work.

    Attributes:
        title: what is counted, a second.
        sides: by name, what makes one round.
        ratios: between them.
    """

    title: str
    sides: Mapping[str, Callable[[], Round]]
    ratios: Sequence[Ratio]

    def measure(self, rounds: int) -> dict[str, list[Round]]:
        """Let each side have its turn, `rounds` times."""
        measured: dict[str, list[Round]] = {name: [] for name in self.sides}
        for _ in range(rounds):
            for name, side in self.sides.items():
                measured[name].append(side())
        return measured


def table(comparison: Comparison, measured: Mapping[str, Sequence[Round]]) -> Iterator[str]:
    """The lines to print."""
    medians = {name: statistics.median(turn.rate for turn in turns) for name, turns in measured.items()}
    yield f"{comparison.title:<76}{'median':>9}{'lowest':>9}{'highest':>9}{'done':>9}"
    for name, turns in measured.items():
        rates = [turn.rate for turn in turns]
        done = sum(turn.done for turn in turns)
        yield f"  {name:<74}{medians[name]:>9.0f}{min(rates):>9.0f}{max(rates):>9.0f}{done:>9}"
    for ratio in comparison.ratios:
        aim = "" if ratio.aim is None else f"  (aim: {ratio.aim:g} or more)"
        yield f"  = {f'{ratio.of} / {ratio.to}':<72}{medians[ratio.of] / medians[ratio.to]:>9.2f}{aim}"
