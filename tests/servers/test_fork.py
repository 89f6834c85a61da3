"""Threads do not survive a fork: each process must start its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from envoyou_core.testing import sample_event
from tests.servers.processes import gunicorn, site, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_worker_that_was_started_before_the_fork(tmp_path: Path, worker_class: str) -> None:
    server = gunicorn("started_early:app", "--preload", "--workers=2", f"--worker-class={worker_class}")
    with site(server, tmp_path) as running:
        events = [sample_event("user.updated") for _ in range(20)]
        for event in events:
            # Three processes write to one SQLite file: on a busy machine, one of them may answer 503.
            wait_for(lambda event=event: running.deliver(event).status == 200, running.log.read_text)
        wait_for(lambda: len(running.effects) >= len(events), lambda: running.effects)
        assert sorted(event_id for event_id, _ in running.effects) == sorted(event.id for event in events)
        # The processes that accept events also handle them, and do not leave them to their parent.
        assert {pid for _, pid in running.effects} - {running.pid}
