"""What the README and the reference pages list is what the code has: settings, responses, states, notices, links."""

import ast
import inspect
import re
from dataclasses import fields

import pytest

from envoyou_core import EVENT_TYPES, Retention, RetryPolicy, Webhooks, errors, observability
from envoyou_core.inbox import Status
from envoyou_core.observability import Notice
from envoyou_core.settings import SETTING_NAMES
from tests.adapters import chosen
from tests.documentation.pages import PAGES, PROJECT, QUICKSTARTS, README, Page

pytestmark = pytest.mark.text

RESPONSES, SETTINGS, NOTICES = (Page(f"docs/{name}.md") for name in ("responses", "settings", "notices"))

SCREEN = 55
"""Lines."""


LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def in_code(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_block_is_in_a_quickstart():
    """The quickstarts are run by `test_quickstarts.py`, all of their blocks."""
    titles = [f"Quickstart: {title}" for title in QUICKSTARTS.values()]
    assert sum(len(README.blocks(title)) for title in titles) == README.text.count("\n```\n")


def test_the_first_processed_event_is_within_two_screens():
    text, _, _ = README.text.partition("Welcome, john.doe@example.com")
    assert text.count("\n") < 2 * SCREEN


def test_every_error_is_in_the_table():
    classes = [it for _, it in inspect.getmembers(errors, inspect.isclass) if issubclass(it, errors.WebhookError)]
    contract = {(it.status, it.code) for it in classes if it is not errors.WebhookError}
    table = {(int(status[:3]), in_code(code)[0]) for _, status, code in RESPONSES.rows("Responses") if code}
    assert table == contract


def test_every_status_is_in_the_table():
    assert [in_code(name)[0] for name, _ in RESPONSES.rows("Event states")] == [str(status) for status in Status]


def test_every_setting_is_in_the_tables_with_its_default():
    titles = ("All settings", "Retry", "Retention", "Alerts")
    general, retry, retention, alerts = (SETTINGS.rows(title) for title in titles)
    table = [(in_code(name)[0], default) for _, name, default, _ in general]
    table += [(in_code(name)[0], default) for name, default, _ in (*retry, *retention, *alerts)]
    assert {name for name, _ in table} == SETTING_NAMES
    parameters = inspect.signature(Webhooks).parameters
    assert {in_code(keyword)[0] for keyword, *_ in general if keyword} == parameters.keys() - {"self"}
    assert wrong_defaults(table) == []


@pytest.mark.skipif("django" not in chosen(), reason="Django is not tested")
def test_every_setting_of_django_alone_is_in_its_table():
    from envoyou_django import conf

    rows = SETTINGS.rows("Only in one framework")
    assert {in_code(name)[0] for framework, name, _, _ in rows if framework == "Django"} == conf.OWN_NAMES


def wrong_defaults(table):
    """Return the names with wrong defaults in a table, for defaults that are numbers, strings or booleans."""
    keywords = {name: it.default for name, it in inspect.signature(Webhooks).parameters.items()}
    plain = {name: default for name, default in keywords.items() if isinstance(default, int | float | str)}
    assert plain.keys() >= {"inbox", "tolerance", "max_body_size"}
    plain |= {f"retry_{it.name}": it.default for it in fields(RetryPolicy)}
    plain |= {f"retention_{it.name}": it.default for it in fields(Retention)}
    return [
        name
        for name, shown in table
        if (actual := plain.get(name.lower())) is not None and actual != literal(in_code(shown)[0])
    ]


def literal(shown):
    try:
        return ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        return shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_every_linked_file_and_heading_exists(page):
    folder = (PROJECT / page.path).parent
    for path, anchor in LINK.findall(page.text):
        linked = (folder / path) if path else PROJECT / page.path
        assert linked.exists(), path
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{path}#{anchor}"


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_notice_is_listed_with_its_fields():
    titles = ("Deliveries", "Attempts", "Workers and stores")
    listed = {}
    for names, fields_shown, _ in (row for title in titles for row in NOTICES.rows(title)):
        shown = [in_code(part) for part in fields_shown.split(";")]
        listed |= {name: sorted(those) for name, those in zip(in_code(names), shown, strict=True)}
    public = (getattr(observability, name) for name in observability.__all__)
    kinds = [it for it in public if inspect.isclass(it) and issubclass(it, Notice) and it is not Notice]
    assert listed == {it.__name__: sorted(field.name for field in fields(it)) for it in kinds}


def test_the_readme_states_the_number_of_event_types():
    assert f"all {len(EVENT_TYPES)} types of event" in README.section("Documentation")
