"""Each breakage, applied to a copy of the project, makes a test fail."""

import pytest

from tests.adapters import chosen
from tests.breakages.copies import FAILED, PROJECT, broken, copy_to, run_tests
from tests.breakages.pitfalls import PITFALLS
from tests.breakages.table import BREAKAGES

pytestmark = pytest.mark.text


def name_of(breakage):
    return breakage.name


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    return copy_to(tmp_path_factory.mktemp("copy"))


@pytest.mark.parametrize("breakage", BREAKAGES, ids=name_of)
def test_a_breakage_applies_to_the_source(breakage):
    source = (PROJECT / breakage.file).read_text(encoding="utf-8")
    compile(breakage.apply(source), breakage.file, "exec")


def test_breakages_have_unique_names():
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)


def test_every_pitfall_has_breakages():
    names = {breakage.name for breakage in BREAKAGES}
    assert len(PITFALLS) == 14
    assert all(breakages and names.issuperset(breakages) for breakages in PITFALLS.values())


@pytest.mark.breakage
def test_the_tests_pass_in_an_unbroken_copy(copy):
    of_the_core = [breakage for breakage in BREAKAGES if not breakage.adapters]
    ended = run_tests(copy, dict.fromkeys(test for breakage in of_the_core for test in breakage.tests))
    assert ended.returncode == 0, ended.stdout


@pytest.mark.breakage
@pytest.mark.parametrize(
    "breakage", [breakage for breakage in BREAKAGES if set(chosen()).issuperset(breakage.adapters)], ids=name_of
)
def test_a_breakage_makes_a_test_fail(breakage, copy):
    with broken(copy, breakage):
        ended = run_tests(copy, breakage.tests, breakage.adapters)
    assert ended.returncode == FAILED, ended.stdout + ended.stderr
