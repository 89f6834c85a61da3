"""`envoyou webhooks`: the client on the command line, against the local platform."""

import json

import pytest
from typer.testing import CliRunner

from envoyou_core.cli.command_line import app
from envoyou_core.simulator import Platform
from tests.client.server import answer, serving

URL = "http://127.0.0.1:9/hooks"


@pytest.fixture(scope="module")
def platform():
    with Platform() as platform:
        yield platform


@pytest.fixture
def run(platform, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ENVOYOU_API_KEY", platform.api_key)
    monkeypatch.setenv("ENVOYOU_BASE_URL", platform.base_url)
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_of_the_environment")
    monkeypatch.delenv("ENVOYOU_APP", raising=False)
    return lambda *arguments, **options: CliRunner().invoke(app, ["webhooks", *arguments], **options)


@pytest.fixture
def created(run, tmp_path):
    headers = tmp_path / "headers.json"
    headers.write_text('{"X-Token": "value_of_the_header"}')
    result = run("create", URL, "--event", "user.created", "--headers-file", str(headers), "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_create_registers_the_secret_of_the_environment_and_does_not_show_it(created, run):
    assert (created["url"], created["events"], created["active"]) == (URL, ["user.created"], True)
    assert (created["secret"], created["headers"]) == ("[redacted]", {"X-Token": "[redacted]"})
    assert "created_at" in created
    arguments = ["--event", "auth.login", "--inactive", "--max-attempts", "2", "--secret-file", "-", "--reveal"]
    shown = run("create", URL, *arguments, input="whsec_of_standard_input\n").stdout
    for text in ("whsec_of_standard_input", "auth.login", "no", "2, first after 1000 ms, then times 2"):
        assert text in shown


def test_get_shows_values_only_if_asked(created, run):
    assert "value_of_the_header" not in run("get", created["id"]).stdout
    shown = run("get", created["id"], "--reveal").stdout
    assert "X-Token: value_of_the_header" in shown
    assert json.loads(run("get", created["id"], "--json", "--reveal").stdout)["headers"]["X-Token"].startswith("value")


def test_list_goes_over_pages(created, run):
    listed = json.loads(run("list", "--json").stdout)
    assert created["id"] in [webhook["id"] for webhook in listed]
    table = run("list").stdout
    assert table.splitlines()[0].split() == ["webhook", "active", "url", "events"]
    assert created["id"] in table
    assert len(json.loads(run("list", "--limit", "1", "--json").stdout)) == 1


def test_update_changes_what_is_named(created, run):
    run("update", created["id"], "--max-attempts", "3", "--initial-delay", "50")
    arguments = ["--inactive", "--event", "user.created", "--event", "user.deleted", "--backoff-multiplier", "1.5"]
    changed = json.loads(run("update", created["id"], *arguments, "--json").stdout)
    assert (changed["active"], changed["events"], changed["url"]) == (False, ["user.created", "user.deleted"], URL)
    assert changed["retry_policy"] == {"max_attempts": 3, "backoff_multiplier": 1.5, "initial_delay": 50}
    assert changed["headers"] == {"X-Token": "[redacted]"}
    assert run("update", created["id"], "--secret-file", "-", input="whsec_another\n").exit_code == 0


def test_delete_is_confirmed(created, run):
    refused = run("delete", created["id"])
    assert refused.exit_code == 2
    assert "confirm it with --yes" in refused.stderr
    assert json.loads(run("delete", created["id"], "--yes", "--json").stdout) == {"id": created["id"], "deleted": True}
    another = json.loads(run("create", URL, "--event", "user.created", "--json").stdout)["id"]
    assert run("delete", another, "--yes").stdout == f"Deleted: {another}.\n"
    gone = run("delete", created["id"], "--yes")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert "Error: 404 not_found" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["create", URL], 2, "at least one type of event"),
        (["create", "ftp://x", "--event", "user.created"], 1, "400 validation_error"),
        (["create", URL, "--event", "x", "--headers-file", "nowhere.json"], 1, "--headers-file names"),
        (["create", URL, "--event", "x", "--headers-file", "-", "--secret-file", "-"], 2, "only one file"),
        (["update", "wh_1"], 2, "nothing to update"),
        (["get", "."], 2, "expected the id of a webhook"),
        (["list", "--base-url", "http://api.example"], 1, "must begin with https"),
    ],
)
def test_bad_input_ends_with_one_line(arguments, code, text, run):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_creation_with_an_unknown_outcome_says_what_to_do(run):
    with serving(answer(500)) as server:
        result = run("create", URL, "--event", "user.created", "--base-url", server.url)
    assert result.exit_code == 1
    assert "may have been created or not, list the webhooks before you repeat this" in result.stderr


def test_the_key_comes_from_the_environment(run, monkeypatch):
    monkeypatch.delenv("ENVOYOU_API_KEY")
    result = run("list")
    assert result.exit_code == 1
    assert "set ENVOYOU_API_KEY" in result.stderr
