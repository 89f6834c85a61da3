"""A worker: takes due events from the inbox and runs them, several at a time, on one event loop.

Async handlers run on that loop, sync handlers in threads. The inbox is the truth; `wake` only saves waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from envoyou_core.errors import describe
from envoyou_core.handoff.threads import DaemonThreads
from envoyou_core.inbox.records import Claim, Progress
from envoyou_core.observability.notices import WorkerFailed, WorkerStarted, WorkerStopped
from envoyou_core.processing.engine import Engine
from envoyou_core.processing.leases import LeaseKeeper
from envoyou_core.steps import Call, CallHandler, arun

__all__ = ["SWEEP_INTERVAL", "Worker"]

SWEEP_INTERVAL = 1.0
"""Seconds after which a worker looks into the inbox again without having been woken: for what another process
stored, requeued or left behind."""

FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0


class Worker:
    """Works on the event loop in which `run` is awaited, until `stop`.

    Args:
        engine: what an attempt consists of.
        name: of the `Webhooks` it works for.
        kind: where it runs, for the log.
        concurrency: how many events it works on at once.
    """

    def __init__(self, engine: Engine, *, name: str, kind: str, concurrency: int) -> None:
        self._engine = engine
        self._name = name
        self._kind = kind
        self._concurrency = concurrency
        self._handler_threads = DaemonThreads(concurrency, f"envoyou-handler-{name}", at_end=engine.end_thread)
        # Handlers that block must not keep others from being settled.
        self._inbox_threads = DaemonThreads(1, f"envoyou-inbox-{name}", at_end=engine.end_thread)
        self._leases = LeaseKeeper(engine, name)
        self._attempts: dict[asyncio.Task[None], Claim] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = False
        self._deadline = 0.0
        self._finished = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether it works, or is about to begin."""
        return not self._finished.is_set() and not (self._loop is not None and self._loop.is_closed())

    def wake(self) -> None:
        """Let it look into the inbox now. Safe to call from any thread, at any time."""
        loop = self._loop
        if loop is None or self._woken.is_set():
            # It looks into the inbox when it begins, and after it has found itself woken.
            return
        try:
            loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            # The loop was closed in between; whoever starts the next worker finds the event in the inbox.
            return

    def stop(self, timeout: float) -> None:
        """Take nothing more, finish within `timeout` seconds what was begun, give the rest back."""
        self._deadline = time.monotonic() + timeout
        self._stopping = True
        self.wake()

    def join(self, timeout: float) -> bool:
        """Wait in another thread until it has stopped; false when `timeout` seconds were not enough."""
        return self._finished.wait(timeout)

    async def run(self) -> None:
        """Work until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        self._leases.start()
        self._engine.notices.emit(WorkerStarted(self._name, self._kind))
        try:
            await self._dispatch()
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=max(0.0, self._deadline - time.monotonic()))
        finally:
            unfinished = len(self._attempts)
            for task in self._attempts:
                # Where the loop itself is ending, they are giving back what they hold already.
                if not task.cancelling():
                    task.cancel()
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=1.0)
            self._leases.stop()
            self._handler_threads.close()
            self._inbox_threads.close()
            self._finished.set()
            self._engine.notices.emit(WorkerStopped(self._name, unfinished))

    async def _dispatch(self) -> None:
        retry = FIRST_RETRY
        while not self._stopping:
            self._woken.clear()
            try:
                pause = await self._take_what_is_due()
                retry = FIRST_RETRY
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry))
                pause, retry = retry, min(2 * retry, LONGEST_RETRY)
            await self._pause(pause)

    async def _take_what_is_due(self) -> float:
        """Begin as many attempts as there are free slots, and say how long to wait before looking again."""
        free = self._concurrency - len(self._attempts)
        if free == 0:
            return SWEEP_INTERVAL
        until_due: float | None = await self._inbox_threads.call(self._engine.seconds_until_due)
        if until_due is None:
            return SWEEP_INTERVAL
        if until_due > 0:
            return min(until_due, SWEEP_INTERVAL)
        claiming = self._inbox_threads.submit(partial(self._engine.claim, free))
        try:
            claims: list[Claim] = await asyncio.wrap_future(claiming)
        except asyncio.CancelledError:
            # The thread may be claiming all the same, and nobody would work on what it takes.
            claiming.add_done_callback(self._give_back_claims)
            raise
        await self._begin(claims)
        # Where others took what was due, the next look shows what is left.
        return 0.0 if claims else FIRST_RETRY

    async def _begin(self, claims: list[Claim]) -> None:
        suspect = any(map(self._engine.is_suspect, self._attempts.values()))
        together: list[Claim] = []
        apart: list[Claim] = []
        for claim in claims:
            (apart if suspect and self._engine.is_suspect(claim) else together).append(claim)
            suspect = suspect or self._engine.is_suspect(claim)
        try:
            # First: what is begun may end the process, and that is no crash of those that only waited.
            for claim in apart:
                await self._inbox_threads.call(
                    partial(self._engine.give_back, claim, claim.progress, retry_in=SWEEP_INTERVAL)
                )
        finally:
            for claim in together:
                self._leases.hold(claim)
                task = asyncio.create_task(self._attempt(claim), name=f"envoyou {claim.event.id}")
                self._attempts[task] = claim
                task.add_done_callback(self._attempt_ended)

    def _give_back_claims(self, claiming: Future[list[Claim]]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            for claim in claiming.result():
                self._engine.give_back(claim, claim.progress)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping:
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._leases.let_go(self._attempts.pop(task))
        self._woken.set()

    async def _attempt(self, claim: Claim) -> None:
        in_threads: list[Future[Any]] = []
        progress: dict[str, Progress] = dict(claim.progress)

        async def call_in(threads: DaemonThreads, step: Call) -> Any:
            in_threads.append(threads.submit(step.function))
            return await asyncio.wrap_future(in_threads[-1])

        async def offload(step: Call) -> Any:
            if isinstance(step, CallHandler):
                return await call_in(self._handler_threads, step)
            return await self._try_for_a_lease(lambda: call_in(self._inbox_threads, step))

        try:
            await arun(self._engine.attempt(claim, progress), offload=offload)
        except asyncio.CancelledError:
            # A thread cannot be cut off: its handler goes on while this process lives, so its lease must run out by
            # itself, rather than let someone else begin beside it.
            if all(future.done() for future in in_threads):
                await self._inbox_threads.call(partial(self._engine.give_back, claim, progress))
            raise
        except Exception as error:
            # It could not be settled: the lease runs out, and the event is taken up again.
            self._engine.notices.emit(WorkerFailed(self._name, describe(error), self._engine.lease))

    async def _try_for_a_lease(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call the inbox, again and again for as long as a lease lasts.

        A database that is away for a moment must not make handlers that have succeeded run again, nor count as a crash.
        """
        retry = FIRST_RETRY
        deadline = time.monotonic() + self._engine.lease
        while True:
            try:
                return await call()
            except Exception as error:
                if self._stopping or time.monotonic() + retry > deadline:
                    raise
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry))
                await asyncio.sleep(retry)
                retry = min(2 * retry, LONGEST_RETRY)
