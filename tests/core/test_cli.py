"""The command `envoyou`, within this process; tests of the SQL inbox run it as a real one."""

import sys

import pytest
from typer.testing import CliRunner

from envoyou_core import cli
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
