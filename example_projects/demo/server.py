"""Runs the example with uvicorn in a process, on a free local port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

__all__ = ["Server", "ServerError"]

START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0
"""Seconds."""

LISTENING = re.compile(r"running on (http://127\.0\.0\.1:\d+)")


class ServerError(Exception):
    """The server did not start, or it has ended."""


class Server:
    """Starts the server on entering the context and stops it on leaving.

    Args:
        app: the folder of the application.
        folder: where it runs and where its log is written.
        settings: what is added to the environment.
    """

    def __init__(self, app: Path, folder: Path, settings: Mapping[str, str]) -> None:
        self._app = app
        self._folder = folder
        self._log = folder / "server.log"
        self._environment = os.environ | {"PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **settings}
        self.url = ""

    def __enter__(self) -> Self:
        # Read the port from the log: a port that was free a moment ago may be taken by now.
        command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(self._app), "--port", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - its own interpreter
                command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Check that the server is running.

        Raises:
            ServerError: the server has ended.
        """
        if (code := self._process.poll()) is not None:
            raise ServerError(f"the server ended with code {code}.\n{self.end_of_log()}")

    def end_of_log(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            if found := LISTENING.search(self._log.read_text(errors="replace")):
                self.url = found[1]
                return
            time.sleep(0.02)
        raise ServerError(f"the server did not listen within {START_TIMEOUT:g} s.\n{self.end_of_log()}")

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
