"""Tests of the SQLite file: its permissions, and its path in different working directories."""

import logging
import os
import stat
import sys
from contextlib import closing

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.cli.command_line import app
from envoyou_core.inbox import open_inbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.spool.spool import Spool
from tests.inbox.acts import add

HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks(secret="s", inbox={inbox!r}, spool={spool!r}, handoff="manual")


@webhooks.on("user.created")
def welcome(event): ...


@webhooks.on_worker_start
def stop():
    raise RuntimeError("the worker has started")
"""


@pytest.fixture(autouse=True)
def default_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def permissions(folder):
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


# Permissions


@pytest.mark.parametrize(
    "make",
    [
        lambda path: open_inbox(f"sqlite:///{path}"),
        lambda path: open_inbox(f"sqlite:///file:{path}?uri=true"),
        lambda path: SqlInbox(create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")),
        lambda path: Spool(f"sqlite:///{path}"),
    ],
    ids=["url", "uri", "engine", "spool"],
)
@pytest.mark.parametrize("first", ["open", "migrate"])
def test_a_new_file_is_readable_by_its_owner_only(make, first, tmp_path):
    with closing(make(tmp_path / "inbox.db")) as inbox:
        getattr(inbox, first)()
        add(inbox)
        files = permissions(tmp_path)
        assert set(files.values()) == {0o600}
        assert "inbox.db" in files


def test_wal_files_have_the_same_permissions(tmp_path):
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        add(inbox)
        assert permissions(tmp_path) == dict.fromkeys(("inbox.db", "inbox.db-wal", "inbox.db-shm"), 0o600)


def test_an_existing_file_is_not_changed(tmp_path):
    file = tmp_path / "inbox.db"
    file.touch()
    file.chmod(0o660)
    with closing(open_inbox(f"sqlite:///{file}")) as inbox:
        add(inbox)
        assert set(permissions(tmp_path).values()) == {0o660}


def test_a_dangling_link_creates_its_target(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "inbox.db").symlink_to(tmp_path / "data" / "events.db")
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        add(inbox)
        assert set(permissions(tmp_path / "data").values()) == {0o600}


def test_the_file_is_created_with_its_final_permissions(tmp_path, monkeypatch):
    calls = []
    unpatched = os.open

    def recording_open(path, flags, mode=0o777, **options):
        calls.append((flags & os.O_EXCL, mode))
        return unpatched(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", recording_open)
    os.umask(0)
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        inbox.open()
    assert calls == [(os.O_EXCL, 0o600)]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nowhere/inbox.db", "the directory .*/nowhere does not exist"),
        ("file/inbox.db", "cannot create .*/file/inbox.db: Not a directory"),
    ],
)
def test_a_missing_directory_is_reported(path, error, tmp_path):
    (tmp_path / "file").touch()
    inbox = open_inbox(f"sqlite:///{tmp_path}/{path}")
    for use in (inbox.open, inbox.migrate, inbox.stats):
        with pytest.raises(ConfigurationError, match=error):
            use()
    inbox.close()


# Working directories


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a function that writes a module into another directory than the working directory, and its name."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.syspath_prepend(home)
    monkeypatch.chdir(elsewhere)
    modules = []

    def write(inbox="sqlite:///envoyou.db", spool=None):
        modules.append(f"site_{len(modules)}_{tmp_path.name.replace('-', '_')}")
        (home / f"{modules[-1]}.py").write_text(HOOKS.format(inbox=inbox, spool=spool))
        return modules[-1]

    yield write
    for name in modules:
        sys.modules.pop(name, None)


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})


COMMANDS = [
    ("worker",),
    ("stats",),
    ("stats", "--json"),
    ("workers",),
    ("events", "list"),
    ("events", "show", "evt_1"),
    ("events", "requeue", "evt_1"),
    ("pause", "--type", "*"),
    ("resume", "--type", "*"),
    ("prune",),
    ("prune", "--older-than", "1d"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_another_working_directory_do_not_create_an_inbox(command, site, tmp_path):
    result = run("--app", site(), *command)
    elsewhere = tmp_path / "elsewhere"
    assert result.exit_code == 1
    assert f"no inbox exists at {elsewhere}/envoyou.db" in result.stderr
    assert f"relative to the working directory, {elsewhere}" in result.stderr
    assert "to an absolute path in all processes, such as sqlite:////srv/app/envoyou.db" in result.stderr
    assert "start the web application first" in result.stderr
    assert result.stdout == ""
    assert list(elsewhere.iterdir()) == []


def test_a_worker_reports_a_missing_spool_at_a_relative_path(site, tmp_path):
    result = run("--app", site(inbox=f"sqlite:///{tmp_path}/envoyou.db", spool="sqlite:///spool.db"), "worker")
    assert result.exit_code == 1
    assert f"no spool exists at {tmp_path}/elsewhere/spool.db" in result.stderr
    assert "set spool (ENVOYOU_SPOOL) to an absolute path" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_only_a_worker_creates_an_inbox_at_an_absolute_path(site, tmp_path):
    hooks = site(inbox=f"sqlite:///{tmp_path}/envoyou.db", spool=f"sqlite:///{tmp_path}/spool.db")
    result = run("--app", hooks, "stats")
    assert result.exit_code == 1
    assert f"no inbox exists at {tmp_path}/envoyou.db: check the path" in result.stderr
    assert not (tmp_path / "envoyou.db").exists()
    sys.modules.pop(hooks)
    assert "the worker has started" in run("--app", hooks, "worker").stderr
    assert (tmp_path / "envoyou.db").exists()
    result = run("--app", hooks, "stats")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["inbox", f"sqlite:///{tmp_path}/envoyou.db"] in lines
    assert ["spool", f"sqlite:///{tmp_path}/spool.db"] in lines


def test_a_relative_path_works_in_the_directory_of_the_application(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    with closing(open_inbox("sqlite:///envoyou.db")) as inbox:
        add(inbox)
    hooks = site()
    assert f"sqlite:///{tmp_path}/home/envoyou.db" in run("--app", hooks, "stats").stdout
    assert "the worker has started" in run("--app", hooks, "worker").stderr


def test_migrate_creates_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVOYOU_INBOX", "sqlite:///envoyou.db")
    assert run("migrate").exit_code == 0
    assert (tmp_path / "envoyou.db").exists()


def test_the_worker_logs_the_path_of_the_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    webhooks = Webhooks(secret="s")
    webhooks.on("*")(print)
    caplog.set_level(logging.INFO, "envoyou")
    webhooks.start()
    webhooks.stop()
    webhooks.inbox.close()
    assert f"worker default started (thread), inbox sqlite:///{tmp_path}/envoyou.db, handlers print" in caplog.messages


def test_a_changed_working_directory_does_not_change_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(open_inbox("sqlite:///envoyou.db")) as inbox:
        monkeypatch.chdir("/")
        # What a forked child does first.
        inbox._reset_after_fork()
        add(inbox)
    assert (tmp_path / "envoyou.db").exists()
