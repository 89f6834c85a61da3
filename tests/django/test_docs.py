"""The page about Django, and the example project, followed as a reader would."""

import re
import shutil

from tests.walkthrough import PROJECT, Reader, read_page

EXAMPLE = PROJECT / "example_projects" / "django_app"
ADDITION = re.compile(r"# ([\w/]+\.py) \(add\)\n")


class DjangoReader(Reader):
    """One whose `runserver` listens on the reader's own port."""

    def __init__(self, folder):
        super().__init__(folder, usual_port=8000)

    def serving(self, console):
        assert console[-1] == "python manage.py runserver"
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


def test_the_example_project_runs_as_its_readme_says(tmp_path):
    (install, *serve), send, test = read_page("example_projects/django_app/README.md").consoles
    assert install == 'pip install "envoyou-webhooks[django]"'
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sqlite3", "__pycache__"))
    reader = DjangoReader(tmp_path)
    reader.write({"send.py": (EXAMPLE / "send.py").read_text()})
    reader.type(test)
    with reader.serving(serve):
        assert reader.type(send) == '{"received": true}\n'
        reader.wait_for("kept john.doe@example.com")
    # It needs no migrations of its own.
    reader.type([send[0], "python manage.py makemigrations --check"])
