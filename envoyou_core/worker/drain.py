"""Working off the inbox on the spot: for tests, cron jobs and scripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from envoyou_core.errors import ConfigurationError
from envoyou_core.inbox.records import Claim, InboxRecord, Status
from envoyou_core.observability.notices import HandlerOverdue
from envoyou_core.patterns import matches_any
from envoyou_core.steps import Call, CallHandler, Flow, arun, result_of, run
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.leases import LeaseKeeper

__all__ = ["adrain", "drain"]

MAX_PAUSE = 0.5
"""Seconds after which a drain that waits for retries looks again."""

MIN_PAUSE = 0.02
"""Seconds before it looks again where something is due, and cannot be had: it is held back, or others have it."""

MAX_LOOKED_AT = 10_000
"""Events in one state, the newest, that are looked through for one that will go on by itself."""


def drain(engine: Engine, *, until_idle: bool, within: float | None = None) -> int:
    """Do what is due in the calling thread; returns how many events were settled.

    Args:
        engine: what an attempt consists of.
        until_idle: also wait for retries.
        within: seconds after which nothing more is begun.

    Raises:
        ConfigurationError: it is called inside a running event loop.
    """
    if _inside_event_loop():
        raise ConfigurationError("inside a running event loop, use `await webhooks.adrain()`")

    def call(step: Call) -> Any:
        with _overdue_told(engine, step):
            return step.function()

    def look() -> int:
        with _leases(engine) as leases:
            return run(_what_is_due(engine, deadline, leases.hold, leases.drop), call=call)

    deadline = _deadline(within)
    looked_at = engine.clock()
    settled = look()
    while until_idle and time.monotonic() < deadline and (pause := _pause(engine, looked_at)) is not None:
        time.sleep(pause)
        looked_at = engine.clock()
        settled += look()
    return settled


async def adrain(engine: Engine, *, until_idle: bool, within: float | None = None) -> int:
    """Do what is due on the running event loop, sync handlers in threads; returns how many events were settled."""
    going_on: list[asyncio.Future[Any]] = []

    async def offload(step: Call) -> Any:
        thread = asyncio.get_running_loop().run_in_executor(None, partial(copy_context().run, step.function))
        with _overdue_told(engine, step):
            try:
                return await result_of(thread)
            except asyncio.CancelledError:
                going_on.append(thread)
                raise

    async def look() -> int:
        with _leases(engine) as leases:

            def drop(claim: Claim) -> None:
                if going_on:
                    # Its handler may go on, and nobody else is to begin beside it.
                    going_on[0].add_done_callback(lambda _: leases.drop(claim))
                else:
                    leases.drop(claim)

            return await arun(_what_is_due(engine, deadline, leases.hold, drop), offload=offload)

    deadline = _deadline(within)
    looked_at = engine.clock()
    settled = await look()
    while (
        until_idle
        and time.monotonic() < deadline
        and (pause := await asyncio.to_thread(_pause, engine, looked_at)) is not None
    ):
        await asyncio.sleep(pause)
        looked_at = engine.clock()
        settled += await look()
    return settled


def _deadline(within: float | None) -> float:
    return float("inf") if within is None else time.monotonic() + within


def _what_is_due(
    engine: Engine, deadline: float, hold: Callable[[Claim], None], drop: Callable[[Claim], None]
) -> Flow[int]:
    settled = 0
    # One at a time: none waits behind a slow one while its lease runs down.
    while time.monotonic() < deadline and (claims := (yield Call(lambda: engine.claim(1)))):
        hold(claims[0])
        try:
            settled += (yield from engine.attempt(claims[0])) is not None
        finally:
            # Of an attempt that broke off, the lease runs out, and the event is taken up again.
            drop(claims[0])
    return settled


@contextmanager
def _leases(engine: Engine) -> Iterator[LeaseKeeper]:
    leases = LeaseKeeper(engine, engine.inbox.name)
    leases.start()
    try:
        yield leases
    finally:
        leases.stop()


def _pause(engine: Engine, looked_at: float) -> float | None:
    """Seconds until it is worth looking again; `None` when nothing will happen by itself.

    Args:
        engine: whose inbox it is.
        looked_at: epoch seconds at which the last look began: all that was due by then has been tried.
    """
    until_due = engine.seconds_until_due()
    if until_due is None:
        return None
    paused = engine.paused_patterns()
    if paused and not any(_goes_on(record, paused, looked_at) for record in _unfinished(engine)):
        return None
    return min(max(until_due, MIN_PAUSE), MAX_PAUSE)


def _unfinished(engine: Engine) -> Iterator[InboxRecord]:
    for status in (Status.PROCESSING, Status.FAILED, Status.RECEIVED):
        yield from engine.in_context(partial(engine.inbox.list, status=status, limit=MAX_LOOKED_AT))


def _goes_on(record: InboxRecord, paused: Sequence[str], looked_at: float) -> bool:
    """Whether an event is in work, or will be tried again: what was due, and is here still, is held back."""
    later = record.next_attempt_at is not None and record.next_attempt_at.timestamp() > looked_at
    return later and (record.status is Status.PROCESSING or not matches_any(paused, record.event.type))


@contextmanager
def _overdue_told(engine: Engine, step: Call) -> Iterator[None]:
    """Tell of a handler that was past its time limit when it returned: nobody watches it here while it runs."""
    if not isinstance(step, CallHandler) or step.time_limit is None:
        yield
        return
    began = time.monotonic()
    try:
        yield
    finally:
        if time.monotonic() - began > step.time_limit:
            engine.notices.emit(HandlerOverdue(step.event_id, step.event_type, step.handler, step.time_limit))


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
