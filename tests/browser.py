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
from typing import Any

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


def needed() -> None:
    """To be called where a module of tests begins: leaves them all out where there is no browser."""
    if os.environ.get("CI") != "true" and (missing := _missing()):
        pytest.skip(missing, allow_module_level=True)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, for as long as the block lasts."""
    if missing := _missing():
        pytest.fail(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_path(), args=ARGUMENTS)
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


def _missing() -> str | None:
    if _path() is None:
        return "no Chromium: install it, or give its path in ENVOYOU_TEST_CHROMIUM"
    return None if find_spec("playwright") else "no Playwright: install the dependency group `test`"


def _path() -> str | None:
    return os.environ.get("ENVOYOU_TEST_CHROMIUM") or shutil.which("chromium")
