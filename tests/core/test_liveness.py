"""Whether a process is gone: the rules, and what the operating system shows."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from envoyou_core.inbox import HandlerSet, Process, ProcessKind, proc_files
from envoyou_core.inbox.liveness import LocalProcesses, is_gone
from envoyou_core.inbox.proc_files import Stat, read_stat

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVER = Process(
    "b" * 32, ProcessKind.WORKER, HandlerSet.of(()), "web-1", 1, "1.0", NOW, NOW, "boot", "pid:[4026531836]", 7
)
HOLDER = replace(OBSERVER, id="a" * 32, pid=4711, pid_started=99)


class Table:
    """A process table with at most one process, the one with the id of the holder."""

    def __init__(self, stat=None, *, exists=True):
        self._exists, self._stat = exists, stat

    def exists(self, pid):
        assert pid == HOLDER.pid
        return self._exists

    def stat(self, pid):
        assert self._exists
        return self._stat


ABSENT = Table(exists=False)
LIVE = Table(Stat(started=99, is_zombie=False))
ZOMBIE = Table(Stat(started=99, is_zombie=True))
ANOTHER = Table(Stat(started=100, is_zombie=False))
UNREADABLE = Table()


@pytest.mark.parametrize("table", [ABSENT, ZOMBIE, ANOTHER], ids=["absent", "zombie", "another with its id"])
def test_a_process_is_gone(table):
    assert is_gone(HOLDER, OBSERVER, table)


@pytest.mark.parametrize("table", [LIVE, UNREADABLE], ids=["live", "unreadable"])
def test_a_process_may_be_live(table):
    assert not is_gone(HOLDER, OBSERVER, table)


@pytest.mark.parametrize("table", [ABSENT, ZOMBIE, ANOTHER], ids=["absent", "zombie", "another with its id"])
@pytest.mark.parametrize(
    ("holder", "observer"),
    [
        (replace(HOLDER, boot_id="another"), OBSERVER),
        (replace(HOLDER, boot_id=None), OBSERVER),
        (HOLDER, replace(OBSERVER, boot_id=None)),
        (replace(HOLDER, boot_id=None), replace(OBSERVER, boot_id=None)),
        (replace(HOLDER, pid_namespace="pid:[4026532000]"), OBSERVER),
        (replace(HOLDER, pid_namespace=None), OBSERVER),
        (HOLDER, replace(OBSERVER, pid_namespace=None)),
        (replace(HOLDER, pid_namespace=None), replace(OBSERVER, pid_namespace=None)),
    ],
)
def test_a_process_of_another_boot_or_namespace_may_be_live_whatever_is_found_here(holder, observer, table):
    assert not is_gone(holder, observer, table)


def test_a_process_whose_start_is_unknown_may_be_the_one_with_its_id():
    holder = replace(HOLDER, pid_started=None)
    assert not is_gone(holder, OBSERVER, ANOTHER)
    assert is_gone(holder, OBSERVER, ABSENT)


# What the operating system shows


@linux
def test_the_end_of_a_process_is_seen_before_and_after_its_parent_has_noticed():
    table = LocalProcesses()
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        stat = table.stat(process.pid)
        assert stat is not None
        assert not stat.is_zombie
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert table.exists(process.pid)
        assert table.stat(process.pid) == replace(stat, is_zombie=True)
    finally:
        process.kill()
        process.communicate()
    assert not table.exists(process.pid)


@pytest.mark.parametrize("pid", [0, -1, 2**70])
def test_what_cannot_be_a_process_id_is_not_judged(pid):
    assert LocalProcesses().exists(pid)
    assert LocalProcesses().stat(pid) is None


@linux
def test_a_process_knows_its_own_start():
    own = read_stat()
    assert own == read_stat(os.getpid())
    assert own is not None


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """An empty folder in place of `/proc`."""
    monkeypatch.setattr(proc_files, "PROC", tmp_path)
    return tmp_path


def write_stat(proc, state, threads, name="worker (1) x"):
    (proc / "7").mkdir(exist_ok=True)
    fields = [state, *["0"] * 16, threads, "0", "99", "0"]
    (proc / "7" / "stat").write_text(f"7 ({name}) {' '.join(fields)}\n")


@pytest.mark.parametrize(
    ("state", "threads", "is_zombie"),
    [
        ("S", "3", False),
        ("T", "1", False),
        ("Z", "1", True),
        # The main thread has ended, and a handler may still run in another.
        ("Z", "2", False),
        ("X", "0", True),
    ],
)
def test_a_process_is_a_zombie_when_all_its_threads_have_ended(proc, state, threads, is_zombie):
    write_stat(proc, state, threads)
    assert read_stat(7) == Stat(started=99, is_zombie=is_zombie)


@pytest.mark.parametrize("content", [None, "", "7 (worker", "7 (worker) S 1 2", "7 (worker) " + "x " * 30])
def test_what_cannot_be_read_is_unknown(proc, content):
    if content is not None:
        (proc / "7").mkdir()
        (proc / "7" / "stat").write_text(content)
    assert read_stat(7) is None
    assert (proc_files.boot_id(), proc_files.pid_namespace(), read_stat()) == (None, None, None)
    assert LocalProcesses().stat(os.getpid()) is None


@pytest.mark.parametrize(
    ("status", "is_shown"),
    [
        ("NSpid:\t{pid}\n", True),
        # This is the `/proc` of a parent namespace, in which the same id may be that of another process.
        ("NSpid:\t{pid}\t1\n", False),
        ("NSpid:\t4711{pid}\n", False),
        ("Pid:\t{pid}\n", False),
    ],
)
def test_processes_are_looked_up_only_under_the_ids_of_this_namespace(proc, status, is_shown):
    write_stat(proc, "S", "1")
    (proc / "self").mkdir()
    (proc / "self" / "status").write_text("Name:\tworker\n" + status.format(pid=os.getpid()))
    assert (LocalProcesses().stat(7) is not None) is is_shown


@linux
def test_a_new_namespace_without_a_proc_of_its_own_is_noticed(unshare):
    code = "from envoyou_core.inbox.proc_files import shows_own_namespace; print(shows_own_namespace())"
    for options, expected in ([], "False"), (["--mount-proc"], "True"):
        shown = subprocess.run(
            [*unshare, *options, sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert shown.stdout.strip() == expected


@pytest.fixture
def unshare():
    return pid_namespace_command()


def pid_namespace_command() -> list[str]:
    """Return the command that runs another one in a pid namespace of its own; skip the test if that is not allowed."""
    as_root = ["unshare", "--pid", "--fork", "--kill-child"]
    for command in (as_root, [*as_root, "--user", "--map-root-user"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "--mount-proc", "true"], capture_output=True).returncode == 0
        ):
            return command
    pytest.skip("a pid namespace of its own requires Linux, unshare, and root or user namespaces")
