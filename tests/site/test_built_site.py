"""Tests of the built documentation: what the reference contains, and the pages in a browser."""

import functools
import html
import http.server
import inspect
import re
import threading
from contextlib import suppress

import pytest

from envoyou_core import Webhooks
from tests import browser as browsers
from tests.core.test_public_modules import EXPORTS, PROJECT

browsers.require_browser()

pytestmark = pytest.mark.slow

PAGES = ["", "performance/", "reference/envoyou_core.errors/", "reference/envoyou_core.testing/"]
"""The pages that are looked at in a browser."""

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}

ENTRY = re.compile(r'<h[23] id="([^"]+)" class="doc doc-heading"')
ELSEWHERE = re.compile(r'<tr>\s*<td><a [^>]*href="\.\./[^"]+">\s*<code>(\w+)</code>')
"""The first cell of a row, if it links to another page of the reference."""


def read(site, page):
    return (site / page / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(EXPORTS))
def test_each_public_name_is_on_the_page_of_its_module_once(site, module):
    page = read(site, f"reference/{module}")
    entries = [entry.removeprefix(f"{module}.") for entry in ENTRY.findall(page)]
    names = [entry for entry in entries if "." not in entry] + ELSEWHERE.findall(page)
    assert sorted(names) == sorted(EXPORTS[module])


def test_each_public_method_of_webhooks_is_described(site):
    described = re.findall(
        r'id="envoyou_core\.Webhooks\.(\w+)" class="doc doc-heading"', read(site, "reference/envoyou_core")
    )
    members = inspect.getmembers(Webhooks, lambda it: callable(it) or isinstance(it, property))
    assert sorted(described) == [name for name, _ in members if not name.startswith("_")]


def test_the_defaults_of_settings_are_shown_by_value(site):
    text = re.sub("<[^>]+>", "", read(site, "reference/envoyou_core"))
    for parameter, default in (("tolerance", "300"), ("concurrency", "8"), ("clock", "time.time")):
        assert re.search(rf"{parameter}\s*\([^)]*, default:\s*{default}\b", text)
    assert "&#39;PATH&#39;" not in text, "a default shows the environment"


def test_the_landing_page_shows_the_quickstarts_of_the_readme(site):
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    written = {}
    for section in readme.split("\n## Quickstart: ")[1:]:
        framework, _, text = section.partition("\n## ")[0].partition("\n")
        written[framework] = re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert written.keys() == {"Django", "Flask", "FastAPI", "Starlette"}
    page = read(site, "")
    labels = re.findall(r"<label[^>]*>(\w+)</label>", page)
    tabs = page.partition('<div class="tabbed-content">')[2].partition("<h2")[0].split('<div class="tabbed-block">')[1:]
    shown = {
        framework: [
            html.unescape(re.sub("<[^>]+>", "", code)) for code in re.findall(r"<pre>.*?</pre>", tab, re.DOTALL)
        ]
        for framework, tab in zip(labels, tabs, strict=True)
    }
    assert shown == written


@pytest.fixture(scope="module")
def address(site):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser, address):
    """A function that opens a page of the site. Nothing may be loaded from elsewhere, and nothing may fail."""
    contexts, problems = [], []

    def open_page(scheme, viewport=DESKTOP):
        contexts.append(browser.new_context(base_url=address, color_scheme=scheme, viewport=viewport))
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.on("request", lambda request: request.url.startswith((address, "data:")) or problems.append(request.url))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.on("response", lambda response: response.ok or response.status == 304 or problems.append(response.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.parametrize(("scheme", "viewport"), [("light", PHONE), ("dark", DESKTOP)], ids=["light", "dark"])
def test_pages_are_accessible_and_fit_the_screen(open_page, scheme, viewport):
    page = open_page(scheme, viewport)
    for path in PAGES:
        page.goto(path)
        assert browsers.accessibility_violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"], path


def test_the_colours_can_be_switched(open_page):
    page = open_page("dark")
    page.goto("")
    body = page.locator("body")
    assert body.get_attribute("data-md-color-scheme") == "slate"
    page.get_by_title("Switch to light mode").click()
    page.locator("body[data-md-color-scheme=default]").wait_for()
    page.goto("how-it-works/")
    assert body.get_attribute("data-md-color-scheme") == "default"


def test_a_search_finds_a_name_of_the_reference(open_page):
    from playwright.sync_api import TimeoutError

    page = open_page("light")
    query = page.get_by_role("textbox", name="Search")
    found = page.locator(".md-search-result a[href*='envoyou_core.Webhooks.retry_rejected']")
    # What is entered before the page listens may not be searched for, and an index that was not loaded stays away.
    for _ in range(6):
        page.goto("", wait_until="networkidle")
        query.fill("retry_reject")
        with suppress(TimeoutError):
            found.first.wait_for(timeout=10_000)
            break
    assert found.first.is_visible()
