"""A worker: claims due events from the inbox and runs several attempts at once, on one event loop.

Async handlers run on that loop, sync handlers in threads. An event with sync handlers only stays in one thread until it
is settled. A worker polls the inbox; `wake` only saves waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from msgspec.structs import replace

from envoyou_core.errors import WorkerStuckError, describe
from envoyou_core.inbox.database_errors import is_database_failure
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.group_commit import MAX_BATCH
from envoyou_core.inbox.records import Claim
from envoyou_core.observability.disabled import report_disabled_loggers
from envoyou_core.observability.worker_notices import (
    NoHandlers,
    WorkerFailed,
    WorkerStarted,
    WorkerStopped,
)
from envoyou_core.steps import Call, CallHandler, arun, result_of, run
from envoyou_core.worker.attempt import RunningAttempt
from envoyou_core.worker.backoff import Backoff
from envoyou_core.worker.connection_share import ConnectionShare
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.heartbeat import Heartbeat
from envoyou_core.worker.in_flight import InFlight
from envoyou_core.worker.inbox_thread import InboxThread
from envoyou_core.worker.leases import LeaseKeeper
from envoyou_core.worker.loop_tasks import LoopTasks
from envoyou_core.worker.maintenance import Maintenance
from envoyou_core.worker.settling import Settler
from envoyou_core.worker.signals import Signals
from envoyou_core.worker.threads import DaemonThreads
from envoyou_core.worker.watchdog import Watchdog

__all__ = ["FREEZE", "SWEEP_INTERVAL", "Worker"]

SWEEP_INTERVAL = 1.0
"""Seconds after which a worker polls the inbox without a wake-up, for events that another process has stored, requeued
or left behind. Claims that have been queued for longer without a start are returned to the inbox."""

HELD_BACK_INTERVAL = 0.5
"""Seconds after which a worker polls again if events are due but none can be claimed."""

FREEZE = 10.0
"""Seconds without a poll after which a worker counts as frozen by its host, or by a handler that blocks its loop."""


class Worker:
    """Handles events on the event loop in which `run` is awaited, until `stop` is called.

    Args:
        engine: runs the attempts.
        name: the name of the `Webhooks`.
        kind: what the worker runs on, for the log.
        concurrency: how many attempts run at once.
        ends_when_stuck: stop when each slot is held by a sync handler that has exceeded its time limit.
        interrupted: called if events are due after the worker could not run for longer than `FREEZE`.
        clock: epoch seconds. Not a monotonic clock, which may stand still while a host freezes the process.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        kind: str,
        concurrency: int,
        ends_when_stuck: bool = False,
        interrupted: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._name = name
        self._kind = kind
        self._concurrency = concurrency
        self._ends_when_stuck = ends_when_stuck
        self._interrupted = interrupted
        self._clock = clock
        self._loop = LoopTasks()
        self._signals = Signals(self._loop)
        self._in_flight = InFlight(concurrency)
        self._leases = LeaseKeeper(engine, name)
        self._handler_threads = DaemonThreads(
            concurrency, f"envoyou-handler-{name}", on_thread_exit=engine.run_thread_exit_hooks
        )
        self._maintenance = Maintenance(engine, name)
        self._inbox_thread = InboxThread(engine, name, is_stopping=lambda: self._signals.stopping)
        self._connections = ConnectionShare(engine, name, concurrency)
        self._heartbeat = Heartbeat(engine, name, self._inbox_thread, then=self._connections.divide)
        self._watchdog = Watchdog(self._loop, engine.notices, on_overdue=self._stop_if_stuck)
        self._settler = Settler(
            engine,
            name,
            loop=self._loop,
            inbox_thread=self._inbox_thread,
            handler_threads=self._handler_threads,
            drop=self._drop,
        )
        self._expects_more = False
        self._has_unseen_event = False
        self._is_polling = False
        self._left_claims = False
        self._unreturned: list[Claim] = []
        self._last_turn: float | None = None
        self._was_frozen = False
        self._stuck = False
        self._finished = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether the worker runs or is about to start."""
        return not self._finished.is_set() and not self._loop.is_closed

    @property
    def left_work(self) -> bool:
        """Whether the worker ended before it had polled for an announced event or finished its claims."""
        return self._has_unseen_event or self._is_polling or self._left_claims

    def start_on_running_loop(self) -> asyncio.Task[None]:
        """Start to work on the running event loop; the caller must keep a reference to the task."""
        # Now, not in the task: a loop that ends at once cancels the task before its first step.
        self._loop.attach()
        # A fresh context: handlers must not inherit the context of the request that happens to start the worker.
        task = asyncio.create_task(self.run(), name=f"envoyou worker {self._name}", context=Context())
        task.add_done_callback(lambda _: self._finished.set())
        return task

    def announce_event(self) -> None:
        """Poll the inbox because an event may be due. Safe to call from any thread, at any time."""
        self._has_unseen_event = True
        self._signals.wake()

    def wake(self) -> None:
        """Poll the inbox now. Safe to call from any thread, at any time."""
        self._signals.wake()

    def stop(self, timeout: float) -> None:
        """Claim nothing more, finish running attempts within `timeout` seconds, return the rest to the inbox."""
        self._in_flight.close()
        self._signals.stop(timeout)

    def join(self, timeout: float) -> bool:
        """Wait in another thread until the worker has stopped; false if that took longer than `timeout` seconds."""
        return self._finished.wait(timeout)

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            WorkerStuckError: the worker has stopped because all its slots are held by overdue handlers.
        """
        self._loop.attach()
        maintenance = asyncio.create_task(self._maintenance.run(), name=f"envoyou maintenance {self._name}")
        beats = asyncio.create_task(self._heartbeat.run(), name=f"envoyou beats {self._name}")
        try:
            self._leases.start()
            # Python 3.12 starts no thread while the process ends, which may be when the first event is handled.
            self._handler_threads.start()
            self._settler.start()
            report_disabled_loggers()
            handlers = tuple(handler.name for handler in self._engine.handlers)
            location = location_of(self._engine.inbox)
            self._engine.notices.emit(WorkerStarted(self._name, self._kind, location, handlers))
            if not handlers:
                self._engine.notices.emit(NoHandlers(self._name))
            self._connections.report()
            await self._dispatch()
            queued = self._in_flight.withdraw()
            self._left_claims = bool(queued)
            await self._return_to_inbox(queued)
            await self._finish()
        finally:
            maintenance.cancel()
            beats.cancel()
            await self._shut_down()
        if self._stuck:
            raise WorkerStuckError(self._concurrency)

    async def _finish(self) -> None:
        """Wait until all running attempts are settled, but not beyond the deadline."""
        while self._in_flight.begun and self._signals.remaining > 0:
            self._signals.clear()
            if self._in_flight.begun:
                await self._signals.wait(self._signals.remaining)

    async def _shut_down(self) -> None:
        self._signals.stopping = True
        self._in_flight.close()
        unfinished = self._in_flight.begun
        self._left_claims = self._left_claims or unfinished > 0
        await self._loop.cancel_all(timeout=1.0)
        await self._return_to_inbox(self._in_flight.withdraw())
        await self._heartbeat.end()
        self._leases.stop()
        self._settler.close()
        self._handler_threads.close()
        self._inbox_thread.close()
        self._maintenance.close()
        self._finished.set()
        self._engine.notices.emit(WorkerStopped(self._name, unfinished))

    def _stop_if_stuck(self, overdue: int) -> None:
        if self._ends_when_stuck and overdue >= self._concurrency:
            self._stuck = True
            self.stop(0.0)

    # Claiming

    async def _dispatch(self) -> None:
        """Claim due events and start attempts until the worker is stopped."""
        backoff = Backoff()
        while not self._signals.stopping:
            self._detect_freeze()
            self._signals.clear()
            self._has_unseen_event, self._is_polling = False, True
            try:
                pause = await self._claim_due()
                backoff.reset()
            except Exception as error:
                pause = backoff.advance()
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), pause))
            # Not in a `finally` clause: a worker that is cancelled while it polls has left work.
            self._is_polling = False
            if not self._signals.stopping:
                await self._signals.wait(pause)

    def _detect_freeze(self) -> None:
        """Note whether the process was frozen since the last call: a worker calls this at least once a second."""
        now = self._clock()
        if self._last_turn is not None and now - self._last_turn > FREEZE:
            self._was_frozen = True
        self._last_turn = now

    async def _claim_due(self) -> float:
        """Claim due events, as far as there is capacity, and start them. Returns the seconds until the next poll."""
        unreturned, self._unreturned = self._unreturned, []
        await self._return_to_inbox([*unreturned, *self._in_flight.take_stale(SWEEP_INTERVAL)])
        capacity = self._in_flight.capacity(max_settling=MAX_BATCH)
        if capacity <= 0:
            return SWEEP_INTERVAL
        polling = self._inbox_thread.submit(partial(self._poll, capacity, self._in_flight.claims))
        answer = asyncio.wrap_future(polling)
        is_answered = False
        try:
            is_answered = await self._wait_for(answer)
        finally:
            if not is_answered:
                # The thread may still be claiming, or have claimed just as this task was cancelled.
                polling.add_done_callback(self._return_unused)
                answer.cancel()
        if not is_answered:
            return 0.0
        claims, until_due = answer.result()
        self._report_freeze(claims)
        if claims:
            await self._accept(claims)
            return 0.0
        if until_due is None:
            return SWEEP_INTERVAL
        # If an event is due but was not claimed, it is held back, or another worker has claimed it.
        return min(until_due, SWEEP_INTERVAL) if until_due > 0 else HELD_BACK_INTERVAL

    async def _wait_for(self, answer: asyncio.Future[Any]) -> bool:
        """Wait for an answer of the inbox; false if there is none by the time that the worker must have stopped.

        A database that does not respond must not keep the process from ending.
        """
        while not answer.done() and not self._signals.overdue:
            await asyncio.wait([answer], timeout=SWEEP_INTERVAL)
            self._detect_freeze()
        return answer.done()

    def _poll(self, capacity: int, in_flight: Sequence[Claim]) -> tuple[list[Claim], float | None]:
        late_leases = self._engine.late_leases
        late_leases.note_request()
        polled = self._claim_if_due(capacity, in_flight)
        late_leases.note_answer()
        return polled

    def _claim_if_due(self, capacity: int, in_flight: Sequence[Claim]) -> tuple[list[Claim], float | None]:
        if self._engine.recovery.is_due:
            self._engine.recover()
        if not self._engine.has_handlers:
            return [], None
        # A claim takes SQLite's only write lock, so an idle worker first reads whether an event is due.
        if waiting := self._engine.claim_waiting(capacity, in_flight):
            return waiting, 0.0
        until_due = 0.0 if self._expects_more else self._engine.seconds_until_due()
        if until_due is None or until_due > 0:
            return [], until_due
        claims = self._engine.claim(capacity, in_flight)
        self._expects_more = len(claims) == capacity
        return claims, until_due

    def _report_freeze(self, claims: Sequence[Claim]) -> None:
        if self._was_frozen and claims:
            self._interrupted()
        self._was_frozen = False

    async def _accept(self, claims: Sequence[Claim]) -> None:
        accepted, postponed = self._separate_suspects(claims)
        self._leases.hold(*accepted)
        try:
            # Before any attempt starts: if one ends the process, that must not count as a crash of those that waited.
            await self._return_to_inbox(postponed, retry_in=SWEEP_INTERVAL)
        finally:
            self._in_flight.accept(accepted)
            self._start_queued()

    def _separate_suspects(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
        """Split off the poison suspects but one: a worker runs only one of them at a time."""
        has_suspect = any(map(self._engine.is_poison_suspect, self._in_flight.claims))
        accepted: list[Claim] = []
        postponed: list[Claim] = []
        for claim in claims:
            is_suspect = self._engine.is_poison_suspect(claim)
            (postponed if has_suspect and is_suspect else accepted).append(claim)
            has_suspect = has_suspect or is_suspect
        return accepted, postponed

    async def _return_to_inbox(self, claims: Sequence[Claim], *, retry_in: float = 0.0) -> None:
        if claims:
            returning = self._inbox_thread.submit(partial(self._return_each, claims, retry_in=retry_in))
            answer = asyncio.wrap_future(returning)
            # Even a worker that must stop at once waits for a moment, so that the events are due again when it ends.
            await asyncio.wait([answer], timeout=SWEEP_INTERVAL)
            await self._wait_for(answer)

    def _return_each(self, claims: Sequence[Claim], *, retry_in: float = 0.0) -> None:
        try:
            for claim in claims:
                self._engine.return_to_inbox(claim, claim.progress, retry_in=retry_in)
        except Exception as error:
            if is_database_failure(error, in_inbox=True) and not self._signals.stopping:
                # Their leases are renewed until they can be returned: to expire would count as crashes.
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), SWEEP_INTERVAL))
                self._leases.hold(*claims)
                self._unreturned += claims
                return
            # Their leases expire instead, so they must not be renewed any longer.
            self._engine.notices.emit(WorkerFailed(self._name, describe(error), self._engine.lease))
        for claim in claims:
            self._drop(claim)

    def _return_unused(self, polling: Future[tuple[list[Claim], float | None]]) -> None:
        if not polling.cancelled() and polling.exception() is None:
            self._return_each(polling.result()[0])

    # Running attempts

    def _start_queued(self) -> None:
        while (claim := self._in_flight.begin()) is not None:
            if not self._engine.is_sync(claim):
                self._loop.spawn(self._run_on_loop(claim))
                continue
            try:
                self._handler_threads.submit(partial(self._run_in_thread, claim))
            except RuntimeError as error:
                # No thread can be started.
                self._settler.abandon(claim, error)
                return

    def _run_in_thread(self, claim: Claim) -> None:
        """Run one attempt in the calling thread, then further queued ones: returning to the loop for each is slow."""
        following: Claim | None = claim
        while following is not None:
            # In a copy of the context, so that handlers do not see what those of another event have set.
            copy_context().run(self._run_one_in_thread, following)
            following = self._in_flight.begin()
            if following is not None and not self._engine.is_sync(following):
                self._loop.run_soon(partial(self._run_on_loop, following), otherwise=partial(self._drop, following))
                return

    def _run_one_in_thread(self, claim: Claim) -> None:
        attempt = self._engine.new_attempt(claim)
        try:
            run(self._engine.run_handlers(attempt), call=self._call_in_thread)
        except BaseException as error:
            self._settler.abandon(claim, error)
        else:
            self._settle(attempt)

    def _call_in_thread(self, step: Call) -> Any:
        if isinstance(step, CallHandler):
            with self._watchdog.watch(step):
                return step.function()
        try:
            return step.function()
        except Exception as error:
            if self._loop.is_closed:
                raise
            return self._loop.wait_for(self._inbox_thread.retry(step.function, error))

    async def _run_on_loop(self, claim: Claim) -> None:
        attempt = self._engine.new_attempt(claim)
        still_running: list[Future[Any]] = []

        async def offload(step: Call) -> Any:
            if not isinstance(step, CallHandler):
                return await self._inbox_thread.retry(step.function)
            handler = self._handler_threads.submit(partial(self._call_in_thread, step))
            try:
                return await result_of(asyncio.wrap_future(handler))
            except asyncio.CancelledError:
                if not handler.cancel():
                    still_running.append(handler)
                raise

        try:
            await arun(self._engine.run_handlers(attempt), offload=offload)
        except asyncio.CancelledError:
            if still_running:
                # A thread cannot be stopped. Its lease is renewed until the handler returns, so that no other worker
                # starts the same handler beside it.
                still_running[0].add_done_callback(lambda _: self._drop(claim))
            else:
                await self._return_to_inbox([replace(claim, progress=attempt.progress, owed=attempt.owed())])
            raise
        except Exception as error:
            self._settler.abandon(claim, error)
        else:
            self._settle(attempt)
        self._start_queued()

    def _settle(self, attempt: RunningAttempt) -> None:
        # The slot is free before the commit, which the attempt shares with others.
        self._in_flight.release(attempt.claim)
        self._wake_if_low()
        self._settler.settle(attempt)

    def _drop(self, claim: Claim) -> None:
        """Forget a claim that is settled, returned to the inbox or given up."""
        self._leases.drop(claim)
        self._in_flight.end(claim)
        self._wake_if_low()

    def _wake_if_low(self) -> None:
        if self._signals.stopping or self._in_flight.below_low_watermark:
            self._signals.wake()
