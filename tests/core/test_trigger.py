"""Tests of `envoyou trigger`: what it sends, and how it reports the answers."""

import json
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from envoyou_core import WebhookRequest, Webhooks
from envoyou_core.cli import posting
from envoyou_core.cli.command_line import app
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_the_trigger_tests"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", SECRET)
    monkeypatch.delenv("ENVOYOU_APP", raising=False)
    return lambda *arguments, **options: CliRunner().invoke(app, ["trigger", *arguments], **options)


@pytest.fixture
def receiver():
    webhooks = Webhooks(secret=SECRET, inbox="memory:", handoff="manual")
    with served(webhooks) as url:
        yield url, webhooks


@contextmanager
def served(webhooks):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            response = webhooks.receive(WebhookRequest.from_http("POST", self.headers.items(), body))
            self.send_response(response.status)
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format, *args): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stored(webhooks):
    return [record.event for record in webhooks.inbox.list()]


def test_set_changes_values_that_exist(run, receiver):
    url, webhooks = receiver
    changes = ("created=1640995200", "data.object.email=ada@example.com", "data.object.location.city=Turin")
    data = json.dumps({"email": "", "roles": ["a", "b"], "location": {"city": ""}})
    options = [option for change in (*changes, 'data.object.roles.1={"id": 7}') for option in ("--set", change)]
    assert run("auth.login", "--to", url, "--data", data, *options).exit_code == 0
    [event] = stored(webhooks)
    assert (event.type, event.created) == ("auth.login", 1640995200)
    assert event.data.object == {
        "email": "ada@example.com", "roles": ["a", {"id": 7}], "location": {"city": "Turin"}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("data.object.emial=x", "data.object has no member 'emial'; it has id, email"),
        ("nothing=1", "the event has no member 'nothing'"),
        ("id.x=1", "id is neither an object nor a list"),
        ("data.object.roles.2=x", "data.object.roles has no item '2'; it has 2"),
        ("data.object.email", "expected path=value"),
    ],
)
def test_set_fails_if_it_matches_nothing(run, receiver, change, error):
    url, webhooks = receiver
    data = '{"id": "u1", "email": "", "roles": [1, 2]}'
    result = run("user.created", "--to", url, "--data", data, "--set", change, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert error in result.stderr
    assert stored(webhooks) == []


@pytest.mark.parametrize("body", [b"\xff no event", b'{"id": "", "type": "user.created"}'])
def test_any_body_is_signed_and_sent(run, receiver, tmp_path, body):
    url, webhooks = receiver
    (tmp_path / "body").write_bytes(body)
    result = run("--to", url, "--body", str(tmp_path / "body"))
    assert result.exit_code == 1
    assert '(no event id): 400 {"error": "invalid_payload"' in result.stdout
    event = sample_event("shop.opened")
    assert run("--to", url, "--body", "-", input=event.body).stdout.startswith(f"{event.id}: 200")
    assert [each.body for each in stored(webhooks)] == [event.body]
    assert run("shop.opened", "--to", url, "--body", "-").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "http://127.0.0.1:9/hook"], 1, "no response from http://127.0.0.1:9/hook"),
        (["--to", "http://127.0.0.1:9/hook", "--server", "http://127.0.0.1:9"], 2, "either --to or --server"),
        (["--to", "http://127.0.0.1:9/hook", "--body", "-", "--secret-file", "-"], 2, "only one file can be read"),
        (["--to", "http://127.0.0.1:9/hook", "--body", "no-such-file"], 1, "cannot read no-such-file"),
    ],
)
def test_nothing_is_sent(run, arguments, code, said):
    result = run(*arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("\u2502", " ").split())


def test_several_deliveries_end_with_a_summary(run, receiver):
    url, webhooks = receiver
    lines = run("--to", url, "--count", "3", "--duplicate").stdout.splitlines()
    assert lines[0].startswith("6 deliveries in ")
    assert lines[1].startswith("answered within ")
    assert sorted(lines[2:]) == ['3 x 200 {"received": true, "duplicate": true}', '3 x 200 {"received": true}']
    document = json.loads(run("--to", url, "--count", "2", "--json").stdout)
    assert document["answers"] == [{"status": 200, "answer": '{"received": true}', "count": 2}]
    assert list(document["milliseconds"]) == ["median", "p95", "max"]
    assert set(document["ids"]) < {event.id for event in stored(webhooks)}
    assert len(stored(webhooks)) == 5


def test_a_delivery_waits_for_its_turn(monkeypatch):
    waits = []
    monkeypatch.setattr(posting.time, "monotonic", lambda: 100 + sum(waits))
    monkeypatch.setattr(posting.time, "sleep", waits.append)
    delivery = sign_delivery(sample_event(), secret=SECRET)
    assert len(list(posting.paced([delivery] * 3, rate=4))) == 3
    assert waits == [0.25, 0.25]


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (["--bad-signature"], 401, 0),
        (["--skew", "-301"], 401, 1),
        (["--skew", "310"], 401, 1),
        (["--skew", "-250"], 200, 0),
        (["--canonical"], 200, 0),
    ],
)
def test_other_signatures_and_times(run, receiver, options, status, code):
    url, _ = receiver
    result = run("--to", url, *options)
    assert (result.exit_code, f": {status} " in result.stdout) == (code, True)


def test_a_bad_signature_that_is_accepted_is_an_error(run, receiver, monkeypatch):
    url, _ = receiver
    monkeypatch.setattr("envoyou_core.cli.trigger.secrets.token_hex", lambda _: SECRET)
    assert run("--to", url, "--bad-signature").exit_code == 1


def test_canonical_signs_the_canonical_form(run):
    with served(Webhooks(secret=SECRET, inbox="memory:", handoff="manual", signed_content=("raw",))) as url:
        assert ": 401 " in run("--to", url, "--canonical").stdout
        assert ": 200 " in run("--to", url).stdout
    assert "the body has no canonical form" in run("--to", url, "--body", "-", "--canonical", input="{").stderr


def test_the_curl_command_is_accepted_and_nothing_is_sent_before(run, receiver):
    url, webhooks = receiver
    command = run("--to", url, "--print-curl", "--data", '{"name": "O\'Neill \\"\\u00e9\\" $HOME"}').stdout
    assert stored(webhooks) == []
    assert SECRET not in command
    sent = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(sent.stdout) == {"received": True}
    assert stored(webhooks)[0].data.object["name"] == 'O\'Neill "é" $HOME'
    refused = run("--to", url, "--print-curl", "--body", "-", input=b"\xff")
    assert (refused.exit_code, "not UTF-8" in refused.stderr) == (1, True)
