"""Runs a web server in processes of its own, and reads their CPU time."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measuring import MeasurementError
from benchmarks.processes import ROOT, running, tail

__all__ = ["Server", "free_port", "gunicorn", "serving", "uvicorn"]

START_TIMEOUT = 60.0
"""Seconds until the server accepts connections."""

POLL = 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """A running server on loopback."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its processes have used."""
        processes = [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        # The clock of another process: Linux makes its id from the pid. `/proc` counts in hundredths of a second.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in processes)


def uvicorn(app: str, port: int, connections: int) -> list[str]:
    """Return the command for an ASGI application."""
    return [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", "--no-access-log"]


def gunicorn(app: str, port: int, connections: int) -> list[str]:
    """Return the command for a WSGI application: one process, with a thread for each connection."""
    options = ["--worker-class", "gthread", "--threads", str(connections), "--keep-alive", "60"]
    return [sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}", "--log-level", "warning", *options]


@contextmanager
def serving(command: Sequence[str], port: int, environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """Start a server, wait until it accepts connections, and stop it in the end.

    Raises:
        MeasurementError: it does not start.
    """
    log = folder / "log"
    environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    with running(command, environment, log) as process:
        deadline = time.monotonic() + START_TIMEOUT
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MeasurementError(f"the server does not start: {tail(log)}")
            time.sleep(POLL)
        yield Server(process.pid, port)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that no server uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
