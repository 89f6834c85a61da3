"""Starts the commands of a page: each in a new process, or in a fork that has its libraries already."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

FORKED = re.compile(r"((?:\w+=\S+ )*)((?:envoyou|flask|uvicorn|django-admin|gunicorn|python)\b[^|><$;&]*)$")
"""Commands that need no shell: assignments, and the words of the command."""


class Running(Protocol):
    """A command that has been started, in a process group of its own."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, or `None` while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, or raise `subprocess.TimeoutExpired`."""


class Launcher(Protocol):
    """Starts commands."""

    def start(self, line: str, folder: Path, environment: Mapping[str, str], output: Path) -> Running:
        """Start a command, and append what it shows to a file."""


class Shell:
    """Starts each command with a shell."""

    def start(self, line: str, folder: Path, environment: Mapping[str, str], output: Path) -> Running:
        """See `Launcher`."""
        with output.open("ab") as file:
            return subprocess.Popen(
                ["bash", "-o", "pipefail", "-c", line],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Forks:
    """Starts Python commands in forks of one process, and all others with a shell.

    Args:
        python: the interpreter.
    """

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("forking.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, int]] = {}
        self._number = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def start(self, line: str, folder: Path, environment: Mapping[str, str], output: Path) -> Running:
        """See `Launcher`."""
        forked = FORKED.match(line)
        if forked is None:
            return Shell().start(line, folder, environment, output)
        assignments = dict(word.split("=", 1) for word in shlex.split(forked[1]))
        self._number += 1
        command = {
            "number": self._number,
            "words": shlex.split(forked[2]),
            "folder": str(folder),
            "environment": {**environment, **assignments},
            "output": str(output),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return Fork(self, self._number)

    def answer(self, number: int, field: str, timeout: float | None) -> int | None:
        """Return a field of the answers about a command, waiting for it for up to `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: field in self._answers.get(number, {}), timeout)
            return self._answers.get(number, {}).get(field)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._thread.join(20)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._changed:
                self._answers.setdefault(answer["number"], {}).update(answer)
                self._changed.notify_all()


class Fork:
    """A command in a fork."""

    def __init__(self, forks: Forks, number: int) -> None:
        self._forks = forks
        self._number = number
        pid = forks.answer(number, "pid", 60)
        assert pid is not None, "the command was not started"
        self.pid = pid

    def poll(self) -> int | None:
        """See `Running`."""
        return self._forks.answer(self._number, "code", 0)

    def wait(self, timeout: float | None = None) -> int:
        """See `Running`."""
        started = time.monotonic()
        code = self._forks.answer(self._number, "code", timeout)
        if code is None:
            raise subprocess.TimeoutExpired("the command", time.monotonic() - started)
        return code
