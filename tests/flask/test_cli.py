"""`flask envoyou`, for the extension and for blueprints."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from flask import Flask
from typer.testing import CliRunner
from werkzeug.routing import Rule

from envoyou_core import Webhooks
from envoyou_core.cli.command_line import app as envoyou_command
from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import Envoyou, create_blueprint
from tests.contract.clients.servers import werkzeug_server
from tests.flask.conftest import PATH, SECRET, deliver, make_app

PATIENCE = 30


def run(app, *arguments):
    return app.test_cli_runner().invoke(args=["envoyou", *arguments])


def with_extension(webhooks_file):
    app = Flask("app")
    app.config.from_mapping(
        ENVOYOU_WEBHOOK_SECRET=SECRET,
        ENVOYOU_INBOX=f"sqlite:///{webhooks_file}",
        ENVOYOU_HANDOFF="manual",
        ENVOYOU_RETRY_MAX_ATTEMPTS=1,
    )
    envoyou = Envoyou(app)
    envoyou.on("user.created", name="welcome")(lambda event: None)
    envoyou.on("user.deleted", name="fail")(lambda event: 1 / 0)
    return app, app.extensions["envoyou"]["envoyou"]


def with_blueprint(webhooks_file):
    settings = {"ENVOYOU_INBOX": f"sqlite:///{webhooks_file}", "ENVOYOU_RETRY_MAX_ATTEMPTS": "1"}
    webhooks = Webhooks.from_env(settings, secret=SECRET, handoff="manual")
    webhooks.on("user.created", name="welcome")(lambda event: None)
    webhooks.on("user.deleted", name="fail")(lambda event: 1 / 0)
    return make_app(webhooks), webhooks


@pytest.fixture(params=[with_extension, with_blueprint])
def app_and_webhooks(request, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ENVOYOU_WEBHOOK_SECRET", raising=False)
    app, webhooks = request.param(tmp_path / "inbox.db")
    yield app, webhooks
    webhooks.inbox.close()


def test_flask_lists_the_group_and_the_group_its_commands(app_and_webhooks):
    app, _ = app_and_webhooks
    assert "envoyou" in app.test_cli_runner().invoke(args=["--help"]).output
    listed = run(app, "--help").output
    for command in ("worker", "stats", "events", "trigger", "rejected", "pause", "resume", "prune", "migrate"):
        assert command in listed


def test_the_commands_of_an_operator(app_and_webhooks):
    app, webhooks = app_and_webhooks
    welcomed, failed = sample_event("user.created"), sample_event("user.deleted")
    for event in (welcomed, failed):
        deliver(app, event)
    webhooks.drain()

    stats = json.loads(run(app, "stats", "--json").output)
    assert (stats["by_status"]["processed"], stats["by_status"]["dead"], stats["total"]) == (1, 1, 2)
    (dead,) = json.loads(run(app, "events", "list", "--status", "dead", "--json").output)
    assert (dead["id"], dead["type"]) == (failed.id, "user.deleted")
    assert "fail: ZeroDivisionError: division by zero" in run(app, "events", "show", failed.id).output
    assert run(app, "events", "requeue", failed.id).output == "Requeued: 1.\n"
    assert run(app, "events", "requeue", "--status", "dead").output == "Requeued: 0.\n"
    unusable = sign_delivery(b"{}", secret=SECRET)
    assert app.test_client().post("/webhooks/envoyou", data=unusable.body, headers=unusable.headers).status_code == 400
    (rejected,) = json.loads(run(app, "rejected", "list", "--json").output)
    assert "invalid_payload" in run(app, "rejected", "show", str(rejected["key"])).output
    assert run(app, "rejected", "retry", str(rejected["key"])).exit_code == 1
    assert run(app, "pause", "--type", "user.*").output == "Paused: type:user.*.\n"
    assert webhooks.drain() == 0
    assert run(app, "resume", "--type", "user.*").output == "Paused: nothing.\n"
    assert webhooks.drain() == 1
    assert run(app, "prune", "--older-than", "0s", "--yes").output == "Deleted: 1 events.\n"
    assert run(app, "prune").output == "Deleted: 0 events, the payloads of 0, 0 marks, 0 rejected deliveries.\n"
    assert run(app, "migrate").output == "The inbox is ready (schema 7).\n"


def test_errors_have_one_line(app_and_webhooks):
    app, webhooks = app_and_webhooks
    webhooks.inbox.open()
    for arguments, code, said in (
        (("events", "show", "evt_unknown"), 1, "Error: event not found: evt_unknown"),
        (("events", "requeue"), 2, "name an event id"),
        (("--name", "other", "stats"), 1, "--name must be one of: envoyou"),
    ):
        result = run(app, *arguments)
        assert result.exit_code == code
        assert said in result.output
        assert "Traceback" not in result.output


def test_a_sample_is_sent_to_the_apps_own_url(app_and_webhooks):
    app, webhooks = app_and_webhooks
    with werkzeug_server(app) as port:
        runner = app.test_cli_runner(env={"FLASK_RUN_PORT": str(port)})
        result = runner.invoke(args=["envoyou", "trigger", "user.updated"])
        refused = runner.invoke(args=["envoyou", "trigger", "--secret-file", "-"], input="whsec_another")
        elsewhere = runner.invoke(args=["envoyou", "trigger", "--to", f"http://127.0.0.1:{port}/nowhere"])
    assert result.exit_code == 0, result.output
    event_id, _, answer = result.output.partition(": ")
    assert answer == '200 {"received": true}\n'
    assert webhooks.inbox.get(event_id).event.type == "user.updated"
    assert (refused.exit_code, elsewhere.exit_code) == (1, 1)
    assert ": 401 " in refused.output
    failed = app.test_cli_runner(env={"FLASK_RUN_PORT": str(port)}).invoke(args=["envoyou", "trigger"])
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: no response from http://127.0.0.1:")


def test_rules_without_a_view_are_skipped(app_and_webhooks):
    app, webhooks = app_and_webhooks
    webhooks.inbox.open()
    app.add_url_rule("/elsewhere", endpoint="elsewhere", build_only=True)
    app.url_map.add(Rule("/old", redirect_to="/new"))
    result = run(app, "stats", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["total"] == 0


def test_one_of_several_webhooks_is_chosen_by_name(make_webhooks):
    app = Flask("app")
    for name in ("first", "second"):
        app.register_blueprint(
            create_blueprint(make_webhooks(name=name, handoff="manual"), name=name), url_prefix=f"/{name}"
        )
    deliver(app, path="/second")
    assert "--name must be one of: first, second" in run(app, "stats").output
    counts = [json.loads(run(app, "--name", name, "stats", "--json").output) for name in ("first", "second")]
    assert [it["total"] for it in counts] == [0, 1]


def test_without_typer_the_error_names_the_extra(manual, monkeypatch):
    monkeypatch.delitem(sys.modules, "envoyou_flask.commands", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    result = run(make_app(manual), "stats")
    assert result.exit_code == 1
    assert "typer is not installed: pip install 'envoyou-webhooks[cli]'" in result.output


WORKED_OFF = f"""
from flask import Flask, current_app
from envoyou_flask import Envoyou

