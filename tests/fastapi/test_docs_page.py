"""The description of the webhook on FastAPI's documentation page, in a browser."""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from envoyou_core import EVENT_TYPES
from envoyou_core.http import REFUSALS
from envoyou_fastapi import create_router, describe_webhooks
from tests.contract.clients.servers import HOST, uvicorn_server
from tests.fastapi.conftest import PATH

pytestmark = pytest.mark.slow

PATIENCE = 30_000
"""Milliseconds."""


@pytest.fixture
def page():
    browser_path = shutil.which("chromium")
    if browser_path is None and "CI" not in os.environ:
        pytest.skip("there is no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(PATIENCE)
        # The page loads Swagger UI from a CDN; here it comes from a package.
        page.route(re.compile("^https:"), lambda route: route.fulfill(path=static(route.request.url)))
        yield page
        browser.close()


def static(url):
    return importlib.resources.files("fastapi_offline") / "static" / urlsplit(url).path.rpartition("/")[2]


def test_the_page_shows_the_endpoint_events_headers_and_responses(page, manual, tmp_path):
    app = FastAPI(title="An application")
    app.include_router(create_router(manual), prefix=PATH)
    app.webhooks.include_router(describe_webhooks(manual))
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    with uvicorn_server(app) as port:
        page.goto(f"http://{HOST}:{port}/docs")
        endpoint = page.locator(".opblock", has_text=PATH).first
        endpoint.locator(".opblock-summary-control").click()
        endpoint.locator(".responses-table").wait_for()

        headers = endpoint.locator(".parameters tr[data-param-in=header]")
        assert headers.count() == 5
        required = [row for row in headers.all() if row.locator(".parameter__name.required").count()]
        assert len(required) == 4

        examples = endpoint.locator("select.examples-select-element").first.locator("option")
        assert examples.all_inner_texts() == list(EVENT_TYPES)
        assert "john.doe@example.com" in endpoint.locator(".opblock-section-request-body").inner_text()

        answers = endpoint.locator("tr.response").evaluate_all("rows => rows.map(row => row.dataset.code)")
        assert answers == ["200", *sorted({str(error.status) for error in REFUSALS}), "default"]
        page.screenshot(path=tmp_path / "docs.png", full_page=True)

        assert page.locator(".webhooks .opblock").count() == len(EVENT_TYPES)
        assert page.locator(".errors-wrapper").count() == 0
    assert said == []
