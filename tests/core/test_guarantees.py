"""What `docs/guarantees.md` promises is held by tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES = PAGE.partition("## Promised")[2].partition("## Not promised")[0].split("\n**")[1:]
NAMED = sorted(set(re.findall(r"`(tests/\S+)`", PAGE.partition("## Promised")[2])))


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name):
    path, _, function = name.partition("::")
    found = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}
    assert function in found
    assert function.startswith("test_")


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.partition("**")[0][:40])
def test_every_promise_names_a_test(promise):
    assert re.search(r"^- `tests/\S+::test_\w+`", promise, flags=re.MULTILINE)


def test_every_reliability_test_holds_a_promise():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "reliability").glob("test_*.py")}
    assert files
    assert files <= {name.partition("::")[0] for name in NAMED}
