"""The tests bite: each way to break the core, done in a copy of the project, turns a test red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.breakages.table import BREAKAGES

PROJECT = Path(__file__).parents[2]
FAILED = 1
"""What pytest ends with when tests failed; a test that is missing, or code that cannot be imported, ends otherwise."""


def name_of(breakage):
    return breakage.name


@pytest.fixture
def copy(tmp_path):
    """A copy of what the core's tests need."""
    for folder in ("envoyou_core", "tests"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def run_tests(copy, tests):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_", "COV_CORE_"))
    }
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "ENVOYOU_TEST_ADAPTERS": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert f"envoyou_core: {copy / 'envoyou_core'}" in ended.stdout, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
def test_what_is_broken_stands_in_the_source_exactly_once(breakage):
    assert (PROJECT / breakage.file).read_text().count(breakage.old) == 1


def test_every_breakage_has_a_name_of_its_own():
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)


@pytest.mark.slow
def test_in_an_unbroken_copy_all_these_tests_pass(copy):
    ended = run_tests(copy, dict.fromkeys(test for breakage in BREAKAGES for test in breakage.tests))
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
def test_a_breakage_turns_a_test_red(breakage, copy):
    source = copy / breakage.file
    text = source.read_text()
    assert text.count(breakage.old) == 1
    source.write_text(text.replace(breakage.old, breakage.new))
    ended = run_tests(copy, breakage.tests)
    assert ended.returncode == FAILED, ended.stdout + ended.stderr
