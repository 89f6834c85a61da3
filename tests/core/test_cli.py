"""The command `envoyou`, within this process; tests of the SQL inbox run it as a real one."""

import sys

import pytest
from typer.testing import CliRunner

from envoyou_core import Webhooks, cli
from envoyou_core.cli.commands import app
from envoyou_core.inbox.sql import SqlInbox


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ENVOYOU_INBOX", raising=False)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_migrate_makes_an_inbox_ready_and_changes_nothing_when_run_again(run, sqlite_url):
    for _ in range(2):
        result = run("migrate", "--inbox", sqlite_url)
        assert (result.exit_code, result.stdout) == (0, "The inbox is ready (schema 2).\n")
    inbox = SqlInbox(sqlite_url)
    assert inbox.stats().total == 0
    inbox.close()


def test_migrate_that_fails_says_so_and_ends_1(run, tmp_path):
    result = run("migrate", "--inbox", f"sqlite:///{tmp_path}/nowhere/inbox.db")
    assert result.exit_code == 1
    assert result.stderr.startswith("The inbox could not be set up. OperationalError: ")
    assert "Traceback" not in result.stderr


def test_migrate_needs_an_inbox(run):
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
    """A module like a user's, whose `webhooks` outlive one command: as a database would."""
    name = f"hooks_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def test_what_is_paused_is_said_and_can_be_resumed(run, hooks):
    for arguments, said in (
        (("pause", f"{hooks}:webhooks", "--type", "user.*"), "Paused: type:user.*.\n"),
        (("pause", hooks, "--handler", "welcome"), "Paused: handler:welcome, type:user.*.\n"),
        (("resume", f"{hooks}:webhooks", "--type", "user.*"), "Paused: handler:welcome.\n"),
        (("resume", f"{hooks}:webhooks", "--handler", "welcome"), "Paused: nothing.\n"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (0, said)
    webhooks = sys.modules[hooks].webhooks
    assert isinstance(webhooks, Webhooks)
    assert webhooks.paused == frozenset()
    # A command that looks in is no worker.
    assert webhooks._in_process is None


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("named", [(), ("--type", "user.*", "--handler", "welcome")])
def test_to_pause_one_names_a_type_or_a_handler(run, hooks, command, named):
    result = run(command, hooks, *named)
    assert result.exit_code == 2
    assert "either a type or a handler" in result.stderr


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_cannot_be_paused_is_said_in_a_line(run, hooks, command):
    for arguments, said in (
        ((hooks, "--type", "user*"), "'user*' is no event type"),
        (("nowhere:webhooks", "--type", "user.*"), "there are no Webhooks at 'nowhere:webhooks'"),
    ):
        result = run(command, *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("It could not be changed. ConfigurationError: ")
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_a_pause_that_the_inbox_cannot_keep_is_said_without_its_password(run, hooks, monkeypatch):
    def fail(subject):
        raise OSError("postgresql://app:hunter2@db is away")

    assert run("pause", hooks, "--type", "user.*").exit_code == 0
    monkeypatch.setattr(sys.modules[hooks].webhooks.inbox, "pause", fail)
    result = run("pause", hooks, "--type", "auth.*")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "It could not be changed. OSError: postgresql://app:[redacted]@db is away\n"


def test_without_a_command_the_help_is_shown(run):
    assert "migrate" in run().output


def test_main_runs_the_application(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["envoyou", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "migrate" in capsys.readouterr().out


def test_without_its_extra_the_command_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envoyou_core.cli.commands", None)
    with pytest.raises(SystemExit, match=r"envoyou-webhooks\[cli,sql\]"):
        cli.main()
