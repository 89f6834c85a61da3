"""A Django project in a folder, whose commands run as real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from envoyou_core import Event
from envoyou_core.testing import sign_delivery

SECRET = "whsec_of_a_project_in_a_folder"
PATIENCE = 60.0

ALIKE = {
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
    # What is changed twice in a second is compiled once.
    "PYTHONDONTWRITEBYTECODE": "1",
}

MANAGE = """
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

SETTINGS = f"""
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
INSTALLED_APPS = ["envoyou_django", "shop"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "project.db",
        "OPTIONS": {{"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20}},
    }}
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ENVOYOU = {{"WEBHOOK_SECRET": {SECRET!r}}}
"""

URLS = """
from django.urls import include, path

urlpatterns = [path("webhooks/envoyou", include("envoyou_django.urls"))]
"""

HANDLERS = """
from envoyou_django import webhooks


@webhooks.on("user.*", name="note")
def note(event):
    with open("log", "a") as log:
        log.write(f"handled {event.id}\\n")
"""


class Project:
    """A project in `folder`, with an app `shop` that has handlers.

    Args:
        folder: an empty one.
        settings: lines to be added to the settings.
        handlers: the module `shop/webhooks.py`.
    """

    def __init__(self, folder: Path, *, settings: str = "", handlers: str = HANDLERS) -> None:
        self.folder = folder
        self.database = folder / "project.db"
        (folder / "shop").mkdir()
        self.write("shop/__init__.py", "")
        self.write("shop/webhooks.py", handlers)
        self.write("manage.py", MANAGE)
        self.configure(settings)
        self.write("site_urls.py", URLS)

    def write(self, name: str, code: str) -> None:
        (self.folder / name).write_text(code)

    def configure(self, settings: str) -> None:
        """Have these lines at the end of the settings."""
        self.write("site_settings.py", f"{SETTINGS}{settings}\n")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project, and wait for its end."""
        return self._run(self._command(arguments), environment)

    def run_python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the project's folder, and wait for its end."""
        return self._run([sys.executable, "-c", code], {})

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            **self._contexts(environment),
        )

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[Running]:
        """Have a command of the project run until the block ends."""
        with Running(self._command(arguments), self._contexts(environment)) as process:
            yield process

    @contextmanager
    def running_python(self, *arguments: str, **environment: str) -> Iterator[Running]:
        """Have Python run with these arguments until the block ends."""
        with Running([sys.executable, *arguments], self._contexts(environment)) as process:
            yield process

    @contextmanager
    def serving(self, **environment: str) -> Iterator[Server]:
        """Have `runserver` serve it until the block ends."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with self.running("runserver", "--noreload", f"127.0.0.1:{port}", **environment) as process:
            server = Server(process, f"http://127.0.0.1:{port}/webhooks/envoyou")
            process.wait_until(lambda: process.has_ended or listens(port))
            yield server

    @property
    def log(self) -> list[str]:
        """What the handlers left."""
        file = self.folder / "log"
        return file.read_text().splitlines() if file.exists() else []

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def _contexts(self, environment: dict[str, str]) -> dict[str, Any]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ENVOYOU_"))}
        paths = os.pathsep.join(filter(None, [environment.pop("FIRST", ""), *sys.path]))
        return {
            "cwd": self.folder,
            "env": {**inherited, **ALIKE, "PYTHONPATH": paths, **environment},
        }


@dataclass
class Server:
    """A server that runs, and where it receives webhooks."""

    process: Running
    url: str

    def deliver(self, event: Event) -> tuple[int, str]:
        """Deliver it as the platform does; returns the status of the answer and its body."""
        delivery = sign_delivery(event, secret=SECRET)
        try:
            with urlopen(Request(self.url, delivery.body, delivery.headers), timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()


class Running:
    """A process, and what it has said so far."""

    _count = 0

    def __init__(self, command: list[str], contexts: dict[str, Any]) -> None:
        Running._count += 1
        self._output = Path(contexts["cwd"], f"output-{Running._count}")
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **contexts
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        kill_group(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self._output.read_text()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self._process.wait(PATIENCE)

    def wait_until(self, condition: Callable[[], object]) -> None:
        wait_until(condition, lambda: self.said)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def kill_group(pid: int) -> None:
    """End what a process that is gone has left behind."""
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        return


def wait_until(
    condition: Callable[[], object], explain: Callable[[], object] = lambda: "it did not come about"
) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
