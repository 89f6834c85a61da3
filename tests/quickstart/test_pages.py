"""The pages of the documentation that go from an empty folder to a processed event, each in a fresh environment.

What stands before a page's first heading of the second level is that way: every block of it is followed.
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
"""What the server shows in the end, because the handler has printed it."""


@pytest.mark.parametrize("framework", chosen())
def test_the_page_leads_to_a_processed_event(reader, framework):
    assert '{"received": true}\n' in reader.follow(Page(f"docs/{framework}.md").blocks())
    assert reader.wait_for("the handler's effect", lambda: reader.shows(SHOWN[framework]))
    if framework == "django":
        # What is no Python has come with the wheel, too.
        reader.run(["python", "manage.py", "findstatic", "envoyou_django/admin.css"])
        template = "admin/envoyou_django/processedevent/change_list.html"
        load = f"import django.template.loader as it; it.get_template('{template}')"
        reader.run(["python", "manage.py", "shell", "-c", load])
