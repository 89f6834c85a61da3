"""Runs the quickstarts of the README, each in a new virtual environment with what it installs and nothing else."""

import pytest

from tests.adapters import chosen
from tests.documentation.pages import QUICKSTARTS, README

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("framework", chosen())
def test_the_quickstart_handles_an_event(new_reader, framework):
    new_reader.follow(README.blocks(f"Quickstart: {QUICKSTARTS[framework]}"))
    package = new_reader.run("python -c 'import envoyou_core; print(envoyou_core.__file__)'").strip()
    assert str(new_reader.folder.parent) in package, "the installed wheel must be what runs"
    if framework == "django":
        # The wheel also contains static files and templates.
        new_reader.run("python manage.py findstatic envoyou_django/admin.css")
        new_reader.execute(
            "from django.template.loader import get_template\n"
            "get_template('admin/envoyou_django/processedevent/change_list.html')"
        )
