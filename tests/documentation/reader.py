"""Follows a page block by block, from top to bottom, as a reader would in an empty directory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO
from urllib.request import urlopen

from tests.documentation.launchers import Launcher, Running
from tests.documentation.pages import PROJECT, Block
from tests.documentation.session import END

DISTRIBUTION = "envoyou-webhooks"

WEB_SERVERS = (r"python manage\.py (runserver|demo)\b", r"flask( --app \w+)? run\b", r"uvicorn\b", r"gunicorn\b")
WORKERS = (r"(flask |python manage\.py )?envoyou worker\b(?!.*--(?!metrics-port))",)
SIMULATOR = r"envoyou (simulate|dev)\b"
"""Commands that run until they are stopped. They stay in the background."""

USUAL_PORTS = re.compile(r"\b(127\.0\.0\.1|localhost):(?:5000|8000)\b")
"""The addresses on the pages, whose port is replaced by a free one."""

PLATFORM_PORT = re.compile(r"\b8787\b")
"""The port of the local platform on the pages, which is replaced by a free one as well."""

METRICS_PORT = re.compile(r"\b9464\b")
"""The port of a worker's metrics on the pages, which is replaced by a free one as well."""

VARIABLE = re.compile(r"( ?\.\.\. ?|\bevt_\w+|\d{4}-\d\d-\d\d[ T][\d:.]+(?:\+00:00|Z)?|\b\d+(?:\.\d+)? s\b)")
"""What may differ from the page: anything for `...`, ids, times, durations."""

READING = re.compile(r"\b(list|show|stats|workers|handlers|curl)\b")
"""Commands that a reader repeats until they show what the page shows."""

PAUSE = 1.0
"""Seconds before a reader repeats a command."""

INSTALL_TIMEOUT = 300
TIMEOUT = 60
"""Seconds until a step counts as failed, even on a slow machine."""


