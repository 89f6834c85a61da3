"""The README's quickstarts, and the page about Django, block by block as a reader would follow them.

Each framework has a fresh virtual environment, which those who follow its pages share.
"""

import contextlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from functools import cache

import pytest

from tests.adapters import chosen
from tests.quickstart.readme import DJANGO_PAGE, PROJECT, QUICKSTARTS, blocks

pytestmark = pytest.mark.slow

DISTRIBUTION = "envoyou-webhooks"
EMAIL = "john.doe@example.com"

ON_A_FREE_PORT = {
    "python manage.py runserver": ["127.0.0.1:0", "--noreload"],
    "flask run": ["--port", "0"],
    "uvicorn app:app": ["--port", "0"],
}
"""The commands that serve, and what is added so that they can run beside others."""

USUAL_ADDRESS = "http://127.0.0.1:8000"

INSTALL_TIMEOUT = 300
TIMEOUT = 60
"""Seconds after which something has failed, however slow the machine."""


class Reader:
    """Someone who follows a page in an empty folder, in a virtual environment that was empty too."""

    def __init__(self, folder, environment):
        self.folder = folder / "project"
        self.folder.mkdir()
        self.scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        # Nothing of this project, of its settings or of this test run may reach into the new environment.
        ours = ("COVERAGE", "COV_", "DJANGO_", "ENVOYOU_", "FLASK_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "__PYVENV")
        self.environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)}
        self.environment |= {
            "PATH": f"{self.scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "no_proxy": "127.0.0.1",
        }
        self.log = folder / "server.log"
        self.server = None

    def follow(self, blocks):
        for block in blocks:
            if block.language == "console":
                for line in block.code.splitlines():
                    self.type(line)
            elif block.adds:
                file = self.folder / block.file
                file.write_text(file.read_text() + "\n" + block.code)
            else:
                (self.folder / block.file).write_text(block.code)

    def type(self, line):
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value
        elif line in ON_A_FREE_PORT:
            self.serve([*words, *ON_A_FREE_PORT[line]])
        elif words[:2] == ["pip", "install"]:
            # The wheel that is built from this source, in place of the one from the index.
            from_here = [re.sub(rf"^{DISTRIBUTION}(?=\[|$)", str(PROJECT), word) for word in words[2:]]
            assert from_here != words[2:]
            self.run(["pip", "install", "-q", "--disable-pip-version-check", *from_here], INSTALL_TIMEOUT)
        else:
            self.run(words)

    def run(self, words, timeout=TIMEOUT):
        ran = subprocess.run(
            self.found(words), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def serve(self, words):
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                self.found(words),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def found(self, words):
        # The system looks for a command in the PATH of this process, not in the one that it is given.
        return [self.scripts / words[0], *words[1:]]

    def wait_for(self, what, look):
        deadline = time.monotonic() + TIMEOUT
        while not (seen := look()):
            log = self.log.read_text(errors="replace")
            assert self.server.poll() is None, f"the server ended\n{log}"
            assert time.monotonic() < deadline, f"{what} did not come\n{log}"
            time.sleep(0.05)
        return seen

    def address(self):
        pattern = re.compile(r"(http://127\.0\.0\.1:[1-9]\d*)")
        return self.wait_for("the address", lambda: pattern.search(self.log.read_text(errors="replace")))[1]

    def send(self, blocks, *words):
        """Send the event as it is shown; the port is the one that the server has."""
        (block,) = (block for block in blocks if block.file == "send.py")
        address = self.address()
        (self.folder / block.file).write_text(block.code.replace(USUAL_ADDRESS, address))
        self.wait_for("an open port", lambda: port_is_open(address))
        return self.run(["python", "send.py", *(word.replace(USUAL_ADDRESS, address) for word in words)])

    def leave(self):
        if self.server is not None:
            self.server.terminate()
            try:
                self.server.wait(20)
            finally:
                self.server.kill()
                self.server.wait()


def port_is_open(url):
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port), timeout=5):
        return True
    return False


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """Makes a virtual environment for each framework, once."""

    @cache
    def environment(framework):
        made = tmp_path_factory.mktemp(framework) / "environment"
        subprocess.run([sys.executable, "-m", "venv", made], check=True, timeout=INSTALL_TIMEOUT)
        return made

    return environment


@pytest.fixture
def reader(tmp_path, environments, framework):
    reader = Reader(tmp_path, environments(framework))
    yield reader
    reader.leave()


def welcomed(reader):
    return f"Welcome, {EMAIL}" in reader.log.read_text(errors="replace").splitlines()


def has_account(reader):
    with contextlib.closing(sqlite3.connect(reader.folder / "db.sqlite3")) as database:
        return database.execute("SELECT username FROM auth_user WHERE email = ?", [EMAIL]).fetchall() == [("user_123",)]


EFFECT = {"django": has_account, "flask": welcomed, "fastapi": welcomed, "starlette": welcomed}


@pytest.mark.parametrize("framework", chosen())
def test_the_quickstart_receives_an_event(reader, framework):
    reader.follow(blocks(f"Quickstart: {QUICKSTARTS[framework]}"))
    effect = EFFECT[framework]
    printed = reader.send(blocks("Send it an event"), f"{USUAL_ADDRESS}/webhooks/envoyou")
    assert printed.startswith("200 ")
    assert json.loads(printed.removeprefix("200 ")) == {"received": True}
    assert reader.wait_for("the handler's effect", lambda: effect(reader))
    package = reader.run(["python", "-c", "import envoyou_core; print(envoyou_core.__file__)"]).strip()
    assert package.startswith(str(reader.scripts.parent)), "the installed wheel must be what runs"


@pytest.mark.parametrize("framework", [name for name in chosen() if name == "django"])
def test_the_page_about_django_leads_from_an_empty_folder_to_a_processed_event(reader):
    *make, code, command = blocks("From an empty folder to a processed event", DJANGO_PAGE)
    assert (code.file, command.code.splitlines()[-1]) == ("send.py", "python send.py")
    reader.follow(make)
    assert json.loads(reader.send([code])) == {"received": True}
    assert reader.wait_for("the account", lambda: has_account(reader))
    assert "Kept john.doe@example.com" in reader.log.read_text(errors="replace").splitlines()
    # What is no Python has come with the wheel, too.
    reader.run(["python", "manage.py", "findstatic", "envoyou_django/admin.css"])
    template = "admin/envoyou_django/processedevent/change_list.html"
    reader.run(
        ["python", "manage.py", "shell", "-c", f"import django.template.loader as it; it.get_template('{template}')"]
    )
