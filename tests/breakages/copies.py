"""Copies of the project that are broken on purpose, and test runs in them.

The runs in one copy share its bytecode, because compiling the project takes longer than most of the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.breakages.table import Breakage

__all__ = ["FAILED", "PROJECT", "broken", "copy_to", "run_tests"]

PROJECT = Path(__file__).parents[2]
OPTIONS = ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:schemathesis"]
"""Of pytest. Importing the plugin of schemathesis takes longer than most of the tests."""
FAILED = 1
"""What pytest ends with when tests failed; a test that is missing, or code that cannot be imported, ends otherwise."""


def copy_to(folder: Path) -> Path:
    """Copy the files that the tests need into `folder`."""
    for name in ("envoyou_core", "envoyou_django", "envoyou_flask", "envoyou_fastapi", "pytest_envoyou", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


@contextmanager
def broken(copy: Path, breakage: Breakage) -> Iterator[None]:
    """Apply `breakage` to a copy of the project, and undo it afterwards."""
    original, source = PROJECT / breakage.file, copy / breakage.file
    source.write_text(breakage.apply(original.read_text(encoding="utf-8")), encoding="utf-8")
    try:
        yield
    finally:
        # With its time, so that the bytecode of the unbroken source is valid again.
        shutil.copy2(original, source)


def run_tests(copy: Path, tests: Iterable[str], adapters: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy, up to the first failure."""
    left_out = ("COVERAGE_", "PYTEST_", "COV_CORE_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    environment |= {"PYTHONPATH": str(copy), "ENVOYOU_TEST_ADAPTERS": ",".join(adapters)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert f"envoyou_core: {copy / 'envoyou_core'}" in ended.stdout, ended.stdout + ended.stderr
    return ended
