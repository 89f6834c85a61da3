"""Copies of the project that are broken on purpose, and test runs in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.breakages.table import Breakage

__all__ = ["FAILED", "PROJECT", "break_in", "copy_to", "run_tests"]

PROJECT = Path(__file__).parents[2]
FAILED = 1
"""What pytest ends with when tests failed; a test that is missing, or code that cannot be imported, ends otherwise."""


def copy_to(folder: Path) -> Path:
    """Copy the files that the tests need into `folder`."""
    for name in ("envoyou_core", "envoyou_django", "envoyou_flask", "envoyou_fastapi", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def break_in(copy: Path, breakage: Breakage) -> None:
    """Apply `breakage` to a copy of the project."""
    source = copy / breakage.file
    source.write_text(breakage.apply(source.read_text(encoding="utf-8")), encoding="utf-8")


def run_tests(copy: Path, tests: Iterable[str], adapters: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy, up to the first failure."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_", "COV_CORE_"))
    }
    environment |= {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ENVOYOU_TEST_ADAPTERS": ",".join(adapters),
    }
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
