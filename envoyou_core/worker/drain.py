"""Handles the due events now, in the caller's thread or event loop: for tests, cron jobs and scripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from envoyou_core.errors import ConfigurationError, RetryLater
from envoyou_core.inbox.database_errors import is_database_failure
from envoyou_core.inbox.records import Claim, InboxRecord, Settlement, Status
from envoyou_core.observability.attempt_notices import HandlerOverdue
from envoyou_core.observability.worker_notices import NoHandlers
from envoyou_core.patterns import matches_any
from envoyou_core.steps import Call, CallHandler, Flow, arun, result_of, run
from envoyou_core.worker.attempt import RunningAttempt
from envoyou_core.worker.backoff import Backoff
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.leases import LeaseKeeper

__all__ = ["adrain", "drain"]

MAX_PAUSE = 0.5
"""Seconds after which a drain that waits for retries polls the inbox again."""

MIN_PAUSE = 0.02
"""Seconds to wait if an event is due but cannot be claimed, because it is held back or another worker has it."""

MAX_SCANNED = 10_000
"""How many unfinished events of each status, newest first, are searched for one that will become due."""


def drain(engine: Engine, *, until_idle: bool, within: float | None = None, raise_errors: bool = False) -> int:
    """Handle the due events in the calling thread; returns how many were settled.

    Args:
        engine: runs the events.
        until_idle: also wait for retries.
        within: seconds after which no further event is started.
        raise_errors: raise what handlers have raised, once their attempt is settled.

    Raises:
        ConfigurationError: called inside a running event loop.
    """
    if _inside_event_loop():
        raise ConfigurationError("inside a running event loop, use `await webhooks.adrain()`")

    def call(step: Call) -> Any:
        with _report_if_overdue(engine, step):
            return step.function()

    def handle_due() -> int:
        with _lease_keeper(engine) as leases:
            return run(_handle_due(engine, deadline, leases.hold, leases.drop, raise_errors), call=call)

    deadline = _deadline(within)
    polled_at = engine.clock()
    settled = handle_due()
    while until_idle and time.monotonic() < deadline and (pause := _pause(engine, polled_at)) is not None:
        time.sleep(pause)
        polled_at = engine.clock()
        settled += handle_due()
    return settled


async def adrain(engine: Engine, *, until_idle: bool, within: float | None = None, raise_errors: bool = False) -> int:
    """Handle the due events on the running event loop, sync handlers in threads. See `drain`."""
    still_running: list[asyncio.Future[Any]] = []

    async def offload(step: Call) -> Any:
        thread = asyncio.get_running_loop().run_in_executor(None, partial(copy_context().run, step.function))
        with _report_if_overdue(engine, step):
            try:
                return await result_of(thread)
            except asyncio.CancelledError:
                still_running.append(thread)
                raise

    async def handle_due() -> int:
        with _lease_keeper(engine) as leases:

            def drop(claim: Claim) -> None:
                if still_running:
                    # The handler may still run in its thread: until it returns, no other worker may claim its event.
                    still_running[0].add_done_callback(lambda _: leases.drop(claim))
                else:
                    leases.drop(claim)

            return await arun(_handle_due(engine, deadline, leases.hold, drop, raise_errors), offload=offload)

    deadline = _deadline(within)
    polled_at = engine.clock()
    settled = await handle_due()
    while (
        until_idle
        and time.monotonic() < deadline
        and (pause := await asyncio.to_thread(_pause, engine, polled_at)) is not None
    ):
        await asyncio.sleep(pause)
        polled_at = engine.clock()
        settled += await handle_due()
    return settled


def _handle(engine: Engine, claim: Claim, raise_errors: bool) -> Flow[bool]:
    """Make one attempt at `claim` and settle it; false if the lease was lost, or the database interrupted it."""
    attempt = engine.new_attempt(claim)
    has_ended = False
    try:
        yield from engine.run_handlers(attempt)
        has_ended, held = True, attempt.is_settled
        if attempt.settlement is not None and not held:
            held = yield from _settle_within_lease(engine, claim, attempt.settlement)
    except Exception as error:
        if is_database_failure(error, in_inbox=True):
            # The next drain of this process settles it. If its lease expired, that would count as a crash.
            engine.keep_unsettled(attempt, has_ended=has_ended)
        raise
    yield from engine.report(attempt, held)
    if raise_errors:
        _raise_failures(attempt)
    # An event that waits for a handler of another process is not settled.
    is_left = attempt.settlement is None or attempt.settlement.waits_for is not None
    return held and not is_left and not attempt.is_interrupted


def _settle_within_lease(engine: Engine, claim: Claim, settlement: Settlement) -> Flow[bool]:
    """Settle an attempt, and retry that while the database fails, but not for longer than a lease."""
    settle = Call(partial(engine.settle, claim, settlement))
    backoff = Backoff()
    deadline = time.monotonic() + engine.lease
    while True:
        try:
            held: bool = yield settle
        except Exception as error:
            if time.monotonic() + backoff.next > deadline or not is_database_failure(error, in_inbox=True):
                raise
        else:
            return held
        yield Call(partial(time.sleep, backoff.advance()))


def _settle_kept(engine: Engine) -> Flow[int]:
    """Settle the attempts that earlier drains could not settle."""
    settled = 0
    unsettled = engine.late_leases.take_unsettled()
    while unsettled:
        attempt, settlement = unsettled[0]
        try:
            held = yield Call(partial(engine.settle, attempt.claim, settlement))
        except Exception:
            for pair in unsettled:
                engine.late_leases.keep(*pair)
            raise
        del unsettled[0]
        yield from engine.report(attempt, held)
        settled += held and not attempt.is_interrupted
    return settled


def _raise_failures(attempt: RunningAttempt) -> None:
    """Raise what the handlers have raised: one exception as it is, several as a group.

    `RetryLater` is none of them as long as the event has attempts left.
    """
    is_retried = attempt.settlement is not None and attempt.settlement.status is Status.FAILED
    errors = [error for error in attempt.errors if not (is_retried and isinstance(error, RetryLater))]
    if len(errors) > 1:
        raise ExceptionGroup(f"several handlers failed for event {attempt.claim.event.id}", errors)
    for error in errors:
        raise error


def _handle_due(
    engine: Engine,
    deadline: float,
    hold: Callable[[Claim], None],
    drop: Callable[[Claim], None],
    raise_errors: bool,
) -> Flow[int]:
    if not engine.has_handlers:
        engine.notices.emit(NoHandlers(engine.inbox.name))
        return 0
    engine.check_providers()
    settled = yield from _settle_kept(engine)
    engine.presence.drains()
    engine.known_handlers.look_now()
    yield Call(engine.ensure_listed)
    yield Call(engine.recover)
    # One at a time: no claimed event waits behind a slow one while its lease runs out.
    while time.monotonic() < deadline and (claims := (yield Call(lambda: engine.claim_waiting(1) or engine.claim(1)))):
        hold(claims[0])
        try:
            settled += yield from _handle(engine, claims[0], raise_errors)
        finally:
            # If the attempt was interrupted, its lease expires and the event is claimed again.
            drop(claims[0])
    return settled


def _deadline(within: float | None) -> float:
    return float("inf") if within is None else time.monotonic() + within


@contextmanager
def _lease_keeper(engine: Engine) -> Iterator[LeaseKeeper]:
    leases = LeaseKeeper(engine, engine.inbox.name)
    leases.start()
    try:
        yield leases
    finally:
        leases.stop()


def _pause(engine: Engine, polled_at: float) -> float | None:
    """Seconds to wait before polling again; `None` if no event will become due by itself.

    Args:
        engine: runs the events.
        polled_at: epoch seconds of the last poll. All events that were due then have been tried.
    """
    until_due = engine.seconds_until_due()
    if until_due is None or not engine.has_handlers:
        return None
    paused = engine.paused_patterns()
    # An event that waits for a handler of another process may be due in a day.
    may_wait = until_due > MAX_PAUSE and engine.in_context(engine.inbox.has_waiting)
    if (paused or may_wait) and not any(_becomes_due(record, paused, polled_at) for record in _unfinished(engine)):
        return None
    return min(max(until_due, MIN_PAUSE), MAX_PAUSE)


def _unfinished(engine: Engine) -> Iterator[InboxRecord]:
    for status in (Status.PROCESSING, Status.FAILED, Status.RECEIVED):
        yield from engine.in_context(partial(engine.inbox.list, status=status, limit=MAX_SCANNED))


def _becomes_due(record: InboxRecord, paused: Sequence[str], polled_at: float) -> bool:
    """Whether the event is being processed or will be retried.

    An event that was due at the poll is held back, and one that waits for a handler is not this process's.
    """
    if record.waits_for is not None:
        return False
    later = record.next_attempt_at is not None and record.next_attempt_at.timestamp() > polled_at
    return later and (record.status is Status.PROCESSING or not matches_any(paused, record.event.type))


@contextmanager
def _report_if_overdue(engine: Engine, step: Call) -> Iterator[None]:
    """Report a handler that has exceeded its time limit once it returns: a drain has no watchdog."""
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
