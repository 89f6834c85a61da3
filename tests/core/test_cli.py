"""Tests of the command `envoyou`, run in this process; the tests of the SQL inbox run it in a process of its own."""

import importlib
import json
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from envoyou_core import PermanentError, WebhookRequest, Webhooks, cli, verify
from envoyou_core.cli.commands import app
from envoyou_core.cli.tables import event_details, events_table
from envoyou_core.cli.values import duration, event_as_json
from envoyou_core.inbox import NewEvent, Settlement, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event, sign_delivery


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ENVOYOU_INBOX", raising=False)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_migrate_is_idempotent(run, sqlite_url):
    for _ in range(2):
        result = run("migrate", "--inbox", sqlite_url)
        assert (result.exit_code, result.stdout) == (0, "The inbox is ready (schema 4).\n")
    inbox = SqlInbox(sqlite_url)
    assert inbox.stats().total == 0
    inbox.close()


def test_migrate_reports_a_failure_and_exits_with_1(run, tmp_path):
    result = run("migrate", "--inbox", f"sqlite:///{tmp_path}/nowhere/inbox.db")
    assert result.exit_code == 1
    assert f"the directory {tmp_path}/nowhere does not exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["sqlite:///inbox.db", "memory:"])
def test_migrate_without_sqlalchemy_prints_one_line(run, monkeypatch, url):
    for module in ("envoyou_core.inbox.sql.inbox", "envoyou_core.inbox.sql.migrations"):
        monkeypatch.setitem(sys.modules, module, None)
    result = run("migrate", "--inbox", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot migrate the inbox: ")
    assert len(result.stderr.splitlines()) == 1
    if url != "memory:":
        assert "pip install 'envoyou-webhooks[sql]'" in result.stderr


def test_migrate_rejects_an_inbox_without_tables(run):
    result = run("migrate", "--inbox", "memory:")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "this inbox has no tables" in result.stderr


def test_migrate_requires_an_inbox(run):
    result = run("migrate")
    assert result.exit_code == 2
    assert "--inbox" in result.stderr


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
        (("pause", f"{hooks}:webhooks", "--type", "user.*"), "Paused: type:user.*.\n"),
        (("pause", hooks, "--handler", "welcome"), "Paused: handler:welcome, type:user.*.\n"),
        (("resume", f"{hooks}:webhooks", "--type", "user.*"), "Paused: handler:welcome.\n"),
        (("resume", f"{hooks}:webhooks", "--handler", "welcome"), "Paused: nothing.\n"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (0, output)
    webhooks = sys.modules[hooks].webhooks
    assert isinstance(webhooks, Webhooks)
    assert webhooks.paused == frozenset()
    # Commands do not start a worker.
    assert webhooks._in_process is None


def test_inspecting_requeueing_and_pruning_after_a_failure(run, hooks):
    assert run("pause", hooks, "--type", "auth.*").exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    events = [sample_event(type) for type in ("user.created", "user.deleted", "auth.login")]
    for event in events:
        webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.on("user.deleted", name="fail")(lambda event: 1 / 0)
    assert webhooks.drain() == 2

    shown = [line.split() for line in run("stats", hooks).stdout.splitlines()]
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
        ["paused", "type:auth.*"],
        ["inbox", "memory:"],
    ]
    counted = json.loads(run("stats", hooks, "--json").stdout)
    assert (counted["by_status"]["failed"], counted["at_least"]) == (1, [])
    lines = run("events", hooks, "--type", "user.deleted").stdout.splitlines()
    assert lines[1].split()[:4] == [events[1].id, "user.deleted", "failed", "1"]
    assert len(lines) == 2
    assert [it["id"] for it in json.loads(run("events", hooks, "--json").stdout)] == [it.id for it in events[::-1]]
    assert len(json.loads(run("events", hooks, "--limit", "1", "--json").stdout)) == 1
    shown = run("events", hooks, events[1].id).stdout
    assert "fail: ZeroDivisionError: division by zero" in shown
    assert "john.doe@example.com" not in shown
    assert json.loads(run("events", hooks, events[0].id, "--json").stdout)["status"] == "processed"

    assert run("requeue", hooks, "--type", "user.deleted").stdout == "Requeued: 1.\n"
    assert webhooks.inbox.get(events[1].id).status == "received"
    assert run("prune", hooks, "--older-than", "0").stdout == "Deleted: 1 events.\n"
    assert run("prune", hooks).stdout == "Deleted: 0 events, the payloads of 0, 0 marks, 0 rejected deliveries.\n"
    assert webhooks.inbox.get(events[0].id) is None


def deliver(webhooks, body, drop=()):
    delivery = sign_delivery(body, secret="s")
    headers = {name: value for name, value in delivery.headers.items() if name not in drop}
    return webhooks.receive(WebhookRequest.from_http("POST", headers, body))


def test_rejected_deliveries_are_listed_shown_and_retried(run, hooks):
    empty = run("rejected", "list", hooks)
    assert (empty.exit_code, empty.stdout.split()) == (0, ["key", "received", "(UTC)", "bytes", "reason", "error"])
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user.created")
    shapeless = b'{"id": "evt_\xc3\xa9", "email": "private@example.com"}'
    assert deliver(webhooks, event.body, drop={"X-EnvoyOU-Event-Type"}).status == 400
    assert deliver(webhooks, shapeless).status == 400
    newest, oldest = webhooks.inbox.list_rejected()

    assert rows(run("stats", hooks).stdout)["rejected"] == "2"
    assert json.loads(run("stats", hooks, "--json").stdout)["rejected"] == 2
    lines = run("rejected", "list", hooks).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [str(newest.key), str(oldest.key)]
    assert "the header X-EnvoyOU-Event-Type is missing" in lines[2]
    assert len(json.loads(run("rejected", "list", hooks, "--limit", "1", "--json").stdout)) == 1
    for options in ((), ("--json",)):
        shown = run("rejected", "show", hooks, str(newest.key), *options).stdout
        assert "invalid_payload" in shown
        assert "private@example.com" not in shown
        assert newest.headers["signature"].decode() not in shown
    assert run("rejected", "show", hooks, str(newest.key), "--body").stdout_bytes == shapeless

    still = run("rejected", "retry", hooks, "--all")
    assert (still.exit_code, webhooks.inbox.stats().total) == (1, 0)
    assert f"{oldest.key}: MissingHeaderError: the header X-EnvoyOU-Event-Type is missing" in still.stdout
    assert still.stderr == f"Error: still rejected, or not found: {oldest.key}, {newest.key}\n"
    retried = run("rejected", "retry", hooks, str(oldest.key), "--signed-headers")
    assert (retried.exit_code, retried.stdout) == (0, f"{oldest.key}: accepted {event.id} (user.created)\n")
    assert webhooks.inbox.get(event.id).status == "received"
    # Commands do not start a worker.
    assert webhooks._in_process is None
    again = run("rejected", "retry", hooks, str(oldest.key))
    assert (again.exit_code, again.stdout) == (1, f"{oldest.key}: not found\n")


def test_rejected_deliveries_must_be_named(run, hooks):
    for arguments in ((), ("1", "--all")):
        result = run("rejected", "retry", hooks, *arguments)
        assert result.exit_code == 2
        assert "name the keys of deliveries, or use --all" in result.stderr
    result = run("rejected", "show", hooks, "1")
    assert (result.exit_code, result.stderr) == (1, "Error: rejected delivery not found: 1\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("30", 30 * 86_400), ("1.5d", 129_600), ("90 m", 5_400), ("12H", 43_200), ("2w", 1_209_600), ("5s", 5)],
)
def test_valid_durations(text, seconds):
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1d", "1y", "1d2h", "d", "9" * 30])
def test_invalid_durations(run, hooks, text):
    with pytest.raises(ValueError, match="duration"):
        duration(text)
    assert run("prune", hooks, f"--older-than={text}").exit_code == 2


def test_an_unknown_event_is_reported(run, hooks):
    result = run("events", hooks, "evt_[bold]")
    assert (result.exit_code, result.stderr) == (1, "Error: event not found: evt_[bold]\n")


def test_events_in_the_spool_are_counted_and_shown(run, spooling, tmp_path):
    webhooks, hooks = spooling
    stored, waiting = sample_event(), sample_event()
    webhooks.inbox.add(NewEvent(stored)).result(20)
    webhooks.spool.add(NewEvent(waiting)).result(20)

    shown = rows(run("stats", hooks).stdout)
    assert (shown["total"], shown["in the spool"]) == ("1", "1")
    counts = json.loads(run("stats", hooks, "--json").stdout)
    spool = {"waiting": 1, "location": f"sqlite:///{tmp_path}/spool.db"}
    assert (shown["inbox"], shown["spool"]) == (counts["inbox"], spool["location"])
    assert (counts["total"], counts["inbox"], counts["spool"]) == (1, "memory:", spool)

    for event, in_spool in ((stored, False), (waiting, True)):
        result = run("events", hooks, event.id)
        assert (result.exit_code, "in the spool" in result.stdout) == (0, in_spool)
        assert json.loads(run("events", hooks, event.id, "--json").stdout)["in_spool"] is in_spool
    assert run("events", hooks, "evt_nowhere").stderr == "Error: event not found: evt_nowhere\n"


def test_the_spool_is_shown_while_the_inbox_is_unavailable(run, spooling, monkeypatch):
    webhooks, hooks = spooling
    waiting = sample_event()
    webhooks.spool.add(NewEvent(waiting)).result(20)
    monkeypatch.setattr(webhooks.inbox, "stats", unavailable)
    monkeypatch.setattr(webhooks.inbox, "get", unavailable)
    error = "Error: OSError: the database is unavailable\n"

    result = run("stats", hooks)
    assert (result.exit_code, rows(result.stdout)["in the spool"], result.stderr) == (1, "1", error)
    assert "total" not in rows(result.stdout)
    result = run("stats", hooks, "--json")
    assert (result.exit_code, json.loads(result.stdout)["spool"]["waiting"]) == (1, 1)
    assert "total" not in json.loads(result.stdout)
    assert run("events", hooks, waiting.id).exit_code == 0
    result = run("events", hooks, "evt_maybe_in_the_inbox")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", error)


def test_the_inbox_is_shown_while_the_spool_is_unavailable(run, spooling, monkeypatch):
    webhooks, hooks = spooling
    stored = sample_event()
    webhooks.inbox.add(NewEvent(stored)).result(20)
    monkeypatch.setattr(webhooks.spool, "stats", unavailable)
    monkeypatch.setattr(webhooks.spool, "get", unavailable)
    result = run("stats", hooks)
    assert (result.exit_code, rows(result.stdout)["total"]) == (1, "1")
    assert run("events", hooks, stored.id).exit_code == 0
    monkeypatch.setattr(webhooks.inbox, "stats", unavailable)
    result = run("stats", hooks)
    assert (result.exit_code, result.stdout) == (1, "")


def test_piped_output_is_not_wrapped_and_marks_its_times_as_utc(run, hooks, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert run("stats", hooks).exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("user." + "long_name_" * 10)
    webhooks.on("user.*", name="fail")(lambda event: 1 / 0)
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    head, line = run("events", hooks).stdout.splitlines()
    assert "received (UTC)" in head
    assert event.id in line
    assert line.endswith("ZeroDivisionError: division by zero")
    shown = run("events", hooks, event.id).stdout.splitlines()
    assert shown[0].split() == ["event", event.id]
    times = [line.rstrip() for line in shown if line.startswith(("received", "next attempt", "attempt 1"))]
    assert len(times) == 3
    assert all(" UTC" in line for line in times)


def test_one_event_as_json_includes_its_attempts(run, hooks):
    assert run("stats", hooks).exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    webhooks.on("user.created", name="fail")(lambda event: 1 / 0)
    event = sample_event("user.created")
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    shown = run("events", hooks, event.id, "--json").stdout
    assert "john.doe@example.com" not in shown
    document = json.loads(shown)
    assert (document["id"], document["status"], document["progress"]) == (event.id, "failed", {"welcome": "done"})
    (attempt,) = document["history"]
    assert attempt["status"] == "failed"
    assert attempt["seconds"] >= 0
    assert datetime.fromisoformat(attempt["ended_at"]).utcoffset() == timedelta(0)
    assert attempt["failures"] == [{"handler": "fail", "error": "ZeroDivisionError: division by zero"}]


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
        (("evt_typo",), "Error: event not found: evt_typo\n"),
        (
            (waiting.id,),
            f"Error: cannot requeue {waiting.id}: it is still in the spool\n",
        ),
        ((processed.id,), f"Error: cannot requeue {processed.id}: its status is processed\n"),
        ((scrubbed.id,), f"Error: cannot requeue {scrubbed.id}: its payload was deleted\n"),
    ):
        result = run("requeue", hooks, *arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", error)


def test_requeue_applies_the_filters_to_a_single_event(run, hooks):
    assert run("stats", hooks).exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    event = sample_event("shop.opened")
    webhooks.inbox.add(NewEvent(event)).result(20)
    webhooks.drain()
    result = run("requeue", hooks, event.id, "--status", "dead")
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot requeue {event.id}: its status is ignored, and its type is shop.opened\n"
    assert run("requeue", hooks, event.id, "--status", "ignored").stdout == "Requeued: 1.\n"
    assert run("requeue", hooks, "--status", "dead").stdout == "Requeued: 0.\n"


def test_send_accepts_only_http_urls(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    result = run("send", "file:///etc/passwd")
    assert result.exit_code == 1
    assert "the URL must be one such as http://" in result.stderr
    monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
    assert "--secret" in run("send", "http://127.0.0.1:1/").stderr


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
def test_send_does_not_follow_a_redirect_and_exits_with_1(run, monkeypatch, status):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    with http_server(status, [("Location", "/login")]) as (url, requests):
        result = run("send", url)
    assert [method for method, _, _ in requests] == ["POST"]
    assert result.exit_code == 1
    assert result.stdout.endswith(f": {status} redirect to /login; the platform does not follow redirects\n")


def test_send_shows_other_responses_unchanged(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    for status, code in ((200, 0), (300, 1), (404, 1)):
        with http_server(status) as (url, _):
            result = run("send", url)
        assert result.exit_code == code
        assert result.stdout.endswith(f": {status} <h1>Log in</h1>\n")


def test_send_with_an_endpoint_id_and_an_object(run, monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    with http_server(200) as (url, requests):
        result = run("send", url, "--type", "shop.opened", "--webhook-id", "wh_2", "--data", '{"id": "shop_1"}')
    assert result.exit_code == 0
    ((_, headers, body),) = requests
    assert headers["X-EnvoyOU-Webhook-ID"] == "wh_2"
    event = verify(dict(headers.items()), body, secret="whsec_test")
    assert (event.webhook_id, event.type, dict(event.data.object)) == ("wh_2", "shop.opened", {"id": "shop_1"})


def test_send_signs_with_the_newest_secret_of_the_environment(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_of_this_year,whsec_of_last_year")
    with http_server(200) as (url, requests):
        assert run("send", url).exit_code == 0
        (tmp_path / "secrets").write_text("whsec_in_a_file\n")
        monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET_FILE", str(tmp_path / "secrets"))
        both = run("send", url)
        monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET")
        assert run("send", url).exit_code == 0
        assert run("send", url, "--secret", "whsec_given").exit_code == 0
    assert both.exit_code == 1
    assert "either ENVOYOU_WEBHOOK_SECRET or ENVOYOU_WEBHOOK_SECRET_FILE" in both.stderr
    for (_, headers, body), secret in zip(
        requests, ("whsec_of_this_year", "whsec_in_a_file", "whsec_given"), strict=True
    ):
        assert verify(dict(headers.items()), body, secret=secret)


@pytest.mark.parametrize(("data", "error"), [("{", "invalid JSON"), ("[1]", "expected a JSON object")])
def test_invalid_data_is_a_usage_error(run, data, error):
    result = run("send", "http://127.0.0.1:1/", "--secret", "whsec_test", "--data", data)
    assert result.exit_code == 2
    assert error in result.stderr


def test_an_invalid_url_is_a_usage_error(run):
    assert run("send", "http://[", "--secret", "whsec_test").exit_code == 2


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("options", [(), ("--type", "user.*", "--handler", "welcome")])
def test_pause_requires_either_a_type_or_a_handler(run, hooks, command, options):
    result = run(command, hooks, *options)
    assert result.exit_code == 2
    assert "either a type or a handler" in result.stderr


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pause_reports_an_error_in_one_line(run, hooks, command):
    for arguments, error in (
        ((hooks, "--type", "user*"), "invalid event type 'user*'"),
        (("nowhere:webhooks", "--type", "user.*"), "cannot import the Webhooks object 'nowhere:webhooks'"),
    ):
        result = run(command, *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert error in result.stderr
        assert "Traceback" not in result.stderr


def test_an_error_of_the_inbox_is_reported_without_its_password(run, hooks, monkeypatch):
    def fail(subject):
        raise OSError("postgresql://app:hunter2@db is unavailable")

    assert run("pause", hooks, "--type", "user.*").exit_code == 0
    monkeypatch.setattr(sys.modules[hooks].webhooks.inbox, "pause", fail)
    result = run("pause", hooks, "--type", "auth.*")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: OSError: postgresql://app:[redacted]@db is unavailable\n"


def test_a_value_error_unrelated_to_arguments_is_not_a_usage_error(run, hooks, monkeypatch):
    def fail():
        raise ValueError("unknown status")

    assert run("stats", hooks).exit_code == 0
    monkeypatch.setattr(sys.modules[hooks].webhooks.inbox, "stats", fail)
    result = run("stats", hooks)
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
    monkeypatch.setitem(sys.modules, "envoyou_core.cli.commands", None)
    with pytest.raises(SystemExit, match=r"envoyou-webhooks\[cli,sql\]"):
        cli.main()


def test_counts_that_are_lower_bounds_are_marked(run, monkeypatch, hooks, sqlite_url):
    monkeypatch.setattr("envoyou_core.inbox.sql.inbox.COUNTED", 2)
    assert run("stats", hooks).exit_code == 0
    webhooks = sys.modules[hooks].webhooks
    monkeypatch.setattr(webhooks, "inbox", SqlInbox(sqlite_url))
    for _ in range(3):
        webhooks.inbox.add(NewEvent(sample_event())).result(20)
    for claim in webhooks.inbox.claim(10, 60):
        webhooks.inbox.settle(claim, Settlement(Status.PROCESSED, 1))
    rows = dict(line.split()[:2] for line in run("stats", hooks).stdout.splitlines())
    assert (rows["processed"], rows["total"], rows["dead"]) == ("2+", "2+", "0")
    assert json.loads(run("stats", hooks, "--json").stdout)["at_least"] == ["processed"]
    rows = dict(line.split()[:2] for line in run("stats", hooks, "--exact").stdout.splitlines())
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
