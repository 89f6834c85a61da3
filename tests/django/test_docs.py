"""The page about Django, and the example project, followed as a reader would."""

import re
import shutil

import pytest

from tests.walkthrough import PROJECT, Reader, read_page

EXAMPLE = PROJECT / "example_projects" / "django_app"
ADDITION = re.compile(r"# ([\w/]+\.py) \(add\)\n")


class DjangoReader(Reader):
    """One whose `runserver` listens on the reader's own port."""

    def __init__(self, folder):
        super().__init__(folder, usual_port=8000)

    def serving(self, console):
        assert console[-1] in {"python manage.py runserver", "python manage.py demo"}
        return super().serving([*console[:-1], f"{console[-1]} 127.0.0.1:{self._port}"])


def test_the_page_leads_to_a_processed_event_and_a_passing_test(tmp_path):
    page = read_page("docs/django.md")
    (install, *make), serve, send, test = page.consoles
    assert install == 'pip install "envoyou-webhooks[django]"'
    reader = DjangoReader(tmp_path)
    reader.type(make)
    reader.write(page.files)
    for addition in page.snippets:
        name = ADDITION.match(addition)
        assert name, f"{addition!r} belongs to no file"
        with (tmp_path / name[1]).open("a") as file:
            file.write(addition)
    with reader.serving(serve):
        assert reader.type(send) == '{"received": true}\n'
        reader.wait_for("Kept john.doe@example.com")
    reader.type(test)


@pytest.fixture
def example(tmp_path):
    """Someone with a copy of the example project."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
    reader = DjangoReader(tmp_path)
    reader.write({"send.py": (EXAMPLE / "send.py").read_text()})
    return reader


@pytest.mark.slow
def test_the_example_project_runs_as_its_readme_says(example):
    (install, *serve), send, test = read_page("example_projects/django_app/README.md").consoles
    assert install == "pip install -r requirements.txt"
    example.type(test)
    with example.serving(serve):
        example.wait_for("Starting development server")
        assert example.type(send) == '{"received": true}\n'
        # Two that the command itself has handed in, and the one that was sent.
        example.wait_for("kept user_123\n", times=3)
    example.type(["python manage.py makemigrations --check"])


@pytest.mark.slow
def test_the_example_project_runs_on_postgresql_by_one_variable(example, postgres_url):
    *_, test = read_page("example_projects/django_app/README.md").consoles
    address = postgres_url.replace("postgresql+psycopg", "postgres")
    example.type([f"export DATABASE_URL='{address}'", *test])


@pytest.mark.slow
def test_the_example_project_does_not_start_in_production_without_a_secret(example):
    with pytest.raises(AssertionError, match="there is no webhook secret"):
        example.type(["export DJANGO_SECRET_KEY=from_somewhere", "python manage.py check"])
