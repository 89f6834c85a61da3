"""Follows a page block by block, in an empty directory and a new virtual environment."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from uv import find_uv_bin

from tests.quickstart.pages import PROJECT, Block

DISTRIBUTION = "envoyou-webhooks"

SERVES = {
    ("python", "manage.py", "runserver"): ["127.0.0.1:0", "--noreload"],
    ("flask",): ["--port", "0"],
    ("uvicorn",): ["--port", "0"],
    ("gunicorn",): ["--bind", "127.0.0.1:0"],
}
"""The start of each server command, and the arguments that make it use a free port."""

SHOWN_ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(?:5000|8000)\b")
"""The URL on the pages, which is replaced by that of the server."""

INSTALL_TIMEOUT = 300
TIMEOUT = 60
"""Seconds until a step counts as failed, even on a slow machine."""


class Reader:
    """Does what a page says.

    Attributes:
        folder: the current directory; a page may `cd`.
        log: the output of the server.

    Args:
        folder: an empty directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.log = folder / "server.log"
        environment = folder / "environment"
        # Without pip, because copying it takes longer than all other steps.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=TIMEOUT)
        self._scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        # Remove everything of this project, its settings and this test run from the environment.
        ours = ("COVERAGE", "COV_", "DJANGO_", "ENVOYOU_", "FLASK_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "__PYVENV")
        self._environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)} | {
            "PATH": f"{self._scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "no_proxy": "127.0.0.1",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._printed = ""

    def follow(self, blocks: Iterable[Block]) -> str:
        """Write the files, run the commands and compare their output; return the output of the last command.

        A server keeps running. Its URL replaces the one on the page.
        """
        for block in blocks:
            if block.language == "console":
                for line in block.code.splitlines():
                    self._type(self._here(line))
            elif block.language == "text":
                for line in block.code.splitlines():
                    self.wait_for(line, lambda line=line: line in self._printed or self.shows(line))
            else:
                assert block.file, f"unexpected block\n{block.code}"
                self._write(block.file, self._here(block.code), adds=block.adds)
        return self._printed

    def run(self, words: list[str], timeout: float = TIMEOUT) -> str:
        """Run a command of the environment, which must succeed, and return its output."""
        ran = subprocess.run(
            self._command(words),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}\n{self._shown()}"
        return ran.stdout

    def shows(self, text: str) -> bool:
        """Return whether the server has printed `text`."""
        return text in self._shown()

    def wait_for(self, what: str, look: Callable[[], Any]) -> Any:
        """Call `look` until it returns a true value, while the server runs, and return that value."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := look()):
            assert self._server is None or self._server.poll() is None, f"the server ended\n{self._shown()}"
            assert time.monotonic() < deadline, f"{what!r} did not come\n{self._printed}\n{self._shown()}"
            time.sleep(0.05)
        return value

    def fetch(self, path: str) -> str:
        """Return a page of the server."""
        with urlopen(self._address() + path, timeout=TIMEOUT) as response:
            return str(response.read().decode())

    def leave(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(20)
            finally:
                self._server.kill()
                self._server.wait()

    def _here(self, text: str) -> str:
        return SHOWN_ADDRESS.sub(self._address(), text) if self._server else text

    def _write(self, name: str, code: str, *, adds: bool) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.read_text(encoding="utf-8") + "\n" + code if adds else code, encoding="utf-8")

    def _type(self, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self._environment[name] = value
        elif words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "mkdir":
            (self.folder / words[-1]).mkdir(parents=True)
        elif words[:2] == ["pip", "install"]:
            # Build and install this source instead of the released distribution.
            from_here = [re.sub(rf"^{DISTRIBUTION}(?=\[|$)", str(PROJECT), word) for word in words[2:]]
            install = [find_uv_bin(), "pip", "install", "-q", "--python", self._command(["python"])[0]]
            self.run([*install, "--refresh-package", DISTRIBUTION, *from_here], INSTALL_TIMEOUT)
        elif (added := _to_serve(words)) is not None:
            self._serve([*words, *added])
        elif words[-3:] == ["manage.py", "envoyou", "send"]:
            # By default, it sends to the usual port.
            self._printed = self.run([*words, "--server", self._address()])
        else:
            self._printed = self.run(words)

    def _serve(self, words: list[str]) -> None:
        assert self._server is None, f"another server is running, cannot start {words}"
        with self.log.open("wb") as log:
            self._server = subprocess.Popen(
                self._command(words),
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        address = urlsplit(self._address())
        self.wait_for("an open port", lambda: _is_open(address.hostname, address.port))

    def _address(self) -> str:
        pattern = re.compile(r"http://127\.0\.0\.1:[1-9]\d*")
        return str(self.wait_for("the address", lambda: pattern.search(self._shown()))[0])

    def _shown(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _command(self, words: list[str]) -> list[str | Path]:
        # A command is searched in the PATH of this process, not in that of the new environment.
        return [self._scripts / words[0], *words[1:]]


def _to_serve(words: list[str]) -> list[str] | None:
    for beginning, added in SERVES.items():
        if tuple(words[: len(beginning)]) == beginning and (words[0] != "flask" or words[-1] == "run"):
            return added
    return None


def _is_open(host: str | None, port: int | None) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False