envoyou = Envoyou()


@envoyou.on("*")
def note(event):
    print("noted", event.id, current_app.config["MARK"], flush=True)


@envoyou.on_worker_start
def open_pool():
    print("opened", current_app.config["MARK"], flush=True)


@envoyou.on_worker_stop
async def close_pool():
    print("closed", current_app.config["MARK"], flush=True)


def create_app():
    app = Flask(__name__)
    app.config.from_mapping(ENVOYOU_WEBHOOK_SECRET={SECRET!r}, ENVOYOU_HANDOFF="manual", MARK="ours")
    envoyou.init_app(app)
    return app
"""


def test_the_worker_is_a_process_of_its_own(tmp_path):
    (tmp_path / "shop.py").write_text(WORKED_OFF)
    earlier = Webhooks(secret=SECRET, inbox=f"sqlite:///{tmp_path / 'envoyou.db'}", handoff="manual")
    event = sample_event()
    assert deliver(make_app(earlier), event, path=PATH).status_code == 200
    with (tmp_path / "worker.log").open("w") as log:
        command = [sys.executable, "-m", "flask", "--app", "shop", "envoyou", "worker"]
        worker = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE
            while earlier.inbox.get(event.id).status != "processed":
                assert worker.poll() is None, (tmp_path / "worker.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
                time.sleep(0.05)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()
            worker.wait()
    said = [line for line in (tmp_path / "worker.log").read_text().splitlines() if line.endswith(" ours")]
    assert said == ["opened ours", f"noted {event.id} ours", "closed ours"]
    earlier.inbox.close()


@pytest.mark.parametrize("by_id", [dict, lambda secrets: secrets.get])
def test_a_sample_is_signed_with_the_secret_of_its_webhook_id(tmp_path, by_id):
    app = Flask("app")
    app.config.from_mapping(
        ENVOYOU_WEBHOOK_SECRET=by_id({"wh_1": "whsec_of_one", "wh_2": ["whsec_new", "whsec_old"]}),
        ENVOYOU_INBOX="memory:",
        ENVOYOU_HANDOFF="manual",
    )
    Envoyou(app)
    with werkzeug_server(app) as port:
        runner = app.test_cli_runner(env={"FLASK_RUN_PORT": str(port), "ENVOYOU_WEBHOOK_SECRET": "whsec_foreign"})
        for webhook_id in ("wh_1", "wh_2"):
            result = runner.invoke(args=["envoyou", "trigger", "--webhook-id", webhook_id])
            assert result.output.endswith('200 {"received": true}\n'), result.output
        unknown = runner.invoke(args=["envoyou", "trigger", "--webhook-id", "wh_3"])
    assert unknown.exit_code == 1
    assert "no secret for the webhook id 'wh_3'" in unknown.output


def test_envoyou_takes_the_app_as_its_application(app_and_webhooks, monkeypatch):
    app, webhooks = app_and_webhooks
    webhooks.inbox.open()
    monkeypatch.setitem(sys.modules, "shop_of_this_test", SimpleNamespace(app=app))
    result = CliRunner().invoke(envoyou_command, ["--app", "shop_of_this_test:app", "handlers", "--json"])
    assert [handler["name"] for handler in json.loads(result.stdout)] == ["welcome", "fail"]
