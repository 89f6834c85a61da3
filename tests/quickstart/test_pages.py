"""Runs the introductions of the documentation pages, each from an empty directory to a processed event.

The introduction of a page ends at its first heading of the second level; all its blocks are run.
"""

import pytest

from tests.adapters import chosen
from tests.quickstart.pages import Page

pytestmark = pytest.mark.slow

SHOWN = {
    "django": "Kept john.doe@example.com",
    "flask": "Welcome, john.doe@example.com",
    "fastapi": "Welcome, john.doe@example.com",
    "starlette": "Welcome, john.doe@example.com",
}
"""The output of the handler in the log of the server."""


@pytest.mark.parametrize("framework", chosen())
def test_the_page_leads_to_a_processed_event(reader, framework):
    assert '{"received": true}\n' in reader.follow(Page(f"docs/{framework}.md").blocks())
    assert reader.wait_for("the handler's effect", lambda: reader.shows(SHOWN[framework]))
    if framework == "django":
        # The wheel also contains static files and templates.
        reader.run(["python", "manage.py", "findstatic", "envoyou_django/admin.css"])
        template = "admin/envoyou_django/processedevent/change_list.html"
        load = f"import django.template.loader as it; it.get_template('{template}')"
        reader.run(["python", "manage.py", "shell", "-c", load])
