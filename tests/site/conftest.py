"""The documentation site, built once for each run of the tests."""

import fcntl
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def pytest_ignore_collect(collection_path):
    """Leave out what needs MkDocs if it is not installed. With `CI=true`, its absence is a failure."""
    needs_mkdocs = collection_path.name == "test_built_site.py"
    return True if needs_mkdocs and os.environ.get("CI") != "true" and not find_spec("mkdocs") else None


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The directory of the built site. Processes of one run share it."""
    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    site = root / "site"
    with (root / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (site / "index.html").exists():
            build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
            environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
            built = subprocess.run(build, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
            assert built.returncode == 0, built.stdout + built.stderr
    return site
