"""Working off the inbox on the spot: for tests, cron jobs and scripts."""

from __future__ import annotations

import asyncio
from functools import partial

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.records import Status
from envoyou_core.patterns import matches_any
from envoyou_core.processing.engine import Engine
from envoyou_core.processing.leases import LeaseKeeper
from envoyou_core.processing.selection import paused_patterns
from envoyou_core.steps import Call, Flow, Pause, arun, run

__all__ = ["adrain", "drain"]

SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
"""Seconds after which a drain that waits for retries looks again."""


def drain(engine: Engine, *, until_idle: bool) -> int:
    """Do what is due in the calling thread; returns how many events were settled.

    Raises:
        ConfigurationError: it is called inside a running event loop.
    """
    if _inside_event_loop():
        raise ConfigurationError("inside a running event loop, use `await webhooks.adrain()`")
    return run(_until_idle(engine) if until_idle else _what_is_due(engine))


async def adrain(engine: Engine, *, until_idle: bool) -> int:
    """Do what is due on the running event loop, sync handlers in threads; returns how many events were settled."""
    return await arun(_until_idle(engine) if until_idle else _what_is_due(engine))


def _until_idle(engine: Engine) -> Flow[int]:
    settled = yield from _what_is_due(engine)
    while (pause := (yield Call(engine.seconds_until_due))) is not None:
        # What is due by now was stored meanwhile, is held back, or in the hands of somebody whose lease has run out.
        if pause <= 0 and not (yield Call(partial(engine.within_surroundings, lambda: _goes_on_by_itself(engine)))):
            return settled
        yield Pause(min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE))
        settled += yield from _what_is_due(engine)
    return settled


def _what_is_due(engine: Engine) -> Flow[int]:
    settled = 0
    leases = LeaseKeeper(engine, engine.inbox.name)
    leases.start()
    try:
        # One at a time: none waits behind a slow one while its lease runs down.
        while claims := (yield Call(lambda: engine.claim(1))):
            leases.hold(*claims)
            settled += (yield from engine.attempt(claims[0])) is not None
            leases.let_go(claims[0])
    finally:
        leases.stop()
    return settled


def _goes_on_by_itself(engine: Engine) -> bool:
    """Whether there is anything to wait for, rather than paused events alone."""
    paused = paused_patterns(engine.handlers, engine.pauses.subjects())
    return not paused or any(
        not matches_any(paused, record.event.type)
        for status in (Status.RECEIVED, Status.FAILED, Status.PROCESSING)
        for record in engine.inbox.list(status=status, limit=1000)
    )


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
