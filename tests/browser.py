"""A browser for the tests: the installed Chromium, driven by Playwright.

Its path is ``ENVOYOU_TEST_CHROMIUM`` or found in ``PATH``. Without a browser, tests that need it are skipped, or fail
with ``CI=true``.
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


def require_browser() -> None:
    """Skip the calling test module if there is no browser. Call this at module level."""
    if os.environ.get("CI") != "true" and (missing := _missing()):
        pytest.skip(missing, allow_module_level=True)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a running browser."""
    if missing := _missing():
        pytest.fail(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_path(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def accessibility_violations(page: Any) -> list[str]:
    """Return the serious accessibility violations that axe finds on the page, with their elements."""
    from axe_playwright_python.sync_playwright import Axe

    # Without Django's own breadcrumbs, whose links differ from the text by colour only.
    violations = Axe().run(page, context={"exclude": [[".breadcrumbs"]]}).response["violations"]
    return [f"{it['id']}: {node['html']}" for it in violations if it["impact"] in SERIOUS for node in it["nodes"]]


def _missing() -> str | None:
    if _path() is None:
        return "no Chromium: install it, or set ENVOYOU_TEST_CHROMIUM to its path"
    return None if find_spec("playwright") else "no Playwright: install the dependency group `test`"


def _path() -> str | None:
    return os.environ.get("ENVOYOU_TEST_CHROMIUM") or shutil.which("chromium")
