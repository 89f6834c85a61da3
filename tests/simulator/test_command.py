"""`envoyou simulate`, in a process of its own, and the guide's commands with the real curl."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields

import pytest

from envoyou_core import verify
from envoyou_core.simulator import Trouble
from tests.documentation.pages import Page
from tests.simulator.receiver import SECRET, receiver

pytest_plugins = ["envoyou_core.testing.fixtures"]

COMMAND = [sys.executable, "-c", "from envoyou_core.cli import main; main()", "simulate"]
TIMEOUT = 30
"""Seconds."""

GUIDE = """
curl -X POST https://api.envoyou.com/v1/webhooks \\
  -H "Authorization: Bearer YOUR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "url": "https://your-app.com/webhooks/envoyou",
    "events": ["user.created", "user.updated", "auth.login"],
    "secret": "your-webhook-secret",
    "active": true
  }'

curl -X GET https://api.envoyou.com/v1/webhooks \\
  -H "Authorization: Bearer YOUR_API_KEY"

curl -X PUT https://api.envoyou.com/v1/webhooks/wh_1234567890 \\
  -H "Authorization: Bearer YOUR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "events": ["user.created", "user.updated", "auth.login", "api.rate_limit_exceeded"],
    "active": true
  }'

curl -X DELETE https://api.envoyou.com/v1/webhooks/wh_1234567890 \\
  -H "Authorization: Bearer YOUR_API_KEY"
"""
"""The guide's four commands as it shows them."""


@contextmanager
def simulate(*options, api_key="test_key"):
    arguments = [*COMMAND, "--port", "0", "--api-key", api_key, *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def request(process, ready, path, document=None):
    from urllib.request import Request, urlopen

    data = None if document is None else json.dumps(document).encode()
    with urlopen(Request(f"{ready}/{path}", data, {"X-API-Key": "test_key"}), timeout=TIMEOUT) as answer:
        return json.load(answer)


def test_it_prints_a_line_of_json_for_each_attempt(tmp_path):
    options = ("--json", "--database", str(tmp_path / "platform.db"), "--trouble", "clock_skew=-400")
    with receiver() as endpoint, simulate(*options) as process:
        ready = json.loads(process.stdout.readline())
        assert ready.keys() == {"event", "url", "control_url"}
        assert ready["event"] == "ready"
        webhook = {"url": endpoint.url, "events": ["user.created"], "secret": SECRET}
        webhook_id = request(process, ready["url"], "webhooks", webhook)["id"]
        [event_id] = request(process, ready["control_url"], "events", {"type": "user.created"})["events"]
        attempt = json.loads(process.stdout.readline())
        assert attempt["event"] == "attempt"
        assert (attempt["event_id"], attempt["webhook_id"], attempt["status"]) == (event_id, webhook_id, 200)
        [received] = endpoint.received
        sent_at = int(received.headers["X-EnvoyOU-Timestamp"])
        assert abs(attempt["sent_at"] - 400 - sent_at) < 2
        assert verify(received.headers, received.body, secret=SECRET, now=sent_at).id == event_id
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert process.stdout.read() + process.stderr.read() == ""


def test_it_prints_text_for_people():
    with receiver() as endpoint, simulate() as process:
        url = re.search(r"http://127\.0\.0\.1:\d+/v1", process.stdout.readline())[0]
        request(process, url, "webhooks", {"url": endpoint.url, "events": ["user.created"], "secret": SECRET})
        [event_id] = request(process, url.replace("v1", "_simulator"), "events", {})["events"]
        line = process.stdout.readline()
        assert f"user.created {event_id} to wh_" in line
        assert line.endswith("attempt 1: 200\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


def test_a_reader_that_has_gone_ends_it():
    with receiver() as endpoint, simulate("--json") as process:
        ready = json.loads(process.stdout.readline())
        request(process, ready["url"], "webhooks", {"url": endpoint.url, "events": ["user.created"]})
        process.stdout.close()
        request(process, ready["control_url"], "events", {})
        assert process.wait(TIMEOUT) == 141


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "--api-key"),
        (["--api-key", ""], 1, "api_key must be printable ASCII text"),
        (["--api-key", "k", "--trouble", "rain=1"], 2, "expected NAME=VALUE"),
        (["--api-key", "k", "--database", "/nowhere/platform.db"], 1, "/nowhere"),
    ],
)
def test_wrong_options_are_one_line(options, code, said):
    from typer.testing import CliRunner

    from envoyou_core.cli.command_line import app

    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["simulate", "--port", "0", *options])
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_extra_the_error_names_it(monkeypatch):
    from typer.testing import CliRunner

    from envoyou_core.cli.command_line import app

    for name in [*(it for it in sys.modules if it.startswith("envoyou_core.simulator"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["simulate", "--api-key", "k"])
    assert result.exit_code == 1
    assert "pip install 'envoyou-webhooks[simulator]'" in " ".join(result.stderr.split())


def test_the_guides_commands_work_but_for_host_key_and_id(envoyou_platform):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    create, show, update, delete = GUIDE.strip().split("\n\n")
    key = envoyou_platform.api_key

    def run(command, webhook_id=""):
        command = command.replace("https://api.envoyou.com/v1", envoyou_platform.base_url)
        command = command.replace("YOUR_API_KEY", key).replace("wh_1234567890", webhook_id)
        command = command.replace("curl ", "curl -sS --fail --noproxy '*' ", 1)
        ran = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, "HOME": "/"}
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    created = json.loads(run(create))
    assert created["url"] == "https://your-app.com/webhooks/envoyou"
    assert created["secret"] == "your-webhook-secret"
    assert [webhook["id"] for webhook in json.loads(run(show))["items"]] == [created["id"]]
    changed = json.loads(run(update, created["id"]))
    assert changed["events"] == ["user.created", "user.updated", "auth.login", "api.rate_limit_exceeded"]
    assert run(delete, created["id"]) == ""
    assert json.loads(run(show))["items"] == []


def test_the_documentation_lists_every_trouble():
    assert {name.strip("`") for name, _ in Page("docs/simulator.md").rows("Make trouble")} == {
        field.name for field in fields(Trouble)
    }
