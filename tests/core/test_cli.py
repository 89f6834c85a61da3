"""Tests of the command `envoyou`, run in this process; the tests of the SQL inbox run it in a process of its own."""

import importlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from io import StringIO

import pytest
import typer
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner

from envoyou_core import PermanentError, WebhookRequest, Webhooks, cli, verify
from envoyou_core.alerts.rules import RuleState
from envoyou_core.alerts.states import AlertStates
from envoyou_core.cli import developing, doctor, tables
from envoyou_core.cli import output as cli_output
from envoyou_core.cli.command_line import app
from envoyou_core.cli.documents import event_as_json
from envoyou_core.cli.parameters import duration
from envoyou_core.cli.tables import event_details, events_table
from envoyou_core.cli.tail import Tail
from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("ENVOYOU_APP", "ENVOYOU_INBOX", "ENVOYOU_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **options: CliRunner().invoke(app, arguments, **options)


def test_migrate_is_idempotent(run, sqlite_url, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", sqlite_url)
    for _ in range(2):
        result = run("migrate")
        assert (result.exit_code, result.stdout) == (0, "The inbox is ready (schema 7).\n")
    inbox = SqlInbox(sqlite_url)
    assert inbox.stats().total == 0
    inbox.close()


def test_migrate_reports_a_failure_and_exits_with_1(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ENVOYOU_INBOX", f"sqlite:///{tmp_path}/nowhere/inbox.db")
    result = run("migrate")
    assert result.exit_code == 1
    assert f"the directory {tmp_path}/nowhere does not exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["sqlite:///inbox.db", "memory:"])
def test_migrate_without_sqlalchemy_prints_one_line(run, monkeypatch, url):
    for module in ("envoyou_core.inbox.sql.inbox", "envoyou_core.inbox.sql.migrations"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("ENVOYOU_INBOX", url)
    result = run("migrate")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "pip install 'envoyou-webhooks[sql]'" in result.stderr


def test_migrate_rejects_an_inbox_without_tables(run, hooks):
    result = run("--app", hooks, "migrate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "this inbox has no tables" in result.stderr


def test_migrate_requires_an_inbox(run):
    result = run("migrate")
    assert result.exit_code == 2
    assert "ENVOYOU_INBOX" in result.stderr


HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks(secret="s", inbox="memory:", handoff="auto")


@webhooks.on("user.created")
def welcome(event): ...
"""


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    """A user's module; it stays imported, so that its in-memory inbox outlives one command."""
    name = f"hooks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def spooling(hooks, tmp_path):
    """A module with a spool: its `Webhooks` and the module's name."""
    file = tmp_path / f"{hooks}.py"
    file.write_text(file.read_text().replace('inbox="memory:"', 'inbox="memory:", spool="sqlite:///spool.db"'))
    sys.path.insert(0, str(tmp_path))
    webhooks = importlib.import_module(hooks).webhooks
    yield webhooks, hooks
    webhooks.spool.close()


def unavailable(*arguments, **options):
    raise OSError("the database is unavailable")


def rows(table):
    return {words[0]: words[-1] for line in table.splitlines() if (words := line.rsplit(maxsplit=1))}


def test_pause_and_resume_print_what_is_paused(run, hooks):
    for arguments, output in (
        (("pause", "--type", "user.*"), "Paused: type:user.*.\n"),
        (("pause", "--handler", "welcome"), "Paused: handler:welcome, type:user.*.\n"),
        (("resume", "--type", "user.*"), "Paused: handler:welcome.\n"),
        (("resume", "--handler", "welcome"), "Paused: nothing.\n"),
    ):
        result = run("--app", f"{hooks}:webhooks", *arguments)
        assert (result.exit_code, result.stdout) == (0, output)
    webhooks = sys.modules[hooks].webhooks
    assert isinstance(webhooks, Webhooks)
    assert webhooks.paused == frozenset()
    # Commands do not start a worker.
    assert webhooks._in_process is None


def test_inspecting_requeueing_and_pruning_after_a_failure(run, hooks):
    assert run("--app", hooks, "pause", "--type", "auth.*").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    events = [sample_event(type) for type in ("user.created", "user.deleted", "auth.login")]
    for event in events:
        webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.on("user.deleted", name="fail")(lambda event: 1 / 0)
    assert webhooks.drain() == 2

    shown = [line.split() for line in run("--app", hooks, "stats").stdout.splitlines()]
    # The paused event becomes overdue as the test goes on.
    assert shown.pop(8)[0] == "overdue"
    assert shown == [
        ["received", "1"],
        ["processing", "0"],
        ["processed", "1"],
        ["ignored", "0"],
        ["failed", "1"],
        ["dead", "0"],
        ["total", "3"],
        ["rejected", "0"],
        ["workers", "0"],
        ["paused", "type:auth.*"],
        ["inbox", "memory:"],
    ]
    counted = json.loads(run("--app", hooks, "stats", "--json").stdout)
    assert (counted["by_status"]["failed"], counted["at_least"]) == (1, [])
    assert [(it["kind"], it["live"]) for it in counted["processes"]] == [("drain", True)]
    figures = run("--app", hooks, "stats", "--window", "24h").stdout
    assert "error rate     50.0% of 2 handler calls" in figures
    assert ["fail", "1", "1", "100.0%"] in [line.split()[:4] for line in figures.splitlines()]
    window = json.loads(run("--app", hooks, "stats", "--window", "24h", "--json").stdout)["window"]
    assert (window["error_rate"], window["handlers"]["fail"]["failed"]) == (0.5, 1)
    for window, text in (
        ("1h", "last hour"),
        ("90m", "last 1.5 hours"),
        ("1m", "last minute"),
        ("30d", "last 30 days"),
    ):
        heading, *_ = run("--app", hooks, "stats", "--window", window).stdout.split("\n\n")[1].splitlines()
        assert " ".join(heading.split()) == text
    assert run("--app", hooks, "stats", "--window", "0s").exit_code == 2
    lines = run("--app", hooks, "events", "list", "--type", "user.deleted").stdout.splitlines()
    assert lines[1].split()[:4] == [events[1].id, "user.deleted", "failed", "1"]
    assert len(lines) == 2
    assert [it["id"] for it in json.loads(run("--app", hooks, "events", "list", "--json").stdout)] == [
        it.id for it in events[::-1]
    ]
    assert len(json.loads(run("--app", hooks, "events", "list", "--limit", "1", "--json").stdout)) == 1
    shown = run("--app", hooks, "events", "show", events[1].id).stdout
    assert "fail: ZeroDivisionError: division by zero" in shown
    assert "john.doe@example.com" not in shown
    assert json.loads(run("--app", hooks, "events", "show", events[0].id, "--json").stdout)["status"] == "processed"

    assert run("--app", hooks, "events", "requeue", "--type", "user.deleted").stdout == "Requeued: 1.\n"
    assert webhooks.inbox.get(events[1].id).status == "received"
    assert run("--app", hooks, "prune", "--older-than", "0s", "--yes").stdout == "Deleted: 1 events.\n"
    assert (
        run("--app", hooks, "prune").stdout == "Deleted: 0 events, the payloads of 0, 0 marks, 0 rejected deliveries.\n"
    )
    assert webhooks.inbox.get(events[0].id) is None


def deliver(webhooks, body, drop=()):
    delivery = sign_delivery(body, secret="s")
    headers = {name: value for name, value in delivery.headers.items() if name not in drop}
    return webhooks.receive(WebhookRequest.from_http("POST", headers, body))


def test_rejected_deliveries_are_listed_shown_and_retried(run, hooks):
    empty = run("--app", hooks, "rejected", "list")
    assert (empty.exit_code, empty.stdout.split()) == (0, ["key", "received", "(UTC)", "bytes", "reason", "error"])
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user.created")
    shapeless = b'{"id": "evt_\xc3\xa9", "email": "private@example.com"}'
    assert deliver(webhooks, event.body, drop={"X-EnvoyOU-Event-Type"}).status == 400
    assert deliver(webhooks, shapeless).status == 400
    newest, oldest = webhooks.inbox.list_rejected()

    assert rows(run("--app", hooks, "stats").stdout)["rejected"] == "2"
    assert json.loads(run("--app", hooks, "stats", "--json").stdout)["rejected"] == 2
    lines = run("--app", hooks, "rejected", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(newest.key), str(oldest.key)]
    assert "the header X-EnvoyOU-Event-Type is missing" in lines[2]
    assert len(json.loads(run("--app", hooks, "rejected", "list", "--limit", "1", "--json").stdout)) == 1
    for options in ((), ("--json",)):
        shown = run("--app", hooks, "rejected", "show", str(newest.key), *options).stdout
        assert "invalid_payload" in shown
        assert "private@example.com" not in shown
        assert newest.headers["signature"].decode() not in shown
    assert run("--app", hooks, "rejected", "show", str(newest.key), "--body").stdout_bytes == shapeless

    still = run("--app", hooks, "rejected", "retry", "--all")
    assert (still.exit_code, webhooks.inbox.stats().total) == (1, 0)
    assert f"{oldest.key}: MissingHeaderError: the header X-EnvoyOU-Event-Type is missing" in still.stdout
    assert still.stderr == f"Error: still rejected, or not found: {oldest.key}, {newest.key}\n"
    retried = run("--app", hooks, "rejected", "retry", str(oldest.key), "--signed-headers")
    assert (retried.exit_code, retried.stdout) == (0, f"{oldest.key}: accepted {event.id} (user.created)\n")
    assert webhooks.inbox.get(event.id).status == "received"
    # Commands do not start a worker.
    assert webhooks._in_process is None
    again = run("--app", hooks, "rejected", "retry", str(oldest.key))
    assert (again.exit_code, again.stdout) == (1, f"{oldest.key}: not found\n")


def test_rejected_deliveries_must_be_named(run, hooks):
    for arguments in ((), ("1", "--all")):
        result = run("--app", hooks, "rejected", "retry", *arguments)
        assert result.exit_code == 2
        assert "name the keys of deliveries, or use --all" in result.stderr
    result = run("--app", hooks, "rejected", "show", "1")
    assert (result.exit_code, result.stderr) == (1, "Error: rejected delivery not found: 1\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("30d", 30 * 86_400),
        ("1.5d", 129_600),
        ("90 m", 5_400),
        ("12H", 43_200),
        ("2w", 1_209_600),
        ("5s", 5),
    ],
)
def test_valid_durations(text, seconds):
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1d", "1y", "1d2h", "d", "30", "1.5", "9" * 30 + "d"])
def test_invalid_durations(run, hooks, text):
    with pytest.raises(typer.BadParameter, match="no unit" if text[-1:].isdigit() else "duration"):
        duration(text)
    for option in ("prune", "--older-than"), ("stats", "--max-overdue"):
        assert run("--app", hooks, option[0], f"{option[1]}={text}").exit_code == 2


def test_an_unknown_event_is_reported(run, hooks):
    result = run("--app", hooks, "events", "show", "evt_[bold]")
    assert (result.exit_code, result.stderr) == (1, "Error: event not found: evt_[bold]\n")


def test_events_in_the_spool_are_counted_and_shown(run, spooling, tmp_path):
    webhooks, hooks = spooling
    stored, waiting = sample_event(), sample_event()
    webhooks.inbox.add(NewEvent(stored)).result(20)
    webhooks.spool.add(NewEvent(waiting)).result(20)

    shown = rows(run("--app", hooks, "stats").stdout)
    assert (shown["total"], shown["in the spool"]) == ("1", "1")
    counts = json.loads(run("--app", hooks, "stats", "--json").stdout)
    spool = {"waiting": 1, "location": f"sqlite:///{tmp_path}/spool.db"}
    assert (shown["inbox"], shown["spool"]) == (counts["inbox"], spool["location"])
    assert (counts["total"], counts["inbox"], counts["spool"]) == (1, "memory:", spool)

    for event, in_spool in ((stored, False), (waiting, True)):
        result = run("--app", hooks, "events", "show", event.id)
        assert (result.exit_code, "in the spool" in result.stdout) == (0, in_spool)
        assert json.loads(run("--app", hooks, "events", "show", event.id, "--json").stdout)["in_spool"] is in_spool
    assert run("--app", hooks, "events", "show", "evt_nowhere").stderr == "Error: event not found: evt_nowhere\n"


def test_the_spool_is_shown_while_the_inbox_is_unavailable(run, spooling, monkeypatch):
    webhooks, hooks = spooling
    waiting = sample_event()
    webhooks.spool.add(NewEvent(waiting)).result(20)
    monkeypatch.setattr(webhooks.inbox, "stats", unavailable)
    monkeypatch.setattr(webhooks.inbox, "get", unavailable)
    error = "Error: OSError: the database is unavailable\n"

    result = run("--app", hooks, "stats")
    assert (result.exit_code, rows(result.stdout)["in the spool"], result.stderr) == (1, "1", error)
    assert "total" not in rows(result.stdout)
    result = run("--app", hooks, "stats", "--json")
    assert (result.exit_code, json.loads(result.stdout)["spool"]["waiting"]) == (1, 1)
    assert "total" not in json.loads(result.stdout)
    assert run("--app", hooks, "events", "show", waiting.id).exit_code == 0
    result = run("--app", hooks, "events", "show", "evt_maybe_in_the_inbox")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", error)


def test_the_inbox_is_shown_while_the_spool_is_unavailable(run, spooling, monkeypatch):
    webhooks, hooks = spooling
    stored = sample_event()
    webhooks.inbox.add(NewEvent(stored)).result(20)
    monkeypatch.setattr(webhooks.spool, "stats", unavailable)
    monkeypatch.setattr(webhooks.spool, "get", unavailable)
    result = run("--app", hooks, "stats")
    assert (result.exit_code, rows(result.stdout)["total"]) == (1, "1")
    assert run("--app", hooks, "events", "show", stored.id).exit_code == 0
    monkeypatch.setattr(webhooks.inbox, "stats", unavailable)
    result = run("--app", hooks, "stats")
    assert (result.exit_code, result.stdout) == (1, "")


def test_piped_output_is_not_wrapped_and_marks_its_times_as_utc(run, hooks, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user." + "long_name_" * 10)
    webhooks.on("user.*", name="fail")(lambda event: 1 / 0)
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    head, line = run("--app", hooks, "events", "list").stdout.splitlines()
    assert "received (UTC)" in head
    assert event.id in line
    assert line.endswith("ZeroDivisionError: division by zero")
    shown = run("--app", hooks, "events", "show", event.id).stdout.splitlines()
    assert shown[0].split() == ["event", event.id]
    times = [line.rstrip() for line in shown if line.startswith(("received", "next attempt", "attempt 1"))]
    assert len(times) == 3
    assert all(" UTC" in line for line in times)


def test_one_event_as_json_includes_its_attempts(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    webhooks.on("user.created", name="fail")(lambda event: 1 / 0)
    event = sample_event("user.created")
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    shown = run("--app", hooks, "events", "show", event.id, "--json").stdout
    assert "john.doe@example.com" not in shown
    document = json.loads(shown)
    assert (document["id"], document["status"], document["progress"]) == (event.id, "failed", {"welcome": "done"})
    (attempt,) = document["history"]
    assert attempt["status"] == "failed"
    assert attempt["seconds"] >= 0
    assert datetime.fromisoformat(attempt["ended_at"]).utcoffset() == timedelta(0)
    (failure,) = attempt["failures"]
    assert (failure["handler"], failure["error"]) == ("fail", "ZeroDivisionError: division by zero")
    assert "test_cli.py" in failure["traceback"]
    shown = run("--app", hooks, "events", "show", event.id).stdout
    assert "test_cli.py" in shown
    assert len(shown.splitlines()) > 8


def test_requeue_explains_why_an_event_cannot_be_requeued(run, spooling):
    webhooks, hooks = spooling
    waiting, processed, scrubbed = (sample_event("user.deleted") for _ in range(3))

    @webhooks.on("user.deleted", name="fail")
    def fail(event):
        if event.id != processed.id:
            raise PermanentError("no")

    for event in (processed, scrubbed):
        webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    webhooks.spool.add(NewEvent(waiting)).result(20)
    webhooks.inbox.scrub(timedelta(0), (Status.DEAD,))
    assert webhooks.inbox.get(scrubbed.id).scrubbed_at is not None
    for arguments, error in (
        (("evt_typo",), "Error: cannot requeue evt_typo: event not found\n"),
        (
            (waiting.id,),
            f"Error: cannot requeue {waiting.id}: it is still in the spool\n",
        ),
        ((processed.id,), f"Error: cannot requeue {processed.id}: its status is processed\n"),
        ((scrubbed.id,), f"Error: cannot requeue {scrubbed.id}: its payload was deleted\n"),
    ):
        result = run("--app", hooks, "events", "requeue", *arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", error)


def test_requeue_applies_the_filters_to_a_single_event(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("shop.opened")
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    result = run("--app", hooks, "events", "requeue", event.id, "--status", "dead")
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot requeue {event.id}: its status is ignored, and its type is shop.opened\n"
    assert run("--app", hooks, "events", "requeue", event.id, "--status", "ignored").stdout == "Requeued: 1.\n"
    assert run("--app", hooks, "events", "requeue", "--status", "dead").stdout == "Requeued: 0.\n"


def test_trigger_accepts_only_http_urls(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    result = run("trigger", "--to", "file:///etc/passwd")
    assert result.exit_code == 1
    assert "the URL must be one such as http://" in result.stderr
    monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
    assert "--secret-file" in run("trigger", "--to", "http://127.0.0.1:1/").stderr


@contextmanager
def http_server(status, headers=(), body=b"<h1>Log in</h1>"):
    """Serve `status` to POST and 200 to GET; yield the URL and the list of requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(("POST", self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.respond(status, headers)

        def do_GET(self):
            requests.append(("GET", self.headers, b""))
            self.respond(200)

        def respond(self, status, headers=()):
            self.send_response(status)
            for header in headers:
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args): ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhooks/envoyou", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_trigger_does_not_follow_a_redirect_and_exits_with_1(run, monkeypatch, status):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    with http_server(status, [("Location", "/login")]) as (url, requests):
        result = run("trigger", "--to", url)
    assert [method for method, _, _ in requests] == ["POST"]
    assert result.exit_code == 1
    assert result.stdout.endswith(f": {status} redirect to /login; the platform does not follow redirects\n")


def test_trigger_shows_other_responses_unchanged(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    for status, code in ((200, 0), (300, 1), (404, 1)):
        with http_server(status) as (url, _):
            result = run("trigger", "--to", url)
        assert result.exit_code == code
        assert result.stdout.endswith(f": {status} <h1>Log in</h1>\n")


def test_trigger_with_an_endpoint_id_and_an_object(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    with http_server(200) as (url, requests):
        result = run("trigger", "shop.opened", "--to", url, "--webhook-id", "wh_2", "--data", '{"id": "shop_1"}')
    assert result.exit_code == 0
    ((_, headers, body),) = requests
    assert headers["X-EnvoyOU-Webhook-ID"] == "wh_2"
    event = verify(dict(headers.items()), body, secret="whsec_test")
    assert (event.webhook_id, event.type, dict(event.data.object)) == ("wh_2", "shop.opened", {"id": "shop_1"})


def test_trigger_signs_with_the_newest_secret_of_the_environment(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_of_this_year,whsec_of_last_year")
    with http_server(200) as (url, requests):
        assert run("trigger", "--to", url).exit_code == 0
        (tmp_path / "secrets").write_text("whsec_in_a_file\n")
        (tmp_path / "given").write_text("whsec_given\n")
        monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET_FILE", str(tmp_path / "secrets"))
        both = run("trigger", "--to", url)
        monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
        assert run("trigger", "--to", url).exit_code == 0
        assert run("trigger", "--to", url, "--secret-file", str(tmp_path / "given")).exit_code == 0
        assert run("trigger", "--to", url, "--secret-file", "-", input="whsec_typed\n").exit_code == 0
    assert both.exit_code == 1
    assert "either ENVOYOU_WEBHOOK_SECRET or ENVOYOU_WEBHOOK_SECRET_FILE" in both.stderr
    for (_, headers, body), secret in zip(
        requests, ("whsec_of_this_year", "whsec_in_a_file", "whsec_given", "whsec_typed"), strict=True
    ):
        assert verify(dict(headers.items()), body, secret=secret)


@pytest.mark.parametrize(("data", "error"), [("{", "invalid JSON"), ("[1]", "expected a JSON object")])
def test_invalid_data_is_a_usage_error(run, data, error):
    result = run("trigger", "--to", "http://127.0.0.1:1/", "--data", data)
    assert result.exit_code == 2
    assert error in result.stderr


def test_an_invalid_url_is_a_usage_error(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    assert run("trigger", "--to", "http://[").exit_code == 2
    assert run("trigger").exit_code == 2


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("options", [(), ("--type", "user.*", "--handler", "welcome")])
def test_pause_requires_either_a_type_or_a_handler(run, hooks, command, options):
    result = run("--app", hooks, command, *options)
    assert result.exit_code == 2
    assert "either a type or a handler" in result.stderr


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pause_reports_an_error_in_one_line(run, hooks, command):
    result = run("--app", hooks, command, "--type", "user*")
    assert result.exit_code == 2
    assert "invalid event type 'user*'" in result.stderr
    result = run("--app", "nowhere:webhooks", command, "--type", "user.*")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot import 'nowhere:webhooks': there is no module 'nowhere'")
    assert len(result.stderr.splitlines()) == 1


def test_an_error_of_the_inbox_is_reported_without_its_password(run, hooks, monkeypatch):
    def fail(subject):
        raise OSError("postgresql://app:hunter2@db is unavailable")

    assert run("--app", hooks, "pause", "--type", "user.*").exit_code == 0
    monkeypatch.setattr(sys.modules[hooks].webhooks.inbox, "pause", fail)
    result = run("--app", hooks, "pause", "--type", "auth.*")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: OSError: postgresql://app:[redacted]@db is unavailable\n"


def test_a_value_error_unrelated_to_arguments_is_not_a_usage_error(run, hooks, monkeypatch):
    def fail():
        raise ValueError("unknown status")

    assert run("--app", hooks, "stats").exit_code == 0
    monkeypatch.setattr(sys.modules[hooks].webhooks.inbox, "stats", fail)
    result = run("--app", hooks, "stats")
    assert result.exit_code == 1
    assert result.stderr == "Error: ValueError: unknown status\n"


def test_help_is_shown_without_a_command(run):
    assert "migrate" in run().output


def test_main_runs_the_application(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["envoyou", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "migrate" in capsys.readouterr().out


def test_main_names_the_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "envoyou_core.cli.command_line", None)
    with pytest.raises(SystemExit, match=r"envoyou-webhooks\[cli,sql\]"):
        cli.main()


def test_counts_that_are_lower_bounds_are_marked(run, monkeypatch, hooks, sqlite_url):
    monkeypatch.setattr("envoyou_core.inbox.sql.records.COUNTED", 2)
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    monkeypatch.setattr(webhooks, "inbox", SqlInbox(sqlite_url))
    for _ in range(3):
        webhooks.inbox.add(NewEvent(sample_event())).result(20)
    for claim in webhooks.inbox.claim(10, 60):
        webhooks.inbox.settle(claim, Settlement(Status.PROCESSED, 1))
    rows = dict(line.split()[:2] for line in run("--app", hooks, "stats").stdout.splitlines())
    assert (rows["processed"], rows["total"], rows["dead"]) == ("2+", "2+", "0")
    assert json.loads(run("--app", hooks, "stats", "--json").stdout)["at_least"] == ["processed"]
    rows = dict(line.split()[:2] for line in run("--app", hooks, "stats", "--exact").stdout.splitlines())
    assert (rows["processed"], rows["total"]) == ("3", "3")
    webhooks.inbox.close()


def test_an_unreadable_event_is_shown_as_such():
    reason = "the body is not UTF-8"
    inbox = MemoryInbox()
    inbox.add(NewEvent(sample_event())).result(20)
    record = replace(inbox.list()[0], unreadable=reason)
    assert event_as_json(record)["unreadable"] == reason
    shown = StringIO()
    Console(file=shown, width=300).print(events_table([record]), event_details(record))
    assert shown.getvalue().count(reason) == 2


def test_kept_headers_are_shown_by_name_and_revealed_on_request(run, hooks, tmp_path):
    sys.path.insert(0, str(tmp_path))
    webhooks = importlib.import_module(hooks).webhooks
    event = sample_event()
    webhooks.inbox.add(NewEvent(event, headers={"X-Region": "eu-1"})).result(20)
    show = ("--app", hooks, "events", "show", event.id)
    for arguments, value in (((), "***"), (("--reveal",), "eu-1")):
        assert f"X-Region: {value} " in run(*show, *arguments).stdout
        assert json.loads(run(*show, "--json", *arguments).stdout)["headers"] == {"X-Region": value}


# The application


def test_the_application_is_named_by_the_option_else_the_environment_else_pyproject(run, hooks, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "pyproject.toml").write_text(f'[tool.envoyou]\napp = "{hooks}:webhooks"\n')
    monkeypatch.chdir(inside)
    assert run("stats").exit_code == 0
    monkeypatch.setenv("ENVOYOU_APP", "from_environment")
    assert "'from_environment'" in run("stats").stderr
    assert "'from_option'" in run("--app", "from_option", "stats").stderr
    monkeypatch.delenv("ENVOYOU_APP")
    (inside / "pyproject.toml").write_text("[tool.other]\n")
    result = run("stats")
    assert result.exit_code == 2
    assert all(how in result.stderr for how in ("--app", "ENVOYOU_APP", "pyproject.toml"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('webhook_secret = "whsec_committed"', "looks like a secret"),
        ('ap = "hooks"', "did you mean 'app'?"),
        ('inbox = "sqlite:///x"', "known settings: app"),
        ("app = 5", "must be text"),
        ("app = ", "cannot read"),
    ],
)
def test_a_wrong_setting_in_pyproject_is_an_error(run, tmp_path, monkeypatch, written, said):
    (tmp_path / "pyproject.toml").write_text(f"[tool.envoyou]\n{written}\n")
    monkeypatch.chdir(tmp_path)
    result = run("stats")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{tmp_path}/pyproject.toml" in result.stderr
    assert said in result.stderr
    assert "whsec_committed" not in result.stderr


def test_an_application_that_cannot_be_imported_shows_its_own_traceback(run, hooks, tmp_path):
    (tmp_path / f"{hooks}.py").write_text("from urllib.parse import urlsplit\n\nurlsplit('http://[')\n")
    result = run("--app", hooks, "stats")
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert lines[:2] == ["Traceback (most recent call last):", f'  File "{tmp_path}/{hooks}.py", line 3, in <module>']
    assert lines[-2] == "ValueError: Invalid IPv6 URL"
    assert lines[-1] == f"Error: cannot import the application {hooks!r}; its traceback is above"
    assert "importlib" not in result.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import a_library_that_is_missing", "No module named 'a_library_that_is_missing'"),
        ("a syntax error", "SyntaxError"),
        ("webhooks = 1", "expected a Webhooks object at"),
        ("", "has no 'webhooks'"),
    ],
)
def test_an_application_that_is_none_is_an_error(run, hooks, tmp_path, source, said):
    (tmp_path / f"{hooks}.py").write_text(source)
    result = run("--app", hooks, "stats")
    assert result.exit_code == 1
    assert said in result.stderr


# Events


def test_an_invalid_choice_names_the_values(run, hooks):
    for command, values in (("list", "received, processing"), ("requeue", "ignored, failed, dead; got 'processed'")):
        result = run("--app", hooks, "events", command, "--status", "processed" if command == "requeue" else "foo")
        assert result.exit_code == 2
        assert values in result.stderr


def test_a_payload_is_masked_unless_it_is_to_be_revealed(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user.created", object={"id": "user_1", "email": "ann@example.com", "age": 40, "ok": True})
    webhooks.inbox.add(NewEvent(event)).result(20)
    show = ("--app", hooks, "events", "show", event.id)
    masked = run(*show, "--payload").stdout
    assert '"id": "user_1"' in masked
    assert '"email": "***"' in masked
    assert "40" not in masked.rpartition("{")[2]
    assert '"email": "ann@example.com"' in run(*show, "--payload", "--reveal").stdout
    documents = [json.loads(run(*show, "--json", *options).stdout) for options in ((), ("--payload",), ("--reveal",))]
    assert [document.get("payload", {}).get("data", {}).get("object") for document in documents] == [
        None,
        {"id": "user_1", "email": "***", "age": "***", "ok": True},
        {"id": "user_1", "email": "ann@example.com", "age": 40, "ok": True},
    ]


def test_ids_to_requeue_are_read_from_standard_input(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    events = [sample_event("shop.opened") for _ in range(3)]
    for event in events:
        webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    ids = [event.id for event in events[:2]]
    result = run("--app", hooks, "events", "requeue", "-", input="\n".join(ids))
    assert (result.exit_code, result.stdout) == (0, "Requeued: 2.\n")
    assert run("--app", hooks, "events", "requeue", "-", input="").stdout == "Requeued: 0.\n"
    assert webhooks.inbox.get(events[2].id).status == "ignored"
    result = run("--app", hooks, "events", "requeue", events[2].id, "evt_1", "evt_2", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"requeued": 1, "refused": ["evt_1", "evt_2"]})
    assert result.stderr.count("event not found") == 2


def test_a_handler_that_was_removed_is_given_up(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    inbox = sys.modules[hooks].webhooks.inbox
    owing, other = sample_event("user.created"), sample_event("user.created")
    for event, owed in ((owing, {"old": True}), (other, {})):
        inbox.add(NewEvent(event)).result(20)
        (claim,) = inbox.claim(1, 60)
        inbox.settle(claim, Settlement(Status.DEAD, 1, owed=owed))
    show = ("--app", hooks, "events", "show", owing.id)
    assert "owes" in run(*show).stdout
    assert json.loads(run(*show, "--json").stdout)["owed"] == {"old": True}
    requeue = ("--app", hooks, "events", "requeue")
    refused = run(*requeue, other.id, "--drop-handler", "old")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: cannot requeue {other.id}: it does not owe the handler old\n",
    )
    assert run(*requeue, "--drop-handler", "old").stdout == "Requeued: 1.\n"
    assert inbox.get(owing.id).progress == {"old": "dropped"}


def test_what_cannot_be_undone_is_confirmed(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user.created")
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    for command in (("events", "erase", event.object_id), ("prune", "--older-than", "0s")):
        result = run("--app", hooks, *command)
        assert result.exit_code == 2
        assert "--yes" in result.stderr
    assert webhooks.inbox.get(event.id).scrubbed_at is None
    dry = run("--app", hooks, "prune", "--older-than", "0s", "--dry-run")
    assert dry.stdout == "Would be deleted: 1 events.\n"
    assert run("--app", hooks, "events", "erase", event.object_id, "--yes").stdout == "Erased: 1 events.\n"
    assert webhooks.inbox.get(event.id).scrubbed_at is not None


def test_changes_are_followed_until_ctrl_c(run, hooks, monkeypatch):
    assert run("--app", hooks, "stats").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    events = [sample_event(type) for type in ("user.created", "user.created", "shop.opened")]
    webhooks.inbox.add(NewEvent(events[0])).result(20)

    acts = iter(range(9))

    def act(seconds):
        match next(acts):
            case 0:
                for event in events[1:]:
                    webhooks.inbox.add(NewEvent(event)).result(20)
            case 1:
                webhooks.drain()
            case 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", act)
    result = run("--app", hooks, "events", "tail", "--type", "user.*", "--json")
    assert (result.exit_code, result.stderr) == (130, "")
    changes = [(line["id"], line["status"]) for line in map(json.loads, result.stdout.splitlines())]
    assert changes == [
        (events[0].id, "received"),
        (events[1].id, "received"),
        (events[0].id, "processed"),
        (events[1].id, "processed"),
    ]


def test_an_event_is_followed_beyond_the_newest_ones_until_it_is_finished(monkeypatch):
    monkeypatch.setattr("envoyou_core.cli.tail.WINDOW", 2)
    monkeypatch.setattr("envoyou_core.cli.tail.MAX_WINDOW", 4)
    inbox = MemoryInbox()
    tail = Tail(inbox)
    assert tail.look() == []
    first = [sample_event() for _ in range(2)]
    for event in first:
        inbox.add(NewEvent(event)).result(20)
    assert [record.event.id for record in tail.look()] == [event.id for event in first]
    for event in (later := [sample_event() for _ in range(3)]):
        inbox.add(NewEvent(event)).result(20)
    assert [record.event.id for record in tail.look()] == [event.id for event in later]
    (claim,) = inbox.claim(1, 60)
    looks = [*tail.look(), *tail.look()]
    assert [(record.event.id, record.status) for record in looks] == [(first[0].id, "processing")]
    inbox.settle(claim, Settlement(Status.PROCESSED, 1))
    looks = [record for _ in range(3) for record in tail.look()]
    assert [record.status for record in looks] == ["processed"]
    assert not tail.has_gap
    for _ in range(5):
        inbox.add(NewEvent(sample_event())).result(20)
    assert len(tail.look()) == 4
    assert tail.has_gap


# Processing


def test_handlers_are_shown_with_what_pauses_them(run, hooks):
    assert run("--app", hooks, "pause", "--type", "user.*").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    webhooks.on("auth.*", "api.x", name="audit", ordered=True, concurrency=2)(lambda event: None)
    webhooks.pause(handler="audit")
    lines = run("--app", hooks, "handlers").stdout.splitlines()
    assert lines[1].split() == ["welcome", "user.created", "sync", "type:user.*"]
    assert lines[2].split() == ["audit", "auth.*,", "api.x", "sync", "ordered", "2", "at", "once", "handler:audit"]
    welcome, audit = json.loads(run("--app", hooks, "handlers", "--json").stdout)
    assert (welcome["paused"], audit["paused"]) == (["type:user.*"], ["handler:audit"])
    assert (audit["types"], audit["ordered"], audit["concurrency"]) == (["auth.*", "api.x"], True, 2)


def test_processes_are_shown(run, hooks):
    assert json.loads(run("--app", hooks, "workers", "--json").stdout) == []
    webhooks = sys.modules[hooks].webhooks
    webhooks.inbox.add(NewEvent(sample_event())).result(20)
    webhooks.drain()
    (process,) = json.loads(run("--app", hooks, "workers", "--json").stdout)
    assert (process["kind"], process["pid"], process["live"]) == ("drain", os.getpid(), True)
    assert process["handlers"] == {"welcome": ["user.created"]}
    assert f" {os.getpid()} " in run("--app", hooks, "workers").stdout


def test_alerts_are_listed(run, hooks):
    assert json.loads(run("--app", hooks, "alerts", "list", "--json").stdout) == []
    webhooks = sys.modules[hooks].webhooks
    fired_at = datetime(2026, 7, 15, 12, tzinfo=UTC).timestamp()
    states = AlertStates({"disk": RuleState(fired_at=fired_at, value=0.97)}, host="web-1\x1b[2J")
    webhooks.inbox.claim_alerts("token", 60.0, scope="web-1")
    webhooks.inbox.store_alerts("token", states.encode(), 60.0, scope="web-1")
    assert json.loads(run("--app", hooks, "alerts", "list", "--json").stdout) == [
        {
            "rule": "disk",
            "state": "firing",
            "host": "web-1\x1b[2J",
            "since": "2026-07-15T12:00:00+00:00",
            "value": 0.97,
        }
    ]
    _, line = run("--app", hooks, "alerts", "list").stdout.splitlines()
    assert line.split()[:5] == ["disk", "firing", "2026-07-15", "12:00:00", "0.97"]
    assert "\x1b[2J" not in line


def test_a_limit_that_is_exceeded_is_a_failure(run, hooks, monkeypatch):
    assert run("--app", hooks, "stats").exit_code == 0
    inbox = sys.modules[hooks].webhooks.inbox
    counts = replace(inbox.stats(), overdue=61.0, waiting={"old": 2})
    monkeypatch.setattr(inbox, "stats", lambda: replace(counts, by_status={**counts.by_status, Status.DEAD: 3}))
    for limits, code in (
        (("--max-overdue", "2m", "--max-dead", "3", "--max-waiting", "2"), 0),
        (("--max-overdue", "1m"), 1),
        (("--max-dead", "2"), 1),
        (("--max-waiting", "0"), 1),
    ):
        result = run("--app", hooks, "stats", *limits)
        assert result.exit_code == code
        assert ("more than" in result.stderr) == bool(code)
        assert "rejected" in result.stdout


def test_a_worker_without_handlers_does_not_start(run, hooks, tmp_path):
    (tmp_path / f"{hooks}.py").write_text(HOOKS.partition("@")[0])
    result = run("--app", hooks, "worker")
    assert result.exit_code == 1
    assert "Error: cannot start the worker: " in result.stderr
    assert "--reload" in run("--app", hooks, "worker", "--reload").stderr


def test_a_worker_drains_for_cron(run, hooks):
    assert run("--app", hooks, "stats").exit_code == 0
    sys.modules[hooks].webhooks.inbox.add(NewEvent(sample_event("user.created"))).result(20)
    result = run("--app", hooks, "worker", "--drain")
    assert (result.exit_code, result.stdout) == (0, "Settled 1 event.\n")


@pytest.mark.parametrize("arguments", [["worker", "--drain"], ["handlers"]])
def test_without_a_handler_a_command_that_needs_one_fails(run, hooks, tmp_path, arguments):
    (tmp_path / f"{hooks}.py").write_text(
        "from envoyou_core import Webhooks\nwebhooks = Webhooks(secret='whsec_test')\n"
    )
    result = run("--app", hooks, *arguments)
    assert result.exit_code == 1
    assert "no handler is registered" in result.stderr


# The command line


def test_a_new_secret_is_random_and_long(run):
    new, other = (run("secret", "new").stdout for _ in range(2))
    assert new != other
    assert new.startswith("whsec_")
    assert len(new) == len("whsec_") + 43 + 1


def test_the_version_is_printed(run):
    assert run("--version").stdout == f"envoyou-webhooks {metadata.version('envoyou-webhooks')}\n"


def test_exit_codes_and_completion_are_in_the_help(run):
    shown = run("--help").output
    assert "Exit codes: 0 done" in shown
    assert "--install-completion" in shown


@pytest.mark.parametrize("arguments", [["events", "list"], ["--help"], ["events", "--help"]])
def test_a_closed_pipe_is_silent(hooks, tmp_path, arguments):
    (tmp_path / f"{hooks}.py").write_text(HOOKS)
    program = "from envoyou_core.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-c", program, "--app", hooks, *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_no_color_vanishes_on_black_or_on_white():
    """The contrast that WCAG requires of large text and of symbols."""

    def luminance(channels):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colors = [*tables.COLORS.values(), *doctor.STYLES.values(), *developing.COLORS.values(), "cyan"]
    console = cli_output._Console(color_system="256")
    for name in {*colors, *cli_output.COLORS} - {"dim"}:
        color = console.get_style(name).color
        if color is None or color.name == "default":
            continue
        brightness = luminance([value / 255 for value in color.get_truecolor()])
        assert color.number >= 16, f"the terminal's own color {name}"
        assert min(1.05 / (brightness + 0.05), (brightness + 0.05) / 0.05) >= 3, name
