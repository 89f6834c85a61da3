"""Servers with several processes, and graceful shutdown."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core import Event
from envoyou_core.testing import sample_event
from tests.servers.processes import Site, wait_for

pytestmark = pytest.mark.slow

SENDER_ATTEMPTS = 5


def deliver_all(site: Site, events: list[Event]) -> None:
    """Deliver each event until it is accepted, as the platform does: with a slow disk, SQLite may take too long."""

    def deliver(event: Event) -> int:
        for _ in range(SENDER_ATTEMPTS):
            status = site.deliver(event).status
            if status != 503:
                break
        return status

    with ThreadPoolExecutor(4) as senders:
        assert list(senders.map(deliver, events)) == [200] * len(events)


def ids(events: list[Event]) -> list[str]:
    return sorted(event.id for event in events)


def handled(site: Site) -> list[str]:
    return sorted(event_id for event_id, _ in site.effects)


def test_several_processes_handle_each_accepted_event_once(running_in_several_processes: Site) -> None:
    site = running_in_several_processes
    events = [sample_event("user.updated") for _ in range(40)]
    deliver_all(site, events)
    wait_for(lambda: len(site.effects) >= len(events), lambda: site.effects)
    assert handled(site) == ids(events)
    # No event was handled by the process that only supervises the workers.
    assert site.pid not in {pid for _, pid in site.effects}
    assert site.end() in {0, -signal.SIGTERM}
    assert handled(site) == ids(events)


def test_a_server_that_is_terminated_loses_and_repeats_nothing(running_in_peace: Site) -> None:
    running = running_in_peace
    events = [sample_event("user.verified") for _ in range(24)]
    deliver_all(running, events)
    wait_for(lambda: running.effects)
    # After a graceful shutdown, gunicorn exits with 0, and uvicorn by the signal.
    assert running.end() in {0, -signal.SIGTERM}
    running.start()
    running.visit()
    wait_for(lambda: len(running.effects) >= len(events), lambda: running.effects)
    assert handled(running) == ids(events)
    assert running.record(events[-1].id)["crashes"] == 0


def test_an_endless_handler_does_not_prevent_the_server_from_ending(running_in_one_way: Site) -> None:
    running = running_in_one_way
    event = sample_event("user.created")
    assert running.deliver(event).status == 200
    wait_for(lambda: running.begun)
    assert running.end() in {0, -signal.SIGTERM}
    assert running.effects == []
    running.start()
    running.visit()
    running.release()
    wait_for(lambda: running.effects, lambda: running.record(event.id))
    assert handled(running) == [event.id]
