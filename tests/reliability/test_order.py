"""Ordered handlers in processes that are killed: the events of an object are handled one at a time, in order."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from envoyou_core import Event
from envoyou_core.inbox import Status
from envoyou_core.inbox.sql.inbox import SqlInbox
from envoyou_core.testing import sample_event
from tests.reliability.sites import ANY_SERVER, CrashingSite, Platform, crashing_site, wait_until_done, worker_process
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

USERS = 12
EVENTS = 15
"""Per user."""

KILLS = 6


def test_the_events_of_an_object_are_handled_in_order(inbox_url: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    events = logins(chance)
    settings = {
        "ENVOYOU_HANDOFF": "manual",
        "ENVOYOU_RETRY_INITIAL_DELAY": "0.1",
        # An event may be in flight at each kill, and must not be dead afterwards.
        "ENVOYOU_RETRY_MAX_CRASHES": str(KILLS + 1),
        "PLAIN_SECONDS": "0.15",
    }
    with crashing_site(ANY_SERVER, tmp_path, inbox_url, settings=settings) as site:
        site.start()
        acknowledged = Platform(site).deliver_all(events)
        inbox = SqlInbox(inbox_url)
        # A worker must not handle all events before the other has started.
        hold = site.folder / "hold"
        hold.touch()
        with worker_process(site, "1") as one, worker_process(site, "2") as two:
            for _ in range(KILLS):
                hold.unlink()
                worker = wait_for(
                    lambda: next((worker for worker in chance.sample([one, two], 2) if worker.busy), None)
                )
                hold.touch()
                worker.close()
                worker.start()
            hold.unlink()
            wait_until_done(inbox)
        arrivals = [record.event for record in reversed(inbox.list(limit=10_000))]
        processed = inbox.stats().by_status[Status.PROCESSED]
        crashed = sum(record.crashes > 0 for record in inbox.list(limit=10_000))
        inbox.close()
        done = turns(inbox_url)
        overlaps = overlapping(site)
    doubled = sum(len(ids) - len(set(ids)) for ids in done.values())
    expected = defaultdict(list)
    for event in sorted(arrivals, key=lambda event: event.created):
        expected[event.data.object["user_id"]].append(event.id)
    out_of_order = sum(done[user] != expected[user] for user in expected)
    print(
        f"\n{KILLS} kills, {len(acknowledged)} acknowledged, {len(events) - processed} lost, {doubled} doubled, "
        f"{crashed} taken over; {out_of_order} of {USERS} objects out of order, {overlaps} overlapping handler runs "
        "of one object"
    )
    assert len(acknowledged) == len(events)
    assert crashed > 0
    assert processed == len(events)
    assert doubled == 0
    assert out_of_order == 0
    assert overlaps == 0


def logins(chance: random.Random) -> list[Event]:
    """Make events in random order, several of them in one second. One in five fails at the first attempt."""
    events = [
        sample_event(
            "auth.login",
            created=1_700_000_000 + chance.randrange(EVENTS),
            object={"user_id": f"user_{user}", "fails_at_first": number % 5 == 0},
        )
        for user in range(USERS)
        for number in range(EVENTS)
    ]
    chance.shuffle(events)
    return events


def turns(inbox_url: str) -> dict[str, list[str]]:
    """Return the ids of the handled events of each object, in the order in which they were handled."""
    engine = create_engine(inbox_url)
    handled = defaultdict(list)
    with engine.connect() as connection:
        for user, event_id in connection.execute(text("SELECT user_id, event_id FROM turns ORDER BY number")):
            handled[user].append(event_id)
    engine.dispose()
    return handled


def overlapping(site: CrashingSite) -> int:
    """Return how often a handler began while another event of its object was in flight.

    A killed run has no end line. Its event must be the next one of that object to begin.
    """
    in_flight: dict[str, str] = {}
    overlaps = 0
    for line in site.lines("turns"):
        what, user, event_id = line.split()
        if what == "begin":
            overlaps += in_flight.get(user, event_id) != event_id
            in_flight[user] = event_id
        else:
            in_flight.pop(user, None)
    return overlaps
