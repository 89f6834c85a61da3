"""The tests bite: each way to break the project, done in a copy of it, turns a test red."""

import pytest

from tests.adapters import chosen
from tests.breakages.copies import FAILED, PROJECT, break_in, copy_to, run_tests
from tests.breakages.pitfalls import PITFALLS
from tests.breakages.table import BREAKAGES


def name_of(breakage):
    return breakage.name


@pytest.fixture
def copy(tmp_path):
    return copy_to(tmp_path)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
def test_what_is_broken_stands_in_the_source_exactly_once(breakage):
    assert (PROJECT / breakage.file).read_text(encoding="utf-8").count(breakage.old) == 1


def test_every_breakage_has_a_name_of_its_own():
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)


def test_every_pitfall_has_a_mend_that_is_taken_out():
    names = {breakage.name for breakage in BREAKAGES}
    assert len(PITFALLS) == 14
    assert all(mends and names.issuperset(mends) for mends in PITFALLS.values())


@pytest.mark.breakage
def test_in_an_unbroken_copy_all_these_tests_pass(copy):
    of_the_core = [breakage for breakage in BREAKAGES if not breakage.adapters]
    ended = run_tests(copy, dict.fromkeys(test for breakage in of_the_core for test in breakage.tests))
    assert ended.returncode == 0, ended.stdout


@pytest.mark.breakage
@pytest.mark.parametrize(
    "breakage", [breakage for breakage in BREAKAGES if set(chosen()).issuperset(breakage.adapters)], ids=name_of
)
def test_a_breakage_turns_a_test_red(breakage, copy):
    break_in(copy, breakage)
    ended = run_tests(copy, breakage.tests, breakage.adapters)
    assert ended.returncode == FAILED, ended.stdout + ended.stderr
