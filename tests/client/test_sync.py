"""`envoyou webhooks sync`, against the local platform."""

import json

import pytest
import typer
from typer.testing import CliRunner

from envoyou_core.cli.command_line import app
from envoyou_core.client import DeliveryRetryPolicy, EnvoyouClient
from envoyou_core.simulator import Platform
from tests.client.server import CUT, answer, serving

URL = "http://127.0.0.1:9/hooks"
OTHER = "http://127.0.0.1:9/other"


@pytest.fixture
def client(monkeypatch):
    with Platform() as platform:
        monkeypatch.setenv("ENVOYOU_API_KEY", platform.api_key)
        monkeypatch.setenv("ENVOYOU_BASE_URL", platform.base_url)
        with EnvoyouClient() as client:
            yield client


@pytest.fixture
def sync(tmp_path, monkeypatch):
    monkeypatch.delenv("ENVOYOU_APP", raising=False)
    file = tmp_path / "webhooks.toml"

    def sync(content, *options, **settings):
        file.write_text(content)
        return CliRunner().invoke(app, ["webhooks", "sync", str(file), *options], env={"COLUMNS": "200"}, **settings)

    return sync


def table(url=URL, **members):
    lines = [
        f"{name} = {value}" for name, value in {"url": f'"{url}"', "events": '["user.created"]', **members}.items()
    ]
    return "\n".join(["[[webhooks]]", *lines, ""])


def registered(client):
    return {webhook.url: webhook for webhook in client.webhooks.list()}


def test_what_is_declared_is_created_and_nothing_differs_afterwards(client, sync, monkeypatch):
    monkeypatch.setenv("SHOP_SECRET", "whsec_of_the_shop")
    content = table(active="false", headers='{"X-Shop" = "a-private-value"}', secret_env='"SHOP_SECRET"') + table(
        OTHER, retry_policy="{max_attempts = 3}"
    )
    result = sync(content, "--yes")
    assert result.exit_code == 0, result.output
    assert f"create {URL}\n  events: user.created\n" in result.stdout
    assert result.stdout.endswith("Applied: 2.\n")
    for private in ("whsec_of_the_shop", "a-private-value"):
        assert private not in result.output
    made = registered(client)
    assert (made[URL].active, made[URL].headers) == (False, {"X-Shop": "a-private-value"})
    assert made[OTHER].retry_policy == DeliveryRetryPolicy(max_attempts=3)
    for options in ((), ("--check",), ("--yes", "--prune")):
        again = sync(content, *options)
        assert (again.exit_code, again.stdout) == (0, "Nothing differs.\n")


def test_check_shows_the_difference_and_changes_nothing(client, sync):
    webhook = client.webhooks.create(
        url=URL, events=["user.deleted"], retry_policy=DeliveryRetryPolicy(initial_delay=5)
    )
    before = registered(client)
    result = sync(table(active="false", retry_policy="{max_attempts = 3}"), "--check")
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        f"update {URL} ({webhook.id})",
        "  events: user.deleted -> user.created",
        "  active: true -> false",
        "  retry_policy: max_attempts 5, backoff_multiplier 2, initial_delay 5"
        " -> max_attempts 3, backoff_multiplier 2, initial_delay 5",
    ]
    document = json.loads(sync(table(), "--check", "--json").stdout)
    [change] = document["changes"]
    assert (change["action"], change["id"], list(change["differences"])) == ("update", webhook.id, ["events"])
    assert registered(client) == before


def test_only_what_is_declared_is_changed(client, sync):
    policy = DeliveryRetryPolicy(max_attempts=2, initial_delay=7)
    client.webhooks.create(url=URL, events=["user.deleted"], active=False, headers={"X-Shop": "1"}, retry_policy=policy)
    assert sync(table(), "--yes").exit_code == 0
    webhook = registered(client)[URL]
    assert (webhook.events, webhook.active, webhook.headers) == (("user.created",), False, {"X-Shop": "1"})
    assert webhook.retry_policy == policy


