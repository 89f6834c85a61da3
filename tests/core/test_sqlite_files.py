"""The SQLite file of an inbox: its rights, and which one it is in another working directory."""

import logging
import os
import stat
import sys
from contextlib import closing

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.cli.commands import app
from envoyou_core.inbox import open_inbox
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.spool.spool import Spool
from tests.inbox.contract import add

HOOKS = """
from envoyou_core import Webhooks

webhooks = Webhooks(secret="s", inbox={inbox!r}, spool={spool!r}, handoff="manual")


@webhooks.on("user.created")
def welcome(event): ...


@webhooks.on_worker_start
def end():
    raise RuntimeError("the worker has started")
"""


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(folder):
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


# Rights


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
def test_a_new_file_is_its_owners_only(make, first, tmp_path):
    with closing(make(tmp_path / "inbox.db")) as inbox:
        getattr(inbox, first)()
        add(inbox)
        found = rights(tmp_path)
        assert set(found.values()) == {0o600}
        assert "inbox.db" in found


def test_the_files_beside_it_have_its_rights(tmp_path):
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        add(inbox)
        assert rights(tmp_path) == dict.fromkeys(("inbox.db", "inbox.db-wal", "inbox.db-shm"), 0o600)


def test_an_existing_file_keeps_its_rights(tmp_path):
    file = tmp_path / "inbox.db"
    file.touch()
    file.chmod(0o660)
    with closing(open_inbox(f"sqlite:///{file}")) as inbox:
        add(inbox)
        assert set(rights(tmp_path).values()) == {0o660}


def test_a_link_to_a_file_that_does_not_exist_yet(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "inbox.db").symlink_to(tmp_path / "data" / "events.db")
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        add(inbox)
        assert set(rights(tmp_path / "data").values()) == {0o600}


def test_it_is_never_readable_by_others_not_even_for_a_moment(tmp_path, monkeypatch):
    made = []
    unpatched = os.open

    def watched(path, flags, mode=0o777, **options):
        made.append((flags & os.O_EXCL, mode))
        return unpatched(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", watched)
    os.umask(0)
    with closing(open_inbox(f"sqlite:///{tmp_path}/inbox.db")) as inbox:
        inbox.open()
    assert made == [(os.O_EXCL, 0o600)]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere/inbox.db", "the directory .*/nowhere does not exist"),
        ("file/inbox.db", "cannot create .*/file/inbox.db: Not a directory"),
    ],
)
def test_a_directory_that_is_missing_is_named(path, says, tmp_path):
    (tmp_path / "file").touch()
    inbox = open_inbox(f"sqlite:///{tmp_path}/{path}")
    for use in (inbox.open, inbox.migrate, inbox.stats):
        with pytest.raises(ConfigurationError, match=says):
            use()
    inbox.close()


# Working directories


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An application's directory, and another one in which its command is run; writes the module and names it."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.syspath_prepend(home)
    monkeypatch.chdir(elsewhere)
    made = []

    def write(inbox="sqlite:///envoyou.db", spool=None):
        made.append(f"site_{len(made)}_{tmp_path.name.replace('-', '_')}")
        (home / f"{made[-1]}.py").write_text(HOOKS.format(inbox=inbox, spool=spool))
        return made[-1]

    yield write
    for name in made:
        sys.modules.pop(name, None)


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})


COMMANDS = [
    ("worker",),
    ("stats",),
    ("stats", "--json"),
    ("events",),
    ("events", "evt_1"),
    ("requeue", "evt_1"),
    ("pause", "--type", "*"),
    ("resume", "--type", "*"),
    ("prune",),
    ("prune", "--older-than", "1d"),
]


@pytest.mark.parametrize(("command", "options"), [(command, options) for command, *options in COMMANDS])
def test_a_command_in_another_working_directory_creates_no_inbox_and_says_what_to_do(command, options, site, tmp_path):
    result = run(command, site(), *options)
    elsewhere = tmp_path / "elsewhere"
    assert result.exit_code == 1
    assert f"no inbox exists at {elsewhere}/envoyou.db" in result.stderr
    assert f"relative to the working directory, {elsewhere}" in result.stderr
    assert "to an absolute path in all processes, such as sqlite:////srv/app/envoyou.db" in result.stderr
    assert "start the web application first" in result.stderr
    assert result.stdout == ""
    assert list(elsewhere.iterdir()) == []


def test_a_worker_that_finds_no_spool_at_a_relative_path(site, tmp_path):
    result = run("worker", site(inbox=f"sqlite:///{tmp_path}/envoyou.db", spool="sqlite:///spool.db"))
    assert result.exit_code == 1
    assert f"no spool exists at {tmp_path}/elsewhere/spool.db" in result.stderr
    assert "set spool (ENVOYOU_SPOOL) to an absolute path" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_worker_creates_an_inbox_at_an_absolute_path_and_other_commands_do_not(site, tmp_path):
    hooks = site(inbox=f"sqlite:///{tmp_path}/envoyou.db", spool=f"sqlite:///{tmp_path}/spool.db")
    result = run("stats", hooks)
    assert result.exit_code == 1
    assert f"no inbox exists at {tmp_path}/envoyou.db: check the path" in result.stderr
    assert not (tmp_path / "envoyou.db").exists()
    sys.modules.pop(hooks)
    assert "the worker has started" in run("worker", hooks).stderr
    assert (tmp_path / "envoyou.db").exists()
    result = run("stats", hooks)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["inbox", f"sqlite:///{tmp_path}/envoyou.db"] in lines
    assert ["spool", f"sqlite:///{tmp_path}/spool.db"] in lines


def test_in_the_applications_directory_a_relative_path_is_found(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    with closing(open_inbox("sqlite:///envoyou.db")) as inbox:
        add(inbox)
    hooks = site()
    assert f"sqlite:///{tmp_path}/home/envoyou.db" in run("stats", hooks).stdout
    assert "the worker has started" in run("worker", hooks).stderr


def test_migrate_creates_what_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("migrate", "--inbox", "sqlite:///envoyou.db").exit_code == 0
    assert (tmp_path / "envoyou.db").exists()


def test_the_start_line_of_a_worker_names_the_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    webhooks = Webhooks(secret="s")
    webhooks.on("*")(print)
    caplog.set_level(logging.INFO, "envoyou")
    webhooks.start()
    webhooks.stop()
    webhooks.inbox.close()
    assert f"worker default started (thread), inbox sqlite:///{tmp_path}/envoyou.db" in caplog.messages


def test_a_process_that_changes_its_directory_keeps_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(open_inbox("sqlite:///envoyou.db")) as inbox:
        monkeypatch.chdir("/")
        # What a forked child does first.
        inbox._begin_anew()
        add(inbox)
    assert (tmp_path / "envoyou.db").exists()
