"""A sync handler that never returns delays no other event, and is never run twice at the same time."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from pathlib import Path

import psutil
import pytest

from envoyou_core import Event
from envoyou_core.inbox import Status
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event
from tests.reliability.sites import (
    ANY_SERVER,
    SERVERS,
    CrashingSite,
    Platform,
    another_server,
    crashing_site,
    outcome,
    post,
    users,
    worker_process,
)
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

LEASE = 4
"""Seconds: enough for a live worker to renew its leases on a busy machine."""


@pytest.mark.parametrize("kind", [*SERVERS, "worker process"])
def test_a_handler_that_never_returns(kind: str, inbox_url: str, tmp_path: Path) -> None:
    endless = sample_event("system.maintenance_start")
    others = users(60)
    own_process = kind == "worker process"
    settings = {
        "ENVOYOU_SHUTDOWN_TIMEOUT": "1",
        "ENVOYOU_HANDOFF": "manual" if own_process else "auto",
        "ENVOYOU_LEASE": str(LEASE),
    }
    server = ANY_SERVER if own_process else SERVERS[kind]
    with (
        crashing_site(server, tmp_path, inbox_url, settings=settings) as site,
        another_server(site, ANY_SERVER, ENVOYOU_HANDOFF="auto") as other,
        closing(SqlInbox(inbox_url)) as inbox,
    ):
        site.start()
        with worker_process(site) if own_process else nullcontext(site) as holder:
            begin(site, endless)
            acknowledged = Platform(site).deliver_all(others)
            # One slot is occupied, and there is no other worker yet.
            result = outcome(site, acknowledged, leaving=1)
            lease_is_kept(other, inbox, endless.id)
            assert site.lines("ended") == []
            holder.end()
        # Another worker takes the event over.
        wait_for(lambda: len(site.lines("begun")) == 2, lambda: inbox.get(endless.id))
        first, successor = site.lines("begun")
        assert not psutil.pid_exists(int(first))
        assert inbox.get(endless.id).crashes == 1
        (site.folder / f"released-{successor}").touch()
        wait_for(lambda: inbox.get(endless.id).status is Status.PROCESSED, lambda: inbox.get(endless.id))
        ended = site.lines("ended")
    print(f"\n{kind}: while it hung, {result}; the handler was started by {[first, successor]} and ended by {ended}")
    assert ended == [successor]
    assert len(acknowledged) == len(others)
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 1


def begin(site: CrashingSite, endless: Event) -> None:
    assert post(site, endless).status == 200
    wait_for(lambda: site.lines("begun"))


def lease_is_kept(other: CrashingSite, inbox: SqlInbox, event_id: str) -> None:
    """Check for two leases that another server does not take the event over."""
    other.start()
    other.visit()
    end = time.monotonic() + 2 * LEASE
    while time.monotonic() < end:
        time.sleep(0.1)
        record = inbox.get(event_id)
        assert record.status is Status.PROCESSING
        assert record.crashes == 0
