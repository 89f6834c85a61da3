"""Servers under load that are killed again and again, at random moments."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.sites import SERVERS, Platform, crashing_site, outcome, users
from tests.servers.processes import wait_for

pytestmark = pytest.mark.slow

EVENTS = 5_000
KILLS = 20


@pytest.mark.parametrize(
    ("seed", "inbox_url"),
    [(1, "sqlite"), pytest.param(2, "postgresql", marks=pytest.mark.service), (3, "sqlite")],
    indirect=["inbox_url"],
)
def test_killed_at_random_moments(seed: int, inbox_url: str, tmp_path: Path) -> None:
    """Each time another server takes over the site, WSGI or ASGI, as chance has it."""
    chance = random.Random(seed)
    events = users(EVENTS)
    kills: dict[str, int] = dict.fromkeys(SERVERS, 0)
    name = chance.choice(list(SERVERS))
    with crashing_site(SERVERS[name], tmp_path, inbox_url) as site:
        site.start()
        platform = Platform(site, senders=8)
        with ThreadPoolExecutor(1) as background:
            sending = background.submit(platform.deliver_all, events)
            for so_many in sorted(chance.sample(range(EVENTS * 9 // 10), KILLS)):
                wait_for(lambda so_many=so_many: len(platform.answers) >= so_many, lambda: len(platform.answers))
                time.sleep(chance.uniform(0.0, 0.1))
                site.kill()
                kills[name] += 1
                name = chance.choice(list(SERVERS))
                site.server = SERVERS[name]
                site.start()
            acknowledged = sending.result()
        site.visit()
        result = outcome(site, acknowledged)
    broken = sum(answer.status is None for answer in platform.answers)
    print(f"\nseed {seed}, {sum(kills.values())} kills {kills}, {broken} connections broken: {result}")
    assert sum(kills.values()) == KILLS
    assert broken > 0
    assert len(acknowledged) == EVENTS
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0
