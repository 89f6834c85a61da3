"""An event that kills its worker each time ends dead. The events in flight beside it are processed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from envoyou_core.inbox import Status
from envoyou_core.testing import sample_event
from tests.reliability.sites import (
    ANY_SERVER_OF_EACH_INBOX,
    InboxTable,
    Platform,
    crashing_site,
    outcome,
    unfinished,
    users,
    worker_process,
)
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

MAX_CRASHES = 5
PATIENCE_OF_SUPERVISOR = 4 * MAX_CRASHES
"""Starts of the worker."""


@pytest.mark.parametrize("server", ANY_SERVER_OF_EACH_INBOX)
def test_a_poison_event_ends_dead_and_no_other_does(server: str, inbox_url: str, tmp_path: Path) -> None:
    poison = sample_event("system.incident")
    # They are claimed together with it, and are still in flight when it kills the process.
    neighbours = users(30)
    settings = {"ENVOYOU_HANDOFF": "manual", "PLAIN_SECONDS": "0.2"}
    with (
        crashing_site(ANY_SERVER_OF_EACH_INBOX[server], tmp_path, inbox_url, settings=settings) as site,
        closing(InboxTable(site)) as inbox,
    ):
        site.start()
        acknowledged = Platform(site).deliver_all([*neighbours[:4], poison, *neighbours[4:]])
        with worker_process(site) as worker:
            starts = 1
            while unfinished(inbox) and starts < PATIENCE_OF_SUPERVISOR:
                wait_for(lambda: worker.ended or not unfinished(inbox), inbox.stats)
                if worker.ended:
                    worker.start()
                    starts += 1
            record = inbox.get(poison.id)
            result = outcome(site, acknowledged - {poison.id})
            crashes = [inbox.get(event.id).crashes for event in neighbours]
    killed = site.lines("poisoned")
    print(f"\n{server}: {len(killed)} workers killed, crashes of the other events {crashes}: {result}")
    assert len(killed) == len(set(killed)) == MAX_CRASHES == starts - 1
    assert record.status is Status.DEAD
    assert record.crashes == MAX_CRASHES
    assert record.last_error == f"the process died {MAX_CRASHES} times while this event was being handled"
    assert len(acknowledged) == len(neighbours) + 1
    assert max(crashes) > 0, "no other event was in flight with it"
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0
