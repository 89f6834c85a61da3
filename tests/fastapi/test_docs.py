"""The pages about FastAPI and Starlette, followed as a reader would."""

from __future__ import annotations

import pytest

from tests.walkthrough import Reader, follow, read_page

PAGES = {name: read_page(f"docs/{name}.md") for name in ("fastapi", "starlette")}
SNIPPETS = [
    pytest.param(page, snippet, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, snippet in enumerate(page.snippets, start=1)
]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_leads_to_a_processed_event(name, tmp_path):
    follow(PAGES[name], tmp_path, usual_port=8000, package=name)


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_the_pages_code_runs(page, snippet, tmp_path):
    reader = Reader(tmp_path, 8000)
    reader.write(page.files)
    reader.run(snippet)
