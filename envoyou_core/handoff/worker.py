"""A worker: takes due events from the inbox and runs them, several at a time, on one event loop.

Async handlers run on that loop, sync handlers in threads. Attempts that end at the same time are settled by one commit.
The inbox is the truth; `wake` only saves waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from envoyou_core.errors import WorkerStuckError, describe
from envoyou_core.handoff.pace import Pace
from envoyou_core.handoff.threads import DaemonThreads
from envoyou_core.inbox.group_commit import MAX_BATCH, GroupCommit
from envoyou_core.inbox.records import Claim, Progress, Settlement
from envoyou_core.observability.notices import HandlerOverdue, WorkerFailed, WorkerStarted, WorkerStopped
from envoyou_core.processing.engine import Engine
from envoyou_core.processing.leases import LeaseKeeper
from envoyou_core.steps import Await, Call, CallHandler, Step, arun

__all__ = ["HOUSEKEEPING_INTERVAL", "SWEEP_INTERVAL", "Worker"]

SWEEP_INTERVAL = 1.0
"""Seconds after which a worker looks into the inbox again without having been woken: for what another process
stored, requeued or left behind. What was claimed and could not be begun in that time is given back."""

FIRST_HOUSEKEEPING = 60.0
"""Seconds after the start. Not at once: a server may still be forking, and a SQLite file that is written to at that
moment stays locked in the child."""

HOUSEKEEPING_INTERVAL = 3600.0
"""Seconds."""

FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0


class Worker:
    """Works on the event loop in which `run` is awaited, until `stop`.

    Args:
        engine: what an attempt consists of.
        name: of the `Webhooks` it works for.
        kind: where it runs, for the log.
        concurrency: how many events it works on at once.
        ends_when_stuck: it stops when each of its slots is held by a sync handler that has passed its time limit.
    """

    def __init__(
        self, engine: Engine, *, name: str, kind: str, concurrency: int, ends_when_stuck: bool = False
    ) -> None:
        self._engine = engine
        self._name = name
        self._kind = kind
        self._concurrency = concurrency
        self._ends_when_stuck = ends_when_stuck
        self._handler_threads = DaemonThreads(concurrency, f"envoyou-handler-{name}", at_end=engine.end_thread)
        # Handlers that block must not keep others from being settled.
        self._inbox_threads = DaemonThreads(1, f"envoyou-inbox-{name}", at_end=engine.end_thread)
        self._housekeeping_threads = DaemonThreads(1, f"envoyou-housekeeping-{name}", at_end=engine.end_thread)
        self._settler = GroupCommit[tuple[Claim, Settlement], bool](
            engine.settle_all,
            # Whatever it is, each attempt goes on to try by itself.
            is_outage=lambda _: True,
            name=f"envoyou-settler-{name}",
            at_end=engine.end_thread,
        )
        self._leases = LeaseKeeper(engine, name)
        self._pace = Pace(concurrency)
        self._waiting: deque[Claim] = deque()
        self._turn_came_at = 0.0
        self._attempts: dict[asyncio.Task[None], Claim] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._overdue: set[Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = False
        self._stuck = False
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
        """Work until `stop` is called.

        Raises:
            WorkerStuckError: it has stopped because all its slots are held by handlers that do not end.
        """
        self._loop = asyncio.get_running_loop()
        self._leases.start()
        self._engine.notices.emit(WorkerStarted(self._name, self._kind))
        housekeeping = asyncio.create_task(self._keep_house(), name=f"envoyou housekeeping {self._name}")
        try:
            await self._dispatch()
            await self._give_back_waiting()
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=max(0.0, self._deadline - time.monotonic()))
        finally:
            housekeeping.cancel()
            unfinished = len(self._attempts)
            for task in self._attempts:
                # Where the loop itself is ending, they are giving back what they hold already.
                if not task.cancelling():
                    task.cancel()
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=1.0)
            await self._give_back_waiting()
            self._leases.stop()
            self._settler.close()
            self._handler_threads.close()
            self._inbox_threads.close()
            self._housekeeping_threads.close()
            self._finished.set()
            self._engine.notices.emit(WorkerStopped(self._name, unfinished))
        if self._stuck:
            raise WorkerStuckError(self._concurrency)

    async def _keep_house(self) -> None:
        await asyncio.sleep(FIRST_HOUSEKEEPING)
        while True:
            try:
                await self._housekeeping_threads.call(self._engine.keep_house)
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), HOUSEKEEPING_INTERVAL))
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)

    # Taking

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
        """Claim as much as there is room for, begin it, and say how long to wait before looking again."""
        if self._waiting and time.monotonic() - self._turn_came_at > SWEEP_INTERVAL:
            self._pace.forget()
            await self._give_back_waiting()
        room = self._room()
        if room <= 0:
            return SWEEP_INTERVAL
        in_hand = [*self._attempts.values(), *self._waiting]
        looking = self._inbox_threads.submit(partial(self._look, room, in_hand))
        try:
            claims, until_due = await asyncio.wrap_future(looking)
        except asyncio.CancelledError:
            # The thread may be claiming all the same, and nobody would work on what it takes.
            looking.add_done_callback(self._give_back_what_was_found)
            raise
        if claims:
            await self._accept(claims)
            return 0.0
        if until_due is None:
            return SWEEP_INTERVAL
        # What is due and was not claimed is held back, or others take it.
        return min(until_due, SWEEP_INTERVAL) if until_due > 0 else FIRST_RETRY

    def _room(self) -> int:
        """How many events are to be claimed now; none while enough wait already, for a claim should bring many."""
        if len(self._settling) > MAX_BATCH:
            return 0
        # Whoever was in hand when a process died may have ended it: no more than need be is put at that risk again.
        risky = any(claim.crashes for claim in (*self._attempts.values(), *self._waiting))
        ahead = 0 if risky else self._pace.ahead
        if len(self._waiting) > ahead // 2:
            return 0
        return self._free_slots + ahead - len(self._waiting)

    @property
    def _free_slots(self) -> int:
        return self._concurrency - (len(self._attempts) - len(self._settling))

    def _look(self, room: int, in_hand: Sequence[Claim]) -> tuple[list[Claim], float | None]:
        # Looking first: a claim takes SQLite's only write lock, and an idle worker must not.
        until_due = self._engine.seconds_until_due()
        if until_due is None or until_due > 0:
            return [], until_due
        return self._engine.claim_next(room, in_hand), until_due

    async def _accept(self, claims: list[Claim]) -> None:
        suspect = any(map(self._engine.is_suspect, (*self._attempts.values(), *self._waiting)))
        together: list[Claim] = []
        apart: list[Claim] = []
        for claim in claims:
            (apart if suspect and self._engine.is_suspect(claim) else together).append(claim)
            suspect = suspect or self._engine.is_suspect(claim)
        self._leases.hold(*together)
        try:
            if apart:
                # First: what is begun may end the process, and that is no crash of those that only waited.
                await self._inbox_threads.call(partial(self._give_back, apart, retry_in=SWEEP_INTERVAL))
        finally:
            if not self._waiting:
                self._turn_came_at = time.monotonic()
            self._waiting.extend(together)
            self._begin_what_waits()

    def _begin_what_waits(self) -> None:
        while self._waiting and self._free_slots > 0 and not self._stopping:
            claim = self._waiting.popleft()
            self._turn_came_at = time.monotonic()
            task = asyncio.create_task(self._attempt(claim), name=f"envoyou {claim.event.id}")
            self._attempts[task] = claim
            task.add_done_callback(self._attempt_ended)

    async def _give_back_waiting(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        if waiting:
            await self._inbox_threads.call(partial(self._give_back, waiting))
        for claim in waiting:
            self._leases.let_go(claim)

    def _give_back(self, claims: Sequence[Claim], *, retry_in: float = 0.0) -> None:
        for claim in claims:
            self._engine.give_back(claim, claim.progress, retry_in=retry_in)

    def _give_back_what_was_found(self, looking: Future[tuple[list[Claim], float | None]]) -> None:
        if not looking.cancelled() and looking.exception() is None:
            self._give_back(looking.result()[0])

    async def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._stopping:
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return

    # Working

    async def _attempt(self, claim: Claim) -> None:
        in_threads: list[Future[Any]] = []
        progress: dict[str, Progress] = dict(claim.progress)
        began = time.monotonic()

        async def wait_for(future: Future[Any]) -> Any:
            in_threads.append(future)
            return await asyncio.wrap_future(future)

        async def offload(step: Call) -> Any:
            if isinstance(step, CallHandler):
                future = self._handler_threads.submit(step.function)
                with self._watched(step, future):
                    return await wait_for(future)
            return await self._try_for_a_lease(lambda: wait_for(self._inbox_threads.submit(step.function)))

        async def settle(settlement: Settlement) -> Any:
            self._release_slot(began)
            try:
                return await wait_for(self._settler.submit((claim, settlement)))
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry_in=0.0))
            alone = partial(self._engine.settle, claim, settlement)
            return await self._try_for_a_lease(lambda: wait_for(self._inbox_threads.submit(alone)))

        def settling(_: Claim, settlement: Settlement) -> Step:
            return Await(partial(settle, settlement))

        try:
            await arun(self._engine.attempt(claim, progress, settling), offload=offload)
            # One that its last handler's transaction has settled comes here without having been settled before.
            self._release_slot(began)
        except asyncio.CancelledError:
            if all(future.done() for future in in_threads):
                await self._inbox_threads.call(partial(self._engine.give_back, claim, progress))
                self._leases.let_go(claim)
            else:
                # A thread cannot be cut off: its handler goes on while this process lives, and its lease with it, so
                # that nobody else begins beside it.
                in_threads[-1].add_done_callback(lambda _: self._leases.let_go(claim))
            raise
        except Exception as error:
            # It could not be settled: the lease runs out, and the event is taken up again.
            self._engine.notices.emit(WorkerFailed(self._name, describe(error), self._engine.lease))
        self._leases.let_go(claim)

    def _release_slot(self, began: float) -> None:
        """Whoever waits only to be settled needs no slot."""
        task = asyncio.current_task()
        if task is not None and task not in self._settling:
            self._settling.add(task)
            self._pace.note(time.monotonic() - began)
            self._go_on()

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        del self._attempts[task]
        self._settling.discard(task)
        self._go_on()

    def _go_on(self) -> None:
        self._begin_what_waits()
        if len(self._waiting) <= self._pace.ahead // 2:
            self._woken.set()

    @contextmanager
    def _watched(self, step: CallHandler, future: Future[Any]) -> Iterator[None]:
        if step.time_limit is None:
            yield
            return
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(step.time_limit, self._report_overdue, step, future)
        try:
            yield
        finally:
            alarm.cancel()
            self._overdue.discard(future)

    def _report_overdue(self, step: CallHandler, future: Future[Any]) -> None:
        if future.done():
            return
        self._overdue.add(future)
        self._engine.notices.emit(HandlerOverdue(step.event_id, step.event_type, step.handler, step.time_limit or 0.0))
        if self._ends_when_stuck and len(self._overdue) >= self._concurrency:
            self._stuck = True
            self.stop(0.0)

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
