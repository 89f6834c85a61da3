"""Fails where too little of envoyou_core is covered.

Coverage's own total mixes lines and branches, so that many covered lines can hide branches that are
not. Here each has to reach the bound. Usage: ``coverage_gate.py COVERAGE_JSON``.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

BOUND = 95.0
PACKAGE = "envoyou_core/"


def percent(files: Iterable[Mapping[str, int]], covered: str, total: str) -> float:
    """The share of ``covered`` in ``total`` over all files, in per cent."""
    files = list(files)
    of = sum(file[total] for file in files)
    return 100.0 * sum(file[covered] for file in files) / of if of else 0.0


def shares(report: Mapping[str, object]) -> dict[str, float]:
    """What is covered of the package's lines and of its branches, in per cent."""
    files = [file["summary"] for path, file in report["files"].items() if path.replace("\\", "/").startswith(PACKAGE)]
    return {
        "lines": percent(files, "covered_lines", "num_statements"),
        "branches": percent(files, "covered_branches", "num_branches"),
    }


def main(path: str) -> int:
    found = shares(json.loads(Path(path).read_text()))
    for what, share in found.items():
        print(f"envoyou_core: {share:.2f}% of its {what} covered, {BOUND:.0f}% is the bound")
    return int(min(found.values()) < BOUND)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
