"""Runs the code of the pages about FastAPI and Starlette, except their quickstarts, as a reader would."""

from __future__ import annotations

import pytest

from tests.walkthrough import Reader, read_page

PAGES = {name: read_page(f"docs/{name}.md") for name in ("fastapi", "starlette")}
SNIPPETS = [
    pytest.param(page, snippet, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, snippet in enumerate(page.snippets, start=1)
]


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_the_code_of_the_page_runs(page, snippet, tmp_path):
    reader = Reader(tmp_path, 8000)
    reader.write(page.files)
    reader.run(snippet)
