"""Runs the Flask example as its README says, in a new virtual environment."""

import shutil

import pytest

from tests.quickstart.pages import PROJECT, Page

pytestmark = pytest.mark.slow

EXAMPLE = "example_projects/flask_app"


def test_the_example_project_runs_as_its_readme_says(reader):
    copied = shutil.ignore_patterns("__pycache__", "instance")
    shutil.copytree(PROJECT / EXAMPLE, reader.folder, dirs_exist_ok=True, ignore=copied)
    readme = Page(f"{EXAMPLE}/README.md")
    tested = reader.follow(readme.blocks("Run it"))
    assert " passed" in tested
    page = reader.wait_for("the login", lambda: _with_a_login(reader.fetch("/")))
    assert "john.doe@example.com" in page


def _with_a_login(page):
    return page if '<td class="number">1</td>' in page else None
