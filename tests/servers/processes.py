"""Real server processes: started, killed, ended, and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from envoyou_core.testing import Delivery, sign_delivery
from tests.contract import wire

APPS = Path(__file__).parent / "apps"
PATH = "/webhooks/envoyou"
SECRET = "whsec_of_real_servers"
LEASE = 2
"""Seconds, instead of a minute: the events of a killed worker are claimed again after this time."""

LONG_LEASE = 20
"""Seconds, for tests that do not kill processes: on a busy machine, a slow worker must not be considered dead."""

SHUTDOWN_TIMEOUT = 2
"""Seconds, instead of ten: how long a server waits for its handlers at shutdown."""

PATIENCE = 60.0
A_FREE_PORT = "{port}"
"""A placeholder in commands, for servers that do not report the port they were assigned."""

GRACEFUL = 10
"""Seconds that a server may take to end."""


@dataclass(frozen=True, slots=True)
class Server:
    """How an app is served.

    Attributes:
        command: what is run; it is told to listen on a free port.
        hooks: the module that holds the app's `webhooks`.
        setup: what is run once before.
    """

    command: Sequence[str]
    hooks: str = "hooks"
    setup: Sequence[str] = ()


def gunicorn(app: str, *options: str, **fields: Any) -> Server:
    return Server(
        ["gunicorn", app, "--bind=127.0.0.1:0", f"--graceful-timeout={GRACEFUL}", *options],
        **fields,
    )


GTHREAD = ("--worker-class=gthread", "--threads=4")


def uvicorn(app: str, *options: str) -> Server:
    return Server(["uvicorn", app, "--port=0", f"--timeout-graceful-shutdown={GRACEFUL}", *options])


def hypercorn(app: str, *options: str) -> Server:
    return Server(["hypercorn", app, "--bind=127.0.0.1:0", f"--graceful-timeout={GRACEFUL}", *options])


def granian(app: str, *options: str) -> Server:
    options = (f"--workers-kill-timeout={GRACEFUL}", *options)
    return Server(["granian", app, "--interface=asgi", "--host=127.0.0.1", f"--port={A_FREE_PORT}", *options])


def daphne(app: str) -> Server:
    return Server(["daphne", app, "--bind=127.0.0.1", "--port=0"])


def runserver(settings: str, *options: str) -> Server:
    """Return the command for Django, without its autoreloader."""
    options = (f"--settings={settings}", "--pythonpath=.", *options)
    return Server(["django", "runserver", "127.0.0.1:0", "--noreload", *options])


def django(*options: str) -> Server:
    return of_django(gunicorn("django_project.wsgi", *options))


def of_django(server: Server) -> Server:
    """Return a server of the Django project, whose setup creates its tables."""
    migrate = ["django", "migrate", "--settings=django_project.settings", "--pythonpath=.", "--verbosity=0"]
    return replace(server, hooks="django_project.hooks", setup=migrate)


_files_after_setup: dict[tuple[str, ...], bytes] = {}


@dataclass(slots=True)
class Site:
    """A site: a folder for its database and its handlers' effects, and at most one server at a time."""

    server: Server
    folder: Path
    lease: float = field(default=LEASE, kw_only=True)
    shutdown_timeout: float = field(default=SHUTDOWN_TIMEOUT, kw_only=True)
    apps: Path = field(default=APPS, kw_only=True)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _port: int = field(default=0, init=False)
    _starts: int = field(default=0, init=False)

    def set_up(self) -> None:
        """Run the setup of the server. What it leaves in an SQLite file is kept for later sites with the same setup."""
        setup, file = tuple(self.server.setup), self.database_file
        if not setup:
            return
        if file and setup in _files_after_setup:
            file.write_bytes(_files_after_setup[setup])
            return
        subprocess.run(self._python(setup), check=True, **self._contexts(), timeout=PATIENCE)
        if file:
            _files_after_setup[setup] = file.read_bytes()

    def start(self) -> None:
        """Start the server and wait until it reports its address."""
        self._starts += 1
        log = self.log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._python(self.server.command),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._contexts(),
            )
        said = wait_for(lambda: re.search(r"127\.0\.0\.1:(\d+)", log.read_text()), log.read_text)
        self._port = int(said[1])
        # uvicorn's worker processes start to listen after their parent has reported it.
        wait_for(self.listens, log.read_text)

    def listens(self) -> bool:
        """Whether the server accepts connections."""
        with socket.socket() as connection:
            return connection.connect_ex(self.address) == 0

    def kill(self) -> None:
        """Kill the server and all its workers at once, like a power failure."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._process = None

    def end(self, *, with_its_workers: bool = False) -> int:
        """Terminate the server, wait until it has ended, and return its exit code.

        With `with_its_workers`, each of its processes receives the signal, as from systemd.
        """
        assert self._process is not None
        if with_its_workers:
            os.killpg(self._process.pid, signal.SIGTERM)
        else:
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self.kill()

    @property
    def log(self) -> Path:
        """Return the output of the server that was started last."""
        return self.folder / f"server-{self._starts}.log"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def head(self, delivery: Delivery, **changes: wire.HeaderValue | None) -> bytes:
        headers: wire.HeaderChanges = {
            "Host": "127.0.0.1",
            "Connection": "close",
            "Content-Length": str(len(delivery.body)),
            **delivery.headers,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        return wire.head("POST", PATH, wire.pairs(headers))

    def deliver(self, event: Any) -> wire.Answer:
        delivery = sign_delivery(event, secret=SECRET)
        return wire.exchange(self.address, [self.head(delivery) + delivery.body])

    def visit(self) -> None:
        """Request another page, which starts the worker of a WSGI app."""
        request = wire.head("GET", "/health", [("Host", "127.0.0.1"), ("Connection", "close")])
        assert wire.exchange(self.address, [request], method="GET").status == 200

    def record(self, event_id: str) -> Any:
        """Return the event's record, read from the inbox by another process."""
        command = [sys.executable, "show_record.py", self.server.hooks, event_id]
        shown = subprocess.run(command, check=True, capture_output=True, **self._contexts(), timeout=PATIENCE)
        return json.loads(shown.stdout)

    @property
    def effects(self) -> list[tuple[str, int]]:
        """Return the effects of the handlers: the event's id, and the id of the process that they ran in."""
        file = self.folder / "effects"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(event_id, int(pid)) for event_id, pid in (line.split() for line in lines)]

    def release(self) -> None:
        """Release the waiting handlers."""
        (self.folder / "released").touch()

    @property
    def begun(self) -> bool:
        """Whether a handler has started and waits."""
        return (self.folder / "begun").exists()

    @property
    def database_file(self) -> Path | None:
        """The file that the setup writes to, if the database is one."""
        return self.folder / "django.sqlite3"

    def _python(self, command: Sequence[str]) -> list[str]:
        return [sys.executable, "-u", "-m", *(part.format(port=free_port()) for part in command)]

    def _contexts(self) -> dict[str, Any]:
        ours = {
            "EFFECTS_FOLDER": str(self.folder),
            "ENVOYOU_WEBHOOK_SECRET": SECRET,
            "ENVOYOU_INBOX": f"sqlite:///{self.folder / 'inbox.db'}",
            "ENVOYOU_LEASE": str(self.lease),
            "ENVOYOU_SHUTDOWN_TIMEOUT": str(self.shutdown_timeout),
            "DJANGO_DATABASE": str(self.database_file),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        return {"cwd": self.apps, "env": inherited | ours}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


AnySite = TypeVar("AnySite", bound=Site)


@contextmanager
def site(server: Server, folder: Path, *, kind: type[AnySite] = Site, **fields: Any) -> Iterator[AnySite]:
    """Run a site's server during the block; `fields` are those of its kind."""
    found = kind(server, folder, **fields)
    found.set_up()
    found.start()
    try:
        yield found
    finally:
        found.close()


def wait_for(condition: Callable[[], Any], explain: Callable[[], object] = lambda: "it did not happen in time") -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
    return found
