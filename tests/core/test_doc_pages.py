"""The Python of the pages that belong to no framework, run as it stands there, each page from top to bottom."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy

from envoyou_core import Event, Webhooks
from envoyou_core.inbox import NewEvent, Status
from envoyou_core.testing import sample_event

PROJECT = Path(__file__).parents[2]
PAGES = ["docs/handlers.md", "docs/how-it-works.md", "docs/operations.md", "docs/serverless.md"]
PYTHON = re.compile(r"^( *)```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(page):
    found = PYTHON.findall((PROJECT / page).read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@pytest.fixture
def contexts(tmp_path, monkeypatch, caplog):
    """A folder with an inbox in it, in which one event has failed for good and others wait."""
    caplog.set_level(logging.CRITICAL, "envoyou")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    monkeypatch.setenv("ENVOYOU_INBOX", "sqlite:///envoyou.db")
    webhooks = Webhooks(secret="whsec_test", inbox="sqlite:///envoyou.db", handoff="manual")
    webhooks.on("user.created", name="welcome")(lambda event: 1 / 0)
    webhooks.inbox.add(NewEvent(sample_event("user.created", id="evt_1234567890", object={"id": "user_1234567890"})))
    webhooks.inbox.add(NewEvent(sample_event("auth.login"))).result(20)
    webhooks.drain()
    yield {
        "webhooks": webhooks,
        "Event": Event,
        "sqlalchemy": sqlalchemy,
        "accounts": sqlalchemy.table("accounts", sqlalchemy.column("id")),
        "page_someone": lambda text: None,
        "capture_exception": lambda error: None,
    }
    webhooks.inbox.close()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_can_be_run(page, contexts):
    assert blocks(page)
    made = []
    for code in blocks(page):
        exec(compile(code, page, "exec"), contexts)
        made.append(contexts["webhooks"])
    for place in (place for webhooks in made for place in (webhooks.inbox, webhooks.spool)):
        if place is not None:
            place.close()


def test_the_scheduled_drain_handles_what_is_due(contexts, capsys):
    """What `docs/serverless.md` has a schedule call."""
    for code in blocks("docs/serverless.md"):
        exec(compile(code, "docs/serverless.md", "exec"), contexts)
    webhooks = contexts["webhooks"]
    webhooks.inbox.add(NewEvent(sample_event("user.created", id="evt_scheduled"))).result(20)
    remaining = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
    assert contexts["drain"]({}, remaining) == {"settled": 1, "pruned": 0}
    assert "welcome evt_scheduled" in capsys.readouterr().out
    webhooks.inbox.close()


def test_the_operator_finds_what_the_page_promises(contexts):
    """What `docs/operations.md` says of looking, pausing and erasing, on the event that failed."""
    webhooks = contexts["webhooks"]
    record = webhooks.inbox.get("evt_1234567890")
    [attempt] = record.history
    assert (attempt.status, attempt.failures[0].handler) == (Status.FAILED, "welcome")
    assert attempt.began_at <= attempt.ended_at
    assert attempt.failures[0].traceback.endswith("ZeroDivisionError: division by zero\n")
    webhooks.pause(type="user.*")
    webhooks.pause(handler="welcome")
    assert webhooks.paused == {"type:user.*", "handler:welcome"}
    assert webhooks.inbox.erase("user_1234567890") == 1
