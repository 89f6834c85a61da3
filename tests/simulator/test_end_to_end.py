"""The platform delivers to each adapter's application, with trouble, while the application is killed and restarted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from envoyou_core.client import DeliveryRetryPolicy, EnvoyouClient
from envoyou_core.simulator import Platform, Trouble
from tests.adapters import chosen
from tests.reliability.sites import DJANGO_SERVERS, SERVERS, crashing_site, outcome
from tests.servers.processes import PATH, SECRET, Server, free_port, uvicorn, wait_for

ADAPTERS = {
    **{name: DJANGO_SERVERS[name] for name in ("django",) if name in DJANGO_SERVERS},
    **SERVERS,
    **{name: uvicorn("starlette_app:app") for name in ("starlette",) if name in chosen()},
}
TROUBLE = Trouble(
    seed=1,
    duplicates=0.1,
    reordering=0.1,
    delays=0.1,
    max_delay=2.0,
    dropped_answers=0.1,
    canonical_signatures=0.3,
    pretty_bodies=0.3,
    repeated_nonces=0.2,
    clock_skew=-60,
)
PATIENT = DeliveryRetryPolicy(max_attempts=20, backoff_multiplier=1.2, initial_delay=500)
"""Lasts for more than a minute, as two restarts on a busy machine may."""

ACCEPTED = '{"received": true}'
PATIENCE = 120.0
"""Seconds."""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_of_many_events_is_processed_once(adapter: str, tmp_path: Path) -> None:
    deliver_through_restarts(ADAPTERS[adapter], tmp_path, 2_000)


@pytest.mark.skipif(not ADAPTERS, reason="no adapter is tested")
def test_each_event_is_processed_once(tmp_path: Path) -> None:
    deliver_through_restarts([*ADAPTERS.values()][-1], tmp_path, 100)


def deliver_through_restarts(server: Server, folder: Path, count: int) -> None:
    """Deliver events while the application is killed once and ended once, and compare both records."""
    inbox_url = f"sqlite:///{folder / 'inbox.db'}"
    with (
        crashing_site(at_port(server, free_port()), folder, inbox_url) as site,
        Platform(trouble=TROUBLE, timeout=20) as platform,
        EnvoyouClient(platform.api_key, platform.base_url) as client,
    ):
        site.start()
        client.webhooks.create(
            url=f"http://127.0.0.1:{site.address[1]}{PATH}",
            events=["user.created"],
            secret=SECRET,
            retry_policy=PATIENT,
        )
        sent = frozenset(platform.send("user.created", count=count))
        wait_until_left(platform, 0.7 * count)
        site.kill()
        site.start()
        wait_until_left(platform, 0.3 * count)
        site.end()
        site.start()
        platform.wait_until_idle(PATIENCE)
        site.visit()
        result = outcome(site, sent)
        attempts = platform.attempts()
    failed = Counter(attempt.status for attempt in attempts if not attempt.delivered)
    print(f"\n{len(attempts)} attempts, of which failed by status: {dict(failed)}; {result}")
    assert failed[None] > 0, "the restarts were not noticed"
    assert {attempt.event_id for attempt in attempts if attempt.delivered} == sent
    accepted = Counter(attempt.event_id for attempt in attempts if attempt.answer == ACCEPTED)
    assert accepted.keys() <= sent
    assert set(accepted.values()) <= {1}, "an event was answered as new twice"
    assert not result.lost
    assert result.doubled == 0
    assert result.unfinished == 0


def at_port(server: Server, port: int) -> Server:
    """Return a server that listens on the same port after a restart, as the platform expects."""
    places = {"--bind=127.0.0.1:0": f"--bind=127.0.0.1:{port}", "--port=0": f"--port={port}"}
    return replace(server, command=[places.get(part, part) for part in server.command])


def wait_until_left(platform: Platform, number: float) -> None:
    wait_for(lambda: platform.count_unfinished() <= number, platform.count_unfinished)
