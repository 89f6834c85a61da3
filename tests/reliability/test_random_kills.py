"""Servers under load are killed repeatedly, at random moments."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.sites import DJANGO_SERVERS, SERVERS, Platform, crashing_site, outcome, users
from tests.servers.processes import Server, wait_for

pytestmark = pytest.mark.slow

OF_DJANGO = pytest.mark.skipif(not DJANGO_SERVERS, reason="Django is not among the chosen adapters")


@pytest.mark.parametrize(
    ("seed", "inbox_url", "count", "kills", "servers"),
    [
        (1, "sqlite", 5_000, 20, SERVERS),
        pytest.param(2, "postgresql", 5_000, 20, SERVERS, marks=pytest.mark.service),
        pytest.param(4, "sqlite", 1_000, 10, DJANGO_SERVERS, marks=OF_DJANGO),
        pytest.param(5, "postgresql", 1_000, 10, DJANGO_SERVERS, marks=[OF_DJANGO, pytest.mark.service]),
    ],
    indirect=["inbox_url"],
)
def test_killed_at_random_moments(
    seed: int, inbox_url: str, count: int, kills: int, servers: dict[str, Server], tmp_path: Path
) -> None:
    """After each kill, a randomly chosen server, WSGI or ASGI, takes over the site."""
    chance = random.Random(seed)
    events = users(count)
    killed: dict[str, int] = dict.fromkeys(servers, 0)
    name = chance.choice(list(servers))
    with crashing_site(servers[name], tmp_path, inbox_url) as site:
        site.start()
        platform = Platform(site, senders=8)
        with ThreadPoolExecutor(1) as background:
            sending = background.submit(platform.deliver_all, events)
            for answers in sorted(chance.sample(range(count * 9 // 10), kills)):
                wait_for(lambda answers=answers: len(platform.answers) >= answers, lambda: len(platform.answers))
                time.sleep(chance.uniform(0.0, 0.1))
                site.kill()
                killed[name] += 1
                name = chance.choice(list(servers))
                site.server = servers[name]
                site.start()
                restarted_at = time.monotonic()
            acknowledged = sending.result()
        site.visit()
        result = outcome(site, acknowledged)
        seconds = time.monotonic() - restarted_at
    broken = sum(answer.status is None for answer in platform.answers)
    print(f"\nseed {seed}, {sum(killed.values())} kills {killed}, {broken} connections broken,")
    print(f"last effect {seconds:.1f} s after the last restart, with deliveries until then: {result}")
    assert sum(killed.values()) == kills
    assert broken > 0
    assert len(acknowledged) == count
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0
