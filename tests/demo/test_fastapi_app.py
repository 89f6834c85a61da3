"""Runs the tests of the FastAPI example as its README says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "example_projects" / "fastapi_app"


@pytest.mark.slow
def test_the_tests_of_the_example_pass(tmp_path):
    ours = ("COVERAGE", "ENVOYOU_", "PYTEST_")
    environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)}
    alone = ["-c", os.devnull, f"--rootdir={EXAMPLE}", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, EXAMPLE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout
