"""The source and the documentation use plain technical English, and no former names."""

import re
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.text

ROOT = Path(__file__).parents[2]
PACKAGES = ("envoyou_core", "envoyou_django", "envoyou_flask", "envoyou_fastapi", "pytest_envoyou")

PHRASES = (
    r"\b[Ww]ho(ever|soever)\b",
    r"\bis no [A-Z]",
    r"\b(was|has|is|are) to be told\b",
    r"\b(is|are|was) told\b",
    r"\btells? of\b",
    r"\b[Ll]ook(s|ed|ing)? after\b",
    r"\b[Ss]ees? to\b",
    r"\bof its own accord\b",
    r"\b[Ww]here nobody\b",
    r"\b[Ww]ho has\b",
    r"\bin hand\b",
    r"\bkeeps? house\b",
    r"\b[Ii]t could not be done\b",
    r"\b[Ss]omebody else\b",
)
FORMER_NAMES = (
    *("InHand", "in_hand", "withdraw_overdue", "is_running_low", "give_back", "let_go", "_Share", "Worked", "conclude"),
    *("_Ending", "_tell_of_death", "keep_house", "HouseKept", "_try_for_a_lease", "_meet", "surround", "Surroundings"),
    *("surrounded", "at_thread_end", "Nudges", "nudge_failed", "work_in_this_process", "HandlerTurns", "Mover"),
    *("passes_the_line", "_Alarms", "DIFFERENT", "brings_work", "unfinished_progress", "both_forms", "for_senders"),
    *("ready_made", "make_ready", "attaching", "AddIndexBesideWriters"),
)
IN_DOCUMENTATION = (
    *PHRASES,
    r"\b[Ss]omebody\b",
    r"\b[Nn]obody\b",
    r"\bwork(s|ed|ing)? off\b",
    r"\bis what it\b",
    r"(^|[.:] )Where (?!the worker runs|the promise ends)[a-z]",
)
FORMER_PREFIXES = r"\b_?(LONGEST|MOST|SHORTEST)_[A-Z]"


def lines_of(paths):
    return tuple(
        (f"{path.relative_to(ROOT)}:{number}: {line.strip()}", line)
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    )


@cache
def source_lines():
    return lines_of(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


@pytest.mark.parametrize("pattern", [*PHRASES, FORMER_PREFIXES, *(rf"\b{name}\b" for name in FORMER_NAMES)])
def test_the_source_does_not_contain(pattern):
    assert [place for place, line in source_lines() if re.search(pattern, line)] == []


def test_the_source_is_read():
    assert len(source_lines()) > 10_000


@cache
def documentation_lines():
    return lines_of([ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


@pytest.mark.parametrize("pattern", IN_DOCUMENTATION)
def test_the_documentation_does_not_contain(pattern):
    assert [place for place, line in documentation_lines() if re.search(pattern, line)] == []