@dataclass(frozen=True)
class Session:
    """A Python shell: the running process, the file of its output, and the pipe that has the snippets."""

    running: Running
    output: Path
    pipe: TextIO

    def shown(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def has_run(self, snippets: int) -> bool:
        """Return whether so many snippets have been run, and the last line about it is complete."""
        return len(re.findall(rf"{END}\w+\n", self.shown())) >= snippets

    def has_ended(self) -> bool:
        return self.running.poll() is not None


class Reader:
    """Does what a page says.

    Attributes:
        folder: the current directory; a page may `cd`.

    Args:
        folder: an empty directory.
        scripts: the directory of the commands of a virtual environment.
        launcher: starts the commands.
        installs: whether `pip install` installs; otherwise, what it names must be there.
    """

    def __init__(self, folder: Path, scripts: Path, launcher: Launcher, *, installs: bool = False) -> None:
        self.folder = folder / "project"
        self.folder.mkdir(exist_ok=True)
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._scripts = scripts
        self._launcher = launcher
        self._installs = installs
        self._replaced: dict[str, str] = {}
        self.port = _free_port()
        self._platform_port = _free_port()
        self._metrics_port = _free_port()
        # Remove everything of this project, its settings and this test run from the environment.
        ours = ("COVERAGE", "COV_", "DJANGO_", "ENVOYOU_", "FLASK_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "__PYVENV")
        self._environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)} | {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "FLASK_RUN_PORT": str(self.port),
            "UVICORN_PORT": str(self.port),
            "no_proxy": "127.0.0.1",
            "COLUMNS": "200",
        }
        self._servers: dict[str, Running] = {}
        self._shown = folder / "shown"
        self._sessions: dict[bool, Session] = {}
        self._number_of_sessions = 0
        self._ids: dict[str, str] = {}
        self.printed = ""

    def replace(self, shown: str, actual: str) -> None:
        """Use `actual`, such as the URL of a database, for `shown` on the page."""
        self._replaced[shown] = actual

    def follow(self, blocks: Iterable[Block]) -> str:
        """Write the files, run the commands and the snippets, and compare their output; return the last output."""
        blocks = list(blocks)
        for block, following in pairwise([*blocks, Block("", "")]):
            if block.language == "console":
                self.type(block.code, may_fail=following.language == "text")
            elif block.language == "text":
                self.compare(block.code)
            elif block.file is not None:
                self.write(block.file, block.code, adds=block.adds)
            elif block.language == "python":
                self.printed = self.execute(block.code)
            elif block.language == "sql":
                self.query(block.code)
            else:
                raise AssertionError(f"nothing is done with this block of {block.language}:\n{block.code}")
        return self.printed

    # Files

    def write(self, name: str, code: str, *, adds: bool = False) -> None:
        """Write a file, or append to it. A Python session of before does not know it."""
        self._end_sessions()
        code = self._here(code)
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.read_text(encoding="utf-8") + "\n" + code if adds else code, encoding="utf-8")
        if file.suffix == ".py":
            compile(file.read_text(encoding="utf-8"), name, "exec")
        # The times of two versions that are written within one second may be equal.
        for cached in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            cached.unlink()

    def query(self, sql: str) -> None:
        """Run a query on the SQLite file in the directory."""
        file = "db.sqlite3" if "envoyou_processed_event" in sql else "envoyou.db"
        with contextlib.closing(sqlite3.connect(self.folder / file)) as database:
            self.printed = "\n".join("|".join(map(str, row)) for row in database.execute(sql))

    # Commands

    def type(self, console: str, *, may_fail: bool = False) -> None:
        """Run the commands of a block; if `may_fail`, the last one may, because the page shows what it prints."""
        lines = console.replace("\\\n", " ").splitlines()
        for number, line in enumerate(lines, start=1):
            line = self._here(line.partition("  # ")[0].strip())
            if line and not line.startswith("#"):
                self._type_line(line, may_fail=may_fail and number == len(lines))

    def _type_line(self, line: str, *, may_fail: bool) -> None:
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self._environment[name] = value
        elif words[0] == "unset":
            del self._environment[words[1]]
        elif words[0] == "cd":
            self.folder /= words[1]
        elif words[:2] == ["pip", "install"]:
            self._install(words[2:])
        elif any(re.match(pattern, line) for pattern in WEB_SERVERS):
            self._serve(line)
        elif any(re.match(pattern, line) for pattern in WORKERS):
            self._start(line)
            self.wait_for("the start of the worker", lambda: re.search(r"worker \S+ started", self._log_of(line)))
        elif re.match(SIMULATOR, line):
            for running in [running for running in self._servers if re.match(SIMULATOR, running)]:
                self._stop(running)
            self._start(line)
            self.wait_for("the start of the platform", lambda: "API is at" in self._log_of(line))
        else:
            if re.search(r"\benvoyou trigger(?!.* --to )", line):
                line = f"{line} --server http://127.0.0.1:{self.port}"  # instead of the usual port
            self._last = line
            self.printed = self.run(line, may_fail=may_fail)

    def run(self, line: str, *, may_fail: bool = False, timeout: float = TIMEOUT) -> str:
        """Run a command and return what it shows."""
        self._shown.unlink(missing_ok=True)
        code = self._launcher.start(line, self.folder, self._environment, self._shown).wait(timeout)
        shown = self._shown.read_text(errors="replace")
        assert code in ((0, 1) if may_fail else (0,)), f"{line}\n{shown}\n{self.logs()}"
        return shown

    def _install(self, requirements: list[str]) -> None:
        named = [word for word in requirements if not word.startswith("-")]
        if not self._installs:
            for requirement in named:
                _check_installed(requirement)
            return
        from uv import find_uv_bin

        # Build and install this source instead of the released distribution.
        from_here = [re.sub(rf"^{DISTRIBUTION}(?=\[|$)", str(PROJECT), word) for word in named]
        install = [find_uv_bin(), "pip", "install", "-q", "--python", str(self._scripts / "python")]
        self.run(shlex.join([*install, "--refresh-package", DISTRIBUTION, *from_here]), timeout=INSTALL_TIMEOUT)

    # Servers and workers

    def _serve(self, line: str) -> None:
        if line.startswith("python manage.py"):
            # The port is an argument; without a reloader there is one process to stop.
            line = f"{line} 127.0.0.1:{self.port}" + " --noreload" * ("runserver" in line)
        elif line.startswith("gunicorn") and "--bind" not in line:
            line = line.replace("gunicorn", f"gunicorn --bind 127.0.0.1:{self.port}", 1)
        # A reader stops the server before starting it again.
        for running in list(self._servers):
            if any(re.match(pattern, running) for pattern in WEB_SERVERS):
                self._stop(running)
        self._start(line)
        self.wait_for("an open port", lambda: _is_open(self.port))

    def _start(self, line: str) -> None:
        if line in self._servers:
            self._stop(line)
        self._log_file(line).unlink(missing_ok=True)
        running = self._launcher.start(f"{line}", self.folder, self._environment, self._log_file(line))
        self._servers[line] = running

    def _stop(self, line: str) -> None:
        server = self._servers.pop(line)
        # The group also has the children of a server that has several processes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def _log_file(self, line: str) -> Path:
        return self._logs / f"{re.sub(r'[^a-z]+', '-', line)[:40]}.log"

    def _log_of(self, line: str) -> str:
        file = self._log_file(line)
        return file.read_text(errors="replace") if file.exists() else ""

    def logs(self) -> str:
        """Return what the servers have printed."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self._logs.iterdir()))

    # Python

    def execute(self, code: str) -> str:
        """Run a snippet in the page's Python session, and return what it prints.

        Snippets about Django run in a session of their own, as in `manage.py shell`.
        """
        in_django = re.search(r"^from (envoyou_)?django", code, re.MULTILINE) is not None
        if in_django not in self._sessions:
            self._sessions[in_django] = self._new_session(in_django)
        session = self._sessions[in_django]
        before = session.shown().count(END)
        session.pipe.write(json.dumps(self._here(code)) + "\n")
        session.pipe.flush()
        self.wait_for("the end of the snippet", lambda: session.has_run(before + 1) or session.has_ended())
        assert not session.has_ended(), f"the session ended\n{session.shown()}"
        shown, _, succeeded = session.shown().split("\n" + END, before)[-1].partition(END)
        shown = shown.partition("\n")[2] if before else shown
        # A thread of the snippet may have printed more since.
        assert succeeded.startswith("True"), f"{code}\n{shown}"
        return shown

    def _new_session(self, in_django: bool) -> Session:
        environment = dict(self._environment)
        if in_django:
            manage = (self.folder / "manage.py").read_text("utf-8")
            module = re.search(r"DJANGO_SETTINGS_MODULE.+?([\w.]+)[\"']\)", manage)
            assert module is not None
            environment["DJANGO_SETTINGS_MODULE"] = module[1]
        self._number_of_sessions += 1
        pipe = self._logs.with_name(f"session-{self._number_of_sessions}")
        os.mkfifo(pipe)
        output = pipe.with_suffix(".log")
        command = shlex.join(["python", str(Path(__file__).with_name("session.py")), str(pipe)])
        running = self._launcher.start(command, self.folder, environment, output)
        # For reading as well: otherwise, opening it would wait for the shell.
        return Session(running, output, os.fdopen(os.open(pipe, os.O_RDWR), "w", encoding="utf-8"))

    def _end_sessions(self) -> None:
        while self._sessions:
            _, session = self._sessions.popitem()
            session.pipe.close()
            session.running.wait(TIMEOUT)

    # What is shown

    def compare(self, text: str) -> None:
        """Wait until every line of `text` has been shown, by the last command or by a server.

        White space, ids, times and durations may differ, and `...` stands for anything.
        """
        for line in filter(None, map(str.strip, text.splitlines())):
            pattern = self._pattern(self._here(line))
            match = self.wait_for(line, lambda pattern=pattern: self._find(pattern))
            self._ids |= {name: value for name, value in match.groupdict().items() if name not in self._ids}

    def wait_for(self, what: str, look: Callable[[], Any]) -> Any:
        """Call `look` until it returns a true value, while the servers run, and return that value."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := look()):
            ended = [line for line, server in self._servers.items() if server.poll() is not None]
            assert not ended, f"{ended} ended\n{self.logs()}"
            assert time.monotonic() < deadline, f"{what!r} did not come\n{self.printed}\n{self.logs()}"
            time.sleep(0.1)
        return value

    def fetch(self, path: str) -> str:
        """Return a page of the server."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT) as response:
            return str(response.read().decode())

    def leave(self) -> None:
        """Stop what is running."""
        self._end_sessions()
        for line in list(self._servers):
            self._stop(line)

    _last = ""

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        shown = _collapsed(self.printed)
        match = pattern.search(shown) or pattern.search(_collapsed(self.logs()))
        if match is None and READING.search(self._last):
            time.sleep(PAUSE)
            self.printed = self.run(self._last, may_fail=True)
        return match

    def _pattern(self, line: str) -> re.Pattern[str]:
        """Return a pattern for a line on a page; an id on it is a group with the name of the id."""
        parts = re.split(
            r"( ?\.\.\. ?|\b(?:evt|wh)_\w+|\d{4}-\d\d-\d\d[ T][\d:.]+(?:\+00:00|Z)?|\b\d+(?:\.\d+)? s\b)",
            _collapsed(line),
        )
        found = set[str]()
        pattern = ""
        for part in parts:
            if part.startswith(("evt_", "wh_")) and part not in self._ids.values():
                pattern += f"(?P={part})" if part in found else rf"(?P<{part}>{part.partition('_')[0]}_\w+)"
                found.add(part)
            elif part.strip() == "...":
                pattern += ".*"
            elif re.fullmatch(r"\d{4}-.*", part):
                pattern += r"\d{4}-\d\d-\d\d[ T][\d:.]+(?:\+00:00|Z)?"
            elif re.fullmatch(r"\d+(\.\d+)? s", part):
                pattern += r"\d+(?:\.\d+)? s"
            else:
                pattern += re.escape(part)
        return re.compile(pattern)

    def _here(self, text: str) -> str:
        text = USUAL_PORTS.sub(rf"\1:{self.port}", text)
        text = PLATFORM_PORT.sub(str(self._platform_port), text)
        text = METRICS_PORT.sub(str(self._metrics_port), text)
        for shown, actual in [*self._replaced.items(), *self._ids.items()]:
            text = text.replace(shown, actual)
        return text


def own_environment(folder: Path) -> Path:
    """Create a virtual environment and return the directory of its commands."""
    # Without pip, because copying it takes longer than all other steps.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=TIMEOUT)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def shared_environment() -> Path:
    """Return the directory of the commands of the environment that runs the tests."""
    return Path(sys.executable).parent


def _check_installed(requirement: str) -> None:
    name, _, extras = requirement.rstrip("]").partition("[")
    if name == DISTRIBUTION:
        known = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        assert set(filter(None, extras.split(","))) <= known.keys(), f"unknown extras: {requirement}"
        return
    try:
        version(name)
    except PackageNotFoundError:
        raise AssertionError(f"{name} is not installed in the environment of the tests") from None


def _collapsed(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
