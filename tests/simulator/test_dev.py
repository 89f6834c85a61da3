"""`envoyou dev`: a platform beside the application, and what handlers did, as its inbox shows it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from envoyou_core import ConfigurationError, RetryPolicy, WebhookRequest, Webhooks
from envoyou_core.cli.command_line import app
from envoyou_core.cli.handled import HandlerResults
from envoyou_core.testing import sample_event, sign_delivery
from tests.simulator.receiver import SECRET, receiver

TIMEOUT = 30
"""Seconds."""

HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks.from_env(handoff="manual", spool=False)


@webhooks.on("user.created")
def welcome(event):
    event.data.object["email"]
"""


@contextmanager
def dev(folder, url, *options):
    (folder / "dev_hooks.py").write_text(HOOKS)
    command = [sys.executable, "-c", "from envoyou_core.cli import main; main()", "--app", "dev_hooks", "dev"]
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ENVOYOU_")},
        "ENVOYOU_WEBHOOK_SECRET": SECRET,
        "ENVOYOU_INBOX": f"sqlite:///{folder / 'inbox.db'}",
    }
    arguments = [*command, "--to", url, "--port", "0", "--interval", "0.1", *options]
    with subprocess.Popen(
        arguments, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def accept(webhooks, event):
    delivery = sign_delivery(event, secret=SECRET)
    answer = webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
    assert answer.status == 200


def test_deliveries_and_handlers_are_shown_as_json(tmp_path):
    with receiver() as endpoint, dev(tmp_path, endpoint.url, "--json") as process:
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["to"]) == ("ready", endpoint.url)
        body = json.dumps({"type": "user.created"}).encode()
        with urlopen(Request(f"{ready['control_url']}/events", body, {"X-API-Key": "dev"}), timeout=TIMEOUT) as answer:
            [event_id] = json.load(answer)["events"]
        attempt = json.loads(process.stdout.readline())
        assert (attempt["event"], attempt["event_id"], attempt["status"]) == ("attempt", event_id, 200)
        assert [event.id for event in endpoint.events] == [event_id]
        # The inbox does not exist before.
        webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path / 'inbox.db'}", handoff="manual", spool=False)
        webhooks.on("user.created", name="welcome")(lambda event: event.data.object["email"])
        accept(webhooks, sample_event(id="evt_1"))
        webhooks.drain()
        handled = json.loads(process.stdout.readline())
        assert (handled["event"], handled["id"], handled["status"]) == ("handled", "evt_1", "processed")
        assert handled["handlers"] == {"welcome": "done"}
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
        assert "as soon as there is an inbox" in " ".join(process.stderr.read().split())


def test_deliveries_and_handlers_are_shown_as_text(tmp_path):
    webhooks = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path / 'inbox.db'}", handoff="manual", spool=False)
    webhooks.on("user.created", name="welcome")(lambda event: event.data.object["email"])
    accept(webhooks, sample_event(id="evt_before"))
    webhooks.drain()
    with receiver() as endpoint, dev(tmp_path, endpoint.url) as process:
        lines = [process.stdout.readline() for _ in range(5)]
        assert endpoint.url in lines[0]
        accept(webhooks, sample_event(id="evt_1", object={"id": "user_1"}))
        webhooks.drain()
        shown = [process.stdout.readline().strip() for _ in range(3)]
        assert shown[0].endswith("user.created evt_1"), "what was before is not shown"
        assert shown[1].startswith("handlers, attempt 1: failed in ")
        assert shown[2] == "welcome: KeyError: 'email'"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--to", "nowhere"], 1, "url must be an absolute http or https URL"),
        (["--to", "http://127.0.0.1:9/", "--trouble", "rain=1"], 2, "expected NAME=VALUE"),
        ([], 2, "name the URL that receives webhooks"),
    ],
)
def test_wrong_options_are_one_line(options, code, said, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", SECRET)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["dev", "--port", "0", *options])
    assert result.exit_code == code
    assert said in result.stderr


@pytest.fixture
def webhooks():
    made = Webhooks(secret=SECRET, inbox="memory:", handoff="manual", retry=RetryPolicy(max_attempts=2, delays=(0.0,)))
    made.on("user.created", name="welcome")(lambda event: event.data.object["email"])
    return made


def looked(results):
    return [(handled.record.event.id, handled.number, handled.status, handled.errors) for handled in results.look()]


def test_each_attempt_is_found_once_also_after_a_requeue(webhooks):
    results = HandlerResults(lambda: webhooks.inbox)
    accept(webhooks, sample_event(id="evt_1", object={"id": "user_1"}))
    assert looked(results) == [], "no attempt has ended"
    webhooks.drain(until_idle=True)
    error = [("welcome", "KeyError: 'email'")]
    assert looked(results) == [("evt_1", 1, "failed", error), ("evt_1", 2, "dead", error)]
    assert looked(results) == []
    webhooks.inbox.requeue("evt_1")
    webhooks.drain(until_idle=True)
    assert looked(results) == [("evt_1", 1, "failed", error), ("evt_1", 2, "dead", error)]


def test_an_event_without_a_handler_is_shown_as_ignored(webhooks):
    results = HandlerResults(lambda: webhooks.inbox)
    accept(webhooks, sample_event("auth.login", id="evt_2"))
    webhooks.drain()
    assert looked(results) == [("evt_2", 0, "ignored", [])]
    assert looked(results) == []


def test_an_inbox_that_is_created_later_is_followed_from_its_beginning(webhooks):
    places = []

    def open_inbox():
        if not places:
            raise ConfigurationError("no inbox exists")
        return webhooks.inbox

    results = HandlerResults(open_inbox)
    assert results.missing == "no inbox exists"
    accept(webhooks, sample_event(id="evt_1"))
    webhooks.drain()
    assert looked(results) == []
    places.append("here")
    assert looked(results) == [("evt_1", 1, "processed", [])]
    assert results.missing == ""
