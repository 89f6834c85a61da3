"""Tests of `make demo`, run in a process: its exit status is 0 only if all outcomes are as expected."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from envoyou_core import EVENT_TYPES

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PACKAGES = ("envoyou_core", "envoyou_fastapi")
TIMEOUT = 120
"""Seconds until a run counts as failed, even on a slow machine."""

PROCESS = re.compile(r"uvicorn, process (\d+)")

SIGNATURE = (
    "reception/signature.py",
    "if hmac.compare_digest(key.signature(timestamp, content).encode(), signature):",
    "if key.signature(timestamp, content):",
)
TOLERANCE = (
    "reception/signature.py",
    "if abs(now - int(timestamp)) > tolerance:",
    "if now - int(timestamp) > tolerance:",
)
NO_RETRY = (
    "worker/attempt.py",
    "if self.number >= max_attempts:",
    "if self.number >= 1:",
)
NO_DELAY = (
    "worker/attempt.py",
    "return self._ended(Status.FAILED, progress, error, retry_in=delay, owed=owed)",
    "return self._ended(Status.FAILED, progress, error, retry_in=0.0, owed=owed)",
)
RETRY_NEVER_COMES = (
    "worker/attempt.py",
    "return self._ended(Status.FAILED, progress, error, retry_in=delay, owed=owed)",
    "return self._ended(Status.FAILED, progress, error, retry_in=None, owed=owed)",
)
HANDLERS_DO_NOT_RUN = (
    "worker/engine.py",
    "            yield invocation.step()",
    "            invocation.step()",
)


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages and the examples that a test may break."""
    folder = tmp_path / "copy"
    for name in PACKAGES:
        shutil.copytree(Path(find_spec(name).origin).parent, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(PROJECT / "example_projects", folder / "example_projects")
    (tmp_path / "temporary").mkdir()
    return folder


def environment(copy, **more):
    kept = {
        name: it for name, it in os.environ.items() if not name.startswith(("COVERAGE", "COV_", "ENVOYOU_", "COLUMNS"))
    }
    return kept | {"PYTHONPATH": str(copy), "TMPDIR": str(copy.parent / "temporary"), "TERM": "xterm-256color"} | more


def command(copy, *arguments):
    return [sys.executable, str(copy / "example_projects" / "demo"), *arguments]


def run(copy, *arguments, **more):
    return subprocess.run(
        command(copy, *arguments),
        env=environment(copy, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )


def break_core(copy, breakage):
    path, before, after = breakage
    file = copy / "envoyou_core" / path
    source = file.read_text()
    assert source.count(before) == 1, f"{path} has changed: {before!r} occurs {source.count(before)} times"
    file.write_text(source.replace(before, after))


def left_behind(copy):
    return list((copy.parent / "temporary").iterdir())


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_outcomes_are_as_expected(copy):
    ran = run(copy)
    assert ran.returncode == 0, ran.stdout
    assert "\x1b" not in ran.stdout
    lines = ran.stdout.splitlines()
    for type in EVENT_TYPES:
        accepted = [line for line in lines if line.startswith(f"ok  {type} ") and '200 {"received": true}' in line]
        assert [line for line in accepted if "processed, " in line], type
    refused = [line for line in lines if '401 {"error": "unauthorized"' in line]
    assert len(refused) == 4
    assert all(line.startswith("ok ") and line.endswith("not in the inbox") for line in refused)
    assert [line for line in lines if '"duplicate": true}' in line and line.endswith("processed, 1 attempt")]
    assert [line for line in lines if line.startswith("ok  api.quota_exceeded") and line.endswith("3 attempts")]
    assert "sent     20 deliveries: 15 accepted, 1 duplicate, 4 refused" in lines
    assert "kept     15 events: 14 processed, 1 ignored" in lines
    assert "types    14 of the guide's 14 event types processed" in lines
    assert lines[-1] == "All 20 deliveries came out as promised."
    assert not is_running(int(PROCESS.search(ran.stdout)[1]))
    assert left_behind(copy) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        pytest.param(SIGNATURE, "user.updated (the body was tampered with): answered 200", id="signature not compared"),
        pytest.param(TOLERANCE, "auth.login (the timestamp is to come): answered 200", id="tolerance one-sided"),
        pytest.param(NO_RETRY, "dead at attempt 1, promised processed at attempt 3", id="no retry"),
        pytest.param(NO_DELAY, "promised 2 s", id="retry without delay"),
        pytest.param(RETRY_NEVER_COMES, "failed at attempt 1, promised processed at attempt 3", id="retry never comes"),
        pytest.param(HANDLERS_DO_NOT_RUN, "/users/user_ada says nothing, promised", id="handlers do not run"),
    ],
)
def test_a_broken_core_is_detected(copy, breakage, said):
    break_core(copy, breakage)
    ran = run(copy, "--patience", "10")
    assert ran.returncode == 1, ran.stdout
    assert said in ran.stdout.partition("Not as promised:")[2]
    assert left_behind(copy) == []


def test_a_server_that_does_not_start_is_reported(copy):
    (copy / "example_projects" / "fastapi_app" / "app.py").write_text("raise RuntimeError('it does not start')\n")
    ran = run(copy)
    assert ran.returncode == 2
    assert "The demonstration could not be held" in ran.stdout
    assert "it does not start" in ran.stdout
    assert left_behind(copy) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.long) for n in (signal.SIGTERM, signal.SIGHUP))]
)
def test_an_interrupted_run_ends_its_server(copy, number):
    with subprocess.Popen(
        command(copy), env=environment(copy, PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE, text=True
    ) as demo:
        try:
            server = next(int(found[1]) for line in demo.stdout if (found := PROCESS.search(line)))
            assert is_running(server)
            demo.send_signal(number)
            demo.send_signal(number)
            assert demo.wait(TIMEOUT) == 130
        finally:
            demo.kill()
    assert not is_running(server)
    assert left_behind(copy) == []


@contextmanager
def terminal(columns, lines):
    """Yield both ends of a terminal of the given size."""
    import fcntl
    import struct
    import termios

    watched, written = pty.openpty()
    fcntl.ioctl(written, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    try:
        yield watched, written
    finally:
        os.close(watched)


def read_all(watched):
    deadline = time.monotonic() + TIMEOUT
    pieces = []
    while time.monotonic() < deadline:
        try:
            piece = os.read(watched, 65536)
        except OSError:  # how Linux says that the other end was closed
            piece = b""
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)
    raise TimeoutError("the demonstration did not end")


@pytest.mark.parametrize(("columns", "lines"), [pytest.param(140, 50, marks=pytest.mark.long), (80, 24)])
def test_on_a_terminal_it_is_a_table_in_colour(copy, columns, lines):
    with terminal(columns, lines) as (watched, written):
        demo = subprocess.Popen(command(copy), env=environment(copy), stdin=written, stdout=written, stderr=written)
        os.close(written)
        try:
            seen = read_all(watched)
            assert demo.wait(TIMEOUT) == 0, seen
        finally:
            demo.kill()
            demo.wait()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen[seen.rindex("event type   ") :])
    for type in EVENT_TYPES:
        assert re.search(rf"^{re.escape(type)} .* processed .* ✓", last, re.MULTILINE), type
    assert "20 of 20 settled" in last
    assert "All 20 deliveries came out as promised." in last
    assert "\x1b[32m" in seen
    assert all(len(line.rstrip()) <= columns for line in last.splitlines())
