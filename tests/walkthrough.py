"""Runs a page of the documentation as a reader would: writes its files and runs its commands and code."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TIMEOUT = 60
"""Seconds until a step counts as failed, even on a slow machine."""

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"# ([\w/]+\.py)\n")


@dataclass
class Page:
    """The code blocks of a page.

    Attributes:
        files: Python code that starts with a file name.
        snippets: other Python code, run in the same directory.
        consoles: commands, one list for each console block.
    """

    files: dict[str, str] = field(default_factory=dict)
    snippets: list[str] = field(default_factory=list)
    consoles: list[list[str]] = field(default_factory=list)


def read_page(path: str) -> Page:
    """Read a Markdown file, whose path is relative to the project."""
    page = Page()
    for language, code in _FENCED.findall((PROJECT / path).read_text(encoding="utf-8")):
        name = _FILE_NAME.match(code)
        if language == "console":
            page.consoles.append(code.splitlines())
        elif name:
            page.files[name[1]] = code
        else:
            assert language == "python", f"{path} has an unexpected block of {language}"
            page.snippets.append(code)
    return page


class Reader:
    """Runs a page in a directory, with a server on a free port instead of the usual one."""

    def __init__(self, folder: Path, usual_port: int) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._usual_port = str(usual_port)
        self._port = _free_port()
        ours = ("ENVOYOU_", "FLASK_", "UVICORN_", "DJANGO_")
        self._environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "FLASK_RUN_PORT": self._port,
            "UVICORN_PORT": self._port,
            "no_proxy": "127.0.0.1",
        }

    def write(self, files: dict[str, str]) -> None:
        """Write the files into the directory."""
        for name, code in files.items():
            (self.folder / name).write_text(code.replace(f":{self._usual_port}", f":{self._port}"), encoding="utf-8")

    @contextmanager
    def serving(self, console: list[str]) -> Iterator[None]:
        """Run the commands; the last one is a server, which runs until the block ends."""
        with self.log.open("w") as log:
            server = subprocess.Popen(
                ["bash", "-ec", "\n".join([*console[:-1], f"exec {console[-1]}"])],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                self.wait_for(f":{self._port}")
                yield
            finally:
                server.terminate()
                server.wait(TIMEOUT)

    def type(self, console: list[str]) -> str:
        """Run the commands and return their output."""
        return self._run(["bash", "-ec", "\n".join(console)])

    def run(self, snippet: str) -> None:
        """Run Python code in the directory; it must succeed."""
        self._environment["ENVOYOU_WEBHOOK_SECRET"] = "whsec_your_webhook_secret_key"
        self._run([sys.executable, "-c", snippet])

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the server has printed `text` at least `times` times."""
        deadline = time.monotonic() + TIMEOUT
        while (output := self.log.read_text()).count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} occurs less than {times} times in {output}"
            time.sleep(0.05)

    def _run(self, command: list[str]) -> str:
        process = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert process.returncode == 0, process.stderr
        return process.stdout


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