def test_others_are_deleted_only_with_prune(client, sync):
    client.webhooks.create(url=OTHER, events=["user.created"])
    result = sync(table(), "--yes")
    assert set(registered(client)) == {URL, OTHER}
    assert "Not declared, and left as they are: 1." in result.stderr
    assert sync(table(), "--check").exit_code == 0
    assert sync(table(), "--check", "--prune").exit_code == 3
    assert sync(table(), "--yes", "--prune", "--json").exit_code == 0
    assert set(registered(client)) == {URL}


def test_it_asks_before_it_changes_anything(client, sync, monkeypatch):
    assert "confirm it with --yes" in sync(table()).stderr
    asked = []

    def refuse(question, *, yes):
        asked.append((question, yes))
        raise typer.Abort

    monkeypatch.setattr("envoyou_core.cli.sync.confirm", refuse)
    assert sync(table()).exit_code == 1
    assert asked == [("Apply 1 change?", False)]
    assert registered(client) == {}


def test_a_secret_is_written_again_only_on_request(client, sync, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("whsec_first_secret\n")
    content = table(secret_file='"secret"')
    assert sync(content, "--yes").exit_code == 0
    sent = []
    real = type(client.webhooks).update
    monkeypatch.setattr(
        type(client.webhooks), "update", lambda self, *args, **kw: sent.append(kw) or real(self, *args, **kw)
    )
    (tmp_path / "secret").write_text("whsec_second_secret\n")
    assert sync(content, "--yes").exit_code == 0
    assert sent == []
    result = sync(content, "--yes", "--write-secrets")
    assert sent == [{"secret": "whsec_second_secret"}]
    assert "secret: [redacted] -> [redacted]" in result.stdout
    assert "whsec" not in result.output


@pytest.mark.parametrize(
    ("listed", "code", "text"),
    [
        ([{"id": "wh_new", "url": URL, "events": ["user.created"]}], 0, f"and {URL} was created: wh_new"),
        ([], 1, f"{URL} was not created"),
    ],
)
def test_after_an_unknown_outcome_the_webhook_is_found_by_its_url(sync, monkeypatch, listed, code, text):
    monkeypatch.setenv("ENVOYOU_API_KEY", "a_key_of_the_tests")
    with serving(answer(200, {"items": []}), CUT, answer(200, {"items": listed})) as server:
        result = sync(table(), "--yes", "--base-url", server.url)
        assert [request.method for request in server.requests] == ["GET", "POST", "GET"]
    assert result.exit_code == code
    assert text in result.stderr


def test_two_webhooks_of_one_url_are_an_error(client, sync):
    for _ in range(2):
        client.webhooks.create(url=URL, events=["user.created"])
    result = sync(table(), "--yes")
    assert result.exit_code == 1
    assert "several webhooks have the URL" in result.stderr


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[[webhooks]", "is not valid TOML"),
        ("title = 1", "must consist of tables [[webhooks]]"),
        ('[webhooks]\nurl = "x"', "must consist of tables [[webhooks]]"),
        ('[[webhooks]]\nurl = "x"', "must have events"),
        (table(secret='"whsec_in_the_file"'), "has a secret in the file: name it with secret_env or secret_file"),
        (table(secret_env='"NOT_SET_ANYWHERE"'), "names is not set"),
        (table(secret_env='"A"', secret_file='"b"'), "either secret_env or secret_file"),
        (table(activ="true"), "unknown member 'activ'"),
        (table(active="1"), "must be true or false"),
        (table(events="[1]"), "must be a list of types of event"),
        (table(headers='{"X" = 1}'), "must be a table of texts"),
        (table(retry_policy="{max_attempts = true}"), "must be an integer"),
        (table() + table(), "twice"),
    ],
)
def test_a_wrong_file_is_an_error_before_any_call(sync, content, error, monkeypatch):
    monkeypatch.setenv("ENVOYOU_API_KEY", "a_key_of_the_tests")
    result = sync(content, "--yes", "--base-url", "http://127.0.0.1:9/v1")
    assert result.exit_code == 1
    assert error in result.stderr
    assert "whsec_in_the_file" not in result.output
