"""Django under each server: what was begun is finished after SIGTERM, and the server ends as without a worker."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from envoyou_core.testing import sample_event
from tests.adapters import chosen
from tests.servers.processes import (
    GTHREAD,
    LONG_LEASE,
    Server,
    Site,
    daphne,
    django,
    granian,
    gunicorn,
    hypercorn,
    of_django,
    site,
    uvicorn,
    wait_for,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("django" not in chosen(), reason="Django is the framework without a lifespan"),
]

ASGI = "django_project.asgi:application"
ENTRY = "django_project.asgi_entry:application"
UVICORN_WORKER = "--worker-class=uvicorn.workers.UvicornWorker"

SERVERS: dict[str, tuple[Server, int]] = {
    "gunicorn sync": (django(), 0),
    "gunicorn gthread": (django(*GTHREAD), 0),
    "gunicorn uvicorn worker": (gunicorn(ASGI, UVICORN_WORKER), 0),
    "uvicorn": (uvicorn(ASGI), -signal.SIGTERM),
    "uvicorn, two workers": (uvicorn(ASGI, "--workers=2"), 0),
    "uvicorn, entry": (uvicorn(ENTRY), -signal.SIGTERM),
    "uvicorn, entry, no lifespan": (uvicorn(ENTRY, "--lifespan=off"), -signal.SIGTERM),
    "hypercorn": (hypercorn(ASGI), 0),
    "hypercorn, two workers": (hypercorn(ASGI, "--workers=2"), 0),
    "granian": (granian(ASGI), 0),
    "daphne": (daphne(ASGI), 0),
}
"""Each server, and the exit code with which it ends after SIGTERM if no worker runs."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's database, migrated once."""
    folder = tmp_path_factory.mktemp("tables")
    Site(django(), folder).set_up()
    return folder


def finish_after_sigterm(server: Server, tables: Path, folder: Path, **options: bool) -> int:
    """Send SIGTERM while a handler runs, check that the handler finished, and return the server's exit code."""
    shutil.copytree(tables, folder, dirs_exist_ok=True)
    server = replace(of_django(server), setup=())
    with site(server, folder, lease=LONG_LEASE, shutdown_timeout=LONG_LEASE) as running:
        event = sample_event("user.deleted")
        assert running.deliver(event).status == 200
        wait_for(lambda: running.begun, running.log.read_text)
        code = running.end(**options)
        assert [event_id for event_id, _ in running.effects] == [event.id], running.log.read_text()
        assert status_in(folder) == ["processed"]
        return code


def status_in(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "django.sqlite3")) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM envoyou_processed_event")]


@pytest.mark.parametrize("name", SERVERS)
def test_what_was_begun_is_finished_after_sigterm(name: str, tables: Path, tmp_path: Path) -> None:
    server, code = SERVERS[name]
    assert finish_after_sigterm(server, tables, tmp_path) == code


def test_a_handler_that_never_returns_does_not_keep_the_server_from_ending(tables: Path, tmp_path: Path) -> None:
    shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
    with site(replace(of_django(uvicorn(ASGI)), setup=()), tmp_path, shutdown_timeout=0.5) as running:
        assert running.deliver(sample_event("user.created")).status == 200
        wait_for(lambda: running.begun, running.log.read_text)
        assert running.end() == -signal.SIGTERM
        assert running.effects == []
        assert status_in(tmp_path) == ["processing"]


def test_workers_that_are_signalled_twice_finish_too(tables: Path, tmp_path: Path) -> None:
    """A service manager signals all processes, and uvicorn's parent process then signals its workers once more."""
    finish_after_sigterm(uvicorn(ASGI, "--workers=2"), tables, tmp_path, with_its_workers=True)
