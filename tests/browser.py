"""A real browser for the tests: the system's Chromium, driven by Playwright.

It is looked for at the path in ``ENVOYOU_TEST_CHROMIUM``, then in the system's own places. Where there is none, the
tests that need it are skipped, but with ``CI=true`` they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERIOUS = {"serious", "critical"}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, for as long as the block lasts."""
    path = os.environ.get("ENVOYOU_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        _missing("no Chromium: install it, or give its path in ENVOYOU_TEST_CHROMIUM")
    if find_spec("playwright") is None:
        _missing("no Playwright: install the dependency group `test`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def findings(page: Any) -> list[str]:
    """What axe finds on the page that keeps people from using it, and where."""
    from axe_playwright_python.sync_playwright import Axe

    # But for the way home, which is Django's own: its links are told from the text around them by colour alone.
    violations = Axe().run(page, context={"exclude": [[".breadcrumbs"]]}).response["violations"]
    return [f"{it['id']}: {node['html']}" for it in violations if it["impact"] in SERIOUS for node in it["nodes"]]


def _missing(message: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
