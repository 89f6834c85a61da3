"""What the page about Flask shows beside its quickstart, and the example project, as a reader would run them."""

from __future__ import annotations

import pytest

from tests.walkthrough import PROJECT, Reader, read_page

PAGE = read_page("docs/flask.md")
EXAMPLE = PROJECT / "example_projects" / "flask_app"


@pytest.mark.parametrize("snippet", PAGE.snippets, ids=lambda code: code.split("\n\n")[-1].partition("\n")[0])
def test_the_pages_code_runs(snippet, tmp_path):
    reader = Reader(tmp_path, 5000)
    reader.write(PAGE.files)
    reader.run(snippet)


def test_the_example_project_runs_as_its_readme_says(tmp_path):
    (install, *serve), send = read_page("example_projects/flask_app/README.md").consoles
    assert install == 'pip install "envoyou-webhooks[flask]"'
    reader = Reader(tmp_path, 5000)
    reader.write({path.name: path.read_text() for path in EXAMPLE.glob("*.py")})
    with reader.serving(serve):
        answer, page = reader.type(send).splitlines()
        assert answer == '{"received": true}'
        assert page == str({"attempts": 1, "last_error": None, "status": "processed", "type": "user.created"})
        reader.wait_for("welcome, john.doe@example.com")
