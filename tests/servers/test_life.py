"""What servers do to an app: bodies in chunks, several processes, an end in good order."""

from __future__ import annotations

import hashlib
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core import Event
from envoyou_core.testing import sample_event, sign_delivery
from tests.contract import wire
from tests.servers.processes import SECRET, Site, wait_for

pytestmark = pytest.mark.slow

SENDER_ATTEMPTS = 5


def deliver_all(site: Site, events: list[Event]) -> None:
    """Deliver each until it is accepted, as the platform does: a slow disk may make one wait too long for SQLite."""

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


def test_chunked_bodies_arrive_whole(running: Site) -> None:
    for length, size in ((10, 3), (300_000, 1000), (900_000, 65_536)):
        event = sample_event("user.updated", object={"notes": "n" * length})
        delivery = sign_delivery(event, secret=SECRET)
        head = running.head(delivery, Content_Length=None, Transfer_Encoding="chunked")
        answer = wire.exchange(running.address, [head, *wire.chunked(delivery.body, size=size)])
        assert (answer.status, answer.document) == (200, {"received": True})
        assert running.record(event.id)["body"] == hashlib.sha256(event.body).hexdigest()


def test_chunked_bodies_that_are_too_large(running: Site) -> None:
    event = sample_event("user.updated", object={"notes": "n" * 2_000_000})
    delivery = sign_delivery(event, secret=SECRET)
    head = running.head(delivery, Content_Length=None, Transfer_Encoding="chunked")
    answer = wire.exchange(running.address, [head, *wire.chunked(delivery.body, size=65_536)])
    assert (answer.status, answer.document["error"]) == (413, "payload_too_large")
    assert running.record(event.id) is None


def test_several_processes_do_all_that_was_accepted_once(running_in_several_processes: Site) -> None:
    site = running_in_several_processes
    events = [sample_event("user.updated") for _ in range(40)]
    deliver_all(site, events)
    wait_for(lambda: len(site.effects) >= len(events), lambda: site.effects)
    assert handled(site) == ids(events)
    # None of it was done by the process that only looks after the workers.
    assert site.pid not in {pid for _, pid in site.effects}
    assert site.end() in {0, -signal.SIGTERM}
    assert handled(site) == ids(events)


def test_a_server_that_is_told_to_end_loses_nothing_and_repeats_nothing(running: Site) -> None:
    events = [sample_event("user.verified") for _ in range(24)]
    deliver_all(running, events)
    # As gunicorn ends with 0, and uvicorn by the signal itself, once all is in order.
    assert running.end() in {0, -signal.SIGTERM}
    before = handled(running)
    running.start()
    running.visit()
    wait_for(lambda: len(running.effects) >= len(events), lambda: running.effects)
    assert handled(running) == ids(events)
    assert len(before) > 0
    assert running.record(events[-1].id)["crashes"] == 0


def test_a_handler_that_does_not_end_does_not_keep_its_server_from_ending(running_in_one_way: Site) -> None:
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
