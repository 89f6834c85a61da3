"""A server that reloads its app after a file has changed, as in development, while events are delivered."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envoyou_core.testing import sample_event
from tests.adapters import chosen
from tests.servers.processes import APPS, LONG_LEASE, Site, site, uvicorn, wait_for

pytestmark = pytest.mark.slow

CHANGES = 2


@pytest.mark.parametrize("adapter", [name for name in chosen() if name in {"fastapi", "starlette"}])
def test_nothing_is_lost_when_a_file_has_changed(adapter: str, tmp_path: Path) -> None:
    apps = tmp_path / "apps"
    shutil.copytree(APPS, apps, ignore=shutil.ignore_patterns("__pycache__"))
    server = uvicorn(f"{adapter}_app:app", "--reload", f"--reload-dir={apps}")
    enough = threading.Event()
    with site(server, tmp_path, apps=apps, lease=LONG_LEASE) as running, ThreadPoolExecutor(1) as background:
        sending = background.submit(deliver_until, enough, running)
        try:
            for processes in range(1, CHANGES + 1):
                wait_for(lambda processes=processes: len(workers(running)) >= processes)
                with (apps / "effects.py").open("a") as file:
                    file.write("# changed\n")
            wait_for(lambda: len(workers(running)) > CHANGES)
        finally:
            enough.set()
        accepted = sending.result()
        wait_for(lambda: len(running.effects) >= len(accepted), lambda: running.effects)
        assert sorted(event_id for event_id, _ in running.effects) == sorted(accepted)


def workers(running: Site) -> set[int]:
    return {pid for _, pid in running.effects}


def deliver_until(enough: threading.Event, running: Site) -> list[str]:
    """Deliver one event after the other, each until it is accepted, and return their ids."""
    accepted = []
    while not enough.is_set():
        event = sample_event("user.updated")
        wait_for(lambda event=event: is_accepted(running, event))
        accepted.append(event.id)
    return accepted


def is_accepted(running: Site, event: object) -> bool:
    try:
        return running.deliver(event).status == 200
    except OSError:
        # The process that accepted the connection has ended.
        return False
