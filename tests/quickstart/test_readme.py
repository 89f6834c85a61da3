"""Tests that names, codes, statuses and settings in the README match the code, and that its core examples run."""

import ast
import inspect
import re
from dataclasses import fields

from envoyou_core import EVENT_TYPES, Retention, RetryPolicy, Webhooks, errors
from envoyou_core.inbox import Status
from envoyou_core.settings import SETTING_NAMES
from tests.quickstart.pages import PROJECT, QUICKSTARTS, README


def in_code(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_handlers_and_the_inbox_work_as_shown():
    names = {}
    for block in README.blocks("Handlers"):
        assert block.language == "python"
        exec(compile(block.code, README.path, "exec"), names)
    assert names["event"].id == names["record"].event.id


def test_every_block_is_run_by_a_test():
    followed = [title for title in README.titles() if title.startswith("Quickstart: ")]
    run = [*followed, "Send it an event", "Handlers"]
    assert sum(len(README.blocks(title)) for title in run) == README.text.count("\n```\n")
    assert {f"Quickstart: {title}" for title in QUICKSTARTS.values()} == set(followed)
    assert all(block.file for title in run[:-1] for block in README.blocks(title) if block.language == "python")


def test_every_error_is_in_the_table():
    classes = [it for _, it in inspect.getmembers(errors, inspect.isclass) if issubclass(it, errors.WebhookError)]
    contract = {(it.status, it.code) for it in classes if it is not errors.WebhookError}
    table = {(int(status[:3]), in_code(code)[0]) for _, status, code in README.rows("What is answered") if code}
    assert table == contract


def test_every_status_is_in_the_table():
    assert [in_code(name)[0] for name, _ in README.rows("The states of an event")] == [str(status) for status in Status]


def test_every_setting_is_in_the_table_with_its_default():
    table = README.rows("Settings")
    assert {in_code(name)[0] for _, name, _, _ in table} == SETTING_NAMES
    parameters = inspect.signature(Webhooks).parameters
    assert {in_code(keyword)[0] for keyword, *_ in table if keyword} == parameters.keys() - {"self"}
    assert wrong_defaults((in_code(name)[0], default) for _, name, default, _ in table) == []


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


def test_every_linked_file_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.text)
    assert "LICENSE" in links
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_the_readme_states_the_number_of_event_types():
    assert f"all {len(EVENT_TYPES)} types of event" in README.section("See it work")
