"""Runs the tests on the page about testing a Django project, with Django's runner and with pytest."""

from __future__ import annotations

import pytest

from tests.django.project import Project
from tests.walkthrough import read_page

pytestmark = pytest.mark.slow

SETTINGS = """
INSTALLED_APPS += ["django.contrib.auth", "django.contrib.contenttypes", "accounts"]
INSTALLED_APPS.remove("shop")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"), settings=SETTINGS)
    (project.folder / "accounts").mkdir()
    project.write("accounts/__init__.py", "")
    for name, code in read_page("docs/django-testing.md").files.items():
        project.write(name, code)
    return project


def test_the_page_with_djangos_runner(project):
    ran = project.run("test", "--settings=site_settings")
    assert ran.returncode == 0, ran.stderr
    assert "Ran 4 tests" in ran.stderr


def test_the_page_with_pytest(project):
    project.write("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = site_settings\npython_files = tests.py test_*.py\n")
    ran = project.run_python("import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider']))")
    assert ran.returncode == 0, ran.stdout
    assert "5 passed" in ran.stdout
