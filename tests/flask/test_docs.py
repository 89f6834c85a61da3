"""Runs the code of the page about Flask, except its quickstart, as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.quickstart.pages import Page

PATIENCE = 60

PAGE = Page("docs/flask.md")
PYTHON = [block for title in (None, *PAGE.titles()) for block in PAGE.blocks(title) if block.language == "python"]
FILES = {block.file: block.code for block in PYTHON if block.file}
SNIPPETS = [block.code for block in PYTHON if not block.file]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_code_of_the_page_runs(snippet, tmp_path):
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "snippet.py").write_text(snippet)
    command = [sys.executable, "-W", "error", "snippet.py"]
    environment = os.environ | {"ENVOYOU_WEBHOOK_SECRET": "whsec_your_webhook_secret_key"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
