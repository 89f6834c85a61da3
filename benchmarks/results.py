"""The end of a run: one table of all aims, and the raw results as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measuring import Comparison, Limit, Ratio, Round, Run, medians_of

__all__ = ["Result", "summary", "write_json"]


@dataclass(frozen=True, slots=True)
class Result:
    """The rounds of one comparison.

    Attributes:
        benchmark: the name of the benchmark.
        comparison: what was compared.
        measured: the rounds of each candidate.
    """

    benchmark: str
    comparison: Comparison
    measured: Mapping[str, Sequence[Round]]


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the table of all ratios and limits that have an aim, and whether it is met."""
    rows = [
        (result, aim, aim.value(medians_of(result.measured)))
        for result in results
        for aim in result.comparison.ratios
        if _aim(aim)
    ]
    if not rows:
        return
    yield f"{'figure':<76}{'value':>9}  {'aim':<10}"
    title = ""
    for result, aim, value in rows:
        if result.comparison.title != title:
            title = result.comparison.title
            yield title
        yield f"  {aim.label:<74}{value:>9.2f}  {_aim(aim):<10}{'met' if _is_met(aim, value) else 'not met'}"


def _aim(aim: Ratio | Limit) -> str:
    if aim.target is not None:
        return f">= {aim.target:g}"
    return "" if aim.at_most is None else f"<= {aim.at_most:g}"


def _is_met(aim: Ratio | Limit, value: float) -> bool:
    return (aim.target is None or value >= aim.target) and (aim.at_most is None or value <= aim.at_most)


def write_json(results: Sequence[Result], run: Run, folder: Path) -> Path:
    """Write all rounds to a new file in `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    document = {
        "measured_at": now.isoformat(),
        "python": sys.version,
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
        "run": {"events": run.events, "rounds": run.rounds, "requests": run.requests},
        "comparisons": [_as_document(result) for result in results],
    }
    file = folder / f"{now:%Y%m%dT%H%M%S.%f}Z.json"
    file.write_text(json.dumps(document, indent=1))
    return file


def _as_document(result: Result) -> dict[str, object]:
    medians = medians_of(result.measured)
    return {
        "benchmark": result.benchmark,
        "title": result.comparison.title,
        "candidates": {name: [asdict(each) for each in rounds] for name, rounds in result.measured.items()},
        "ratios": [
            {"figure": aim.label, "value": aim.value(medians), "at_least": aim.target, "at_most": aim.at_most}
            for aim in result.comparison.ratios
        ],
    }
