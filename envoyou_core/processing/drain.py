"""Working off the inbox on the spot: for tests, cron jobs and scripts."""

from __future__ import annotations

import asyncio
import time

from envoyou_core.errors import ConfigurationError
from envoyou_core.processing.engine import Engine
from envoyou_core.processing.leases import LeaseKeeper
from envoyou_core.steps import Call, Flow, arun, run

__all__ = ["adrain", "drain"]

LONGEST_PAUSE = 0.5
"""Seconds after which a drain that waits for retries looks again."""


def drain(engine: Engine, *, until_idle: bool) -> int:
    """Do what is due in the calling thread; returns how many events were settled.

    Raises:
        ConfigurationError: it is called inside a running event loop.
    """
    if _inside_event_loop():
        raise ConfigurationError("inside a running event loop, use `await webhooks.adrain()`")
    settled = run(_what_is_due(engine))
    while until_idle and (pause := engine.seconds_until_due()) is not None:
        time.sleep(_bounded(pause))
        settled += run(_what_is_due(engine))
    return settled


async def adrain(engine: Engine, *, until_idle: bool) -> int:
    """Do what is due on the running event loop, sync handlers in threads; returns how many events were settled."""
    settled = await arun(_what_is_due(engine))
    while until_idle and (pause := await asyncio.to_thread(engine.seconds_until_due)) is not None:
        await asyncio.sleep(_bounded(pause))
        settled += await arun(_what_is_due(engine))
    return settled


def _what_is_due(engine: Engine) -> Flow[int]:
    settled = 0
    leases = LeaseKeeper(engine, engine.inbox.name)
    leases.start()
    try:
        # One at a time: none waits behind a slow one while its lease runs down.
        while claims := (yield Call(lambda: engine.claim(1))):
            leases.hold(claims[0])
            settled += (yield from engine.attempt(claims[0])) is not None
            leases.let_go(claims[0])
    finally:
        leases.stop()
    return settled


def _bounded(pause: float) -> float:
    return min(max(pause, 0.0), LONGEST_PAUSE)


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
