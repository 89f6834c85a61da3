"""The application's server as a process of this one: it is started, killed, restarted, and ended by its id."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from envoyou_core.errors import ConfigurationError

__all__ = ["ServerProcess"]

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 30.0
"""Seconds."""

INTERVAL: Final = 0.05
"""Seconds between two looks at the process."""

SHOWN_LINES: Final = 5
"""The lines of the log's end that an error shows."""


class ServerProcess:
    """Runs a server: `with ServerProcess(...) as server:` starts it, and ends it with all its child processes.

    Args:
        command: the command line. It is not run by a shell.
        address: the host and the port at which it listens.
        log: the file of its output.

    Raises:
        ConfigurationError: the command is empty, or cannot be divided into words.
    """

    def __init__(self, command: str, address: tuple[str, int], log: Path) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"cannot read the command {command!r}: {error}") from None
        if not self._command:
            raise ConfigurationError("the command of the server is empty")
        self._address = address
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it accepts connections.

        Raises:
            ConfigurationError: it does not start, or another process listens at its address.
        """
        if self._listens():
            raise ConfigurationError(
                f"another process listens at {self._place} already: stop it, so that the server can be killed and "
                "restarted, or leave --server out"
            )
        with self._log.open("ab") as output:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigurationError(f"cannot start {self._command[0]!r}: {error.strerror}") from None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._listens():
            if self._process.poll() is not None:
                raise ConfigurationError(f"the server has ended with {self._process.returncode}: {self._end_of_log()}")
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the server does not listen at {self._place} after {START_TIMEOUT:g} s: {self._end_of_log()}"
                )
            time.sleep(INTERVAL)

    def kill(self) -> None:
        """End the server and its child processes with SIGKILL, like a power failure."""
        if self._process is not None:
            self._kill_group()
            self._process.wait(STOP_TIMEOUT)
            self._process = None
            # Its child processes may need a moment longer.
            deadline = time.monotonic() + STOP_TIMEOUT
            while self._listens() and time.monotonic() < deadline:
                time.sleep(INTERVAL)

    def terminate(self) -> None:
        """End the server with SIGTERM, and with SIGKILL if it takes too long."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
            self.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    @property
    def _place(self) -> str:
        host, port = self._address
        return f"{host}:{port}"

    def _kill_group(self) -> None:
        # The group has the id of the process that was started with a session of its own.
        assert self._process is not None  # noqa: S101 - the callers have checked it
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(self._address, timeout=1.0):
            return True
        return False

    def _end_of_log(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-SHOWN_LINES:] if line.strip()) or "it has printed nothing"
