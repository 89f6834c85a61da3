"""Runs the example projects as their READMEs say."""

import shutil

import pytest

from tests.adapters import chosen
from tests.documentation.pages import PROJECT, Page

pytestmark = pytest.mark.slow


def example(reader, name):
    """Copy an example into the reader's directory, and return its README."""
    without = shutil.ignore_patterns("__pycache__", "instance", "*.sqlite3*")
    shutil.copytree(PROJECT / "example_projects" / name, reader.folder, dirs_exist_ok=True, ignore=without)
    return Page(f"example_projects/{name}/README.md")


@pytest.mark.skipif("flask" not in chosen(), reason="Flask is not tested")
def test_the_flask_example_runs_as_its_readme_says(reader):
    readme = example(reader, "flask_app")
    reader.follow(readme.blocks("Run it"))
    assert " passed" in reader.printed
    page = reader.wait_for("the login", lambda: _with_a_login(reader.fetch("/")))
    assert "john.doe@example.com" in page


def _with_a_login(page):
    return page if '<td class="number">1</td>' in page else None


@pytest.mark.skipif("django" not in chosen(), reason="Django is not tested")
def test_the_django_example_runs_as_its_readme_says(reader):
    readme = example(reader, "django_app")
    install, *run = (block for block in readme.blocks("Run it") if block.language == "console")
    assert install.code.startswith("pip install -r requirements.txt\n")
    reader.type(install.code.partition("\n")[2])
    reader.follow(run)
    # Two events from the command itself, and the one that was sent.
    reader.wait_for("the handlers' effects", lambda: reader.logs().count("kept user_123\n") == 3)
    reader.follow(readme.blocks("Test it"))
    reader.type("python manage.py makemigrations --check\npython manage.py check --fail-level WARNING")


@pytest.mark.skipif("django" not in chosen(), reason="Django is not tested")
def test_the_django_example_runs_on_postgresql_with_one_variable(reader, postgres_url):
    readme = example(reader, "django_app")
    reader.type(f"export DATABASE_URL={postgres_url.replace('postgresql+psycopg', 'postgres')}")
    reader.follow(readme.blocks("Test it"))


@pytest.mark.skipif("django" not in chosen(), reason="Django is not tested")
def test_the_django_example_does_not_start_in_production_without_a_secret(reader):
    example(reader, "django_app")
    reader.type("export DJANGO_SECRET_KEY=from_somewhere")
    with pytest.raises(AssertionError, match="secret is not configured"):
        reader.type("python manage.py check")
