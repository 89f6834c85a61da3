"""A worker: takes due events from the inbox and runs them, several at a time, on one event loop.

Async handlers run on that loop, sync handlers in threads; an event that has only sync ones never comes back to the
loop. Attempts that end at the same time are settled by one commit. The inbox is the truth; `wake` only saves waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from envoyou_core.errors import WorkerStuckError, describe
from envoyou_core.inbox.files import location_of
from envoyou_core.inbox.group_commit import MAX_BATCH, GroupCommit
from envoyou_core.inbox.records import Claim, Settlement, Status
from envoyou_core.observability.disabled import report_disabled_loggers
from envoyou_core.observability.notices import HandlerOverdue, WorkerFailed, WorkerStarted, WorkerStopped
from envoyou_core.steps import Call, CallHandler, arun, result_of, run
from envoyou_core.worker.engine import AttemptResult, Engine
from envoyou_core.worker.failures import private_texts
from envoyou_core.worker.in_flight import InFlight
from envoyou_core.worker.leases import LeaseKeeper
from envoyou_core.worker.threads import DaemonThreads

__all__ = ["MAINTENANCE_INTERVAL", "SWEEP_INTERVAL", "Worker"]

SWEEP_INTERVAL = 1.0
"""Seconds after which a worker looks into the inbox again without having been woken: for what another process
stored, requeued or left behind. What was claimed and could not be begun in that time is given back."""

FREEZE = 10.0
"""Seconds without a turn after which a worker was frozen: by its host, or by a handler that blocks its loop."""

FIRST_MAINTENANCE = 60.0
"""Seconds after the start. Not at once: a server may still be forking, and a SQLite file that is written to at that
moment stays locked in the child."""

MAINTENANCE_INTERVAL = 3600.0
"""Seconds."""

FIRST_RETRY = 0.5
MAX_RETRY = 30.0


class Worker:
    """Works on the event loop in which `run` is awaited, until `stop`.

    Args:
        engine: what an attempt consists of.
        name: of the `Webhooks` it works for.
        kind: where it runs, for the log.
        concurrency: how many events it works on at once.
        ends_when_stuck: it stops when each of its slots is held by a sync handler that has passed its time limit.
        interrupted: called when it finds events due after it got no time to run for longer than `FREEZE`.
        clock: epoch seconds. Not a monotonic clock: that may stand still while a host freezes the process.
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
        self._interrupted = interrupted
        self._clock = clock
        self._name = name
        self._kind = kind
        self._concurrency = concurrency
        self._ends_when_stuck = ends_when_stuck
        self._handler_threads = DaemonThreads(
            concurrency, f"envoyou-handler-{name}", on_thread_exit=engine.run_thread_exit_hooks
        )
        # Handlers that block must not keep others from being settled.
        self._inbox_threads = DaemonThreads(1, f"envoyou-inbox-{name}", on_thread_exit=engine.run_thread_exit_hooks)
        self._maintenance_threads = DaemonThreads(
            1, f"envoyou-maintenance-{name}", on_thread_exit=engine.run_thread_exit_hooks
        )
        self._settler = GroupCommit[tuple[Claim, Settlement], bool](
            engine.settle_all,
            # Whatever it is, each attempt goes on to try by itself.
            is_outage=lambda _: True,
            name=f"envoyou-settler-{name}",
            on_thread_exit=engine.run_thread_exit_hooks,
        )
        self._leases = LeaseKeeper(engine, name)
        self._in_flight = InFlight(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._overdue: set[_Watched] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._is_being_woken = False
        self._expects_more = False
        self._has_unseen_event = False
        self._is_looking = False
        self._gave_back_work = False
        self._last_turn: float | None = None
        self._was_frozen = False
        self._stopping = False
        self._stuck = False
        self._deadline = 0.0
        self._finished = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether it works, or is about to begin."""
        return not self._finished.is_set() and not (self._loop is not None and self._loop.is_closed())

    @property
    def left_work(self) -> bool:
        """Whether it has ended, or was ended, before it had looked for an announced event or finished what it held."""
        return self._has_unseen_event or self._is_looking or self._gave_back_work

    def start_on_running_loop(self) -> asyncio.Task[None]:
        """Begin to work on the running event loop; the caller must keep the task."""
        # Known before the task takes its first step: a loop that ends at once cancels it without that.
        self._loop = asyncio.get_running_loop()
        # The fresh context: the request that happens to start a worker must not leave its own in every handler.
        task = asyncio.create_task(self.run(), name=f"envoyou worker {self._name}", context=Context())
        task.add_done_callback(lambda _: self._finished.set())
        return task

    def announce_event(self) -> None:
        """Let it look into the inbox because an event may be due. Safe to call from any thread, at any time."""
        self._has_unseen_event = True
        self.wake()

    def wake(self) -> None:
        """Let it look into the inbox now. Safe to call from any thread, at any time."""
        # It looks into the inbox when it begins, and after it has found itself woken. Where its loop is closed, whoever
        # starts the next worker finds the event in the inbox.
        if not self._is_being_woken:
            self._is_being_woken = True
            self._call_soon(self._woken.set)

    def _begin_to_look(self) -> None:
        # In this order: who wakes it from here on does so in time.
        self._is_being_woken = False
        self._woken.clear()

    def stop(self, timeout: float) -> None:
        """Take nothing more, finish within `timeout` seconds what was begun, give the rest back."""
        self._deadline = time.monotonic() + timeout
        self._stopping = True
        self._in_flight.close()
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
        maintenance = asyncio.create_task(self._run_maintenance(), name=f"envoyou maintenance {self._name}")
        try:
            self._leases.start()
            # Python 3.12 starts no thread while the process ends, which may be when the first event is worked on.
            self._handler_threads.start()
            self._settler.start()
            report_disabled_loggers()
            self._engine.notices.emit(WorkerStarted(self._name, self._kind, location_of(self._engine.inbox)))
            await self._dispatch()
            not_begun = self._in_flight.withdraw()
            self._gave_back_work = bool(not_begun)
            await self._return_to_inbox(not_begun)
            await self._finish()
        finally:
            self._stopping = True
            self._in_flight.close()
            maintenance.cancel()
            unfinished = self._in_flight.begun
            self._gave_back_work = self._gave_back_work or unfinished > 0
            for task in self._tasks:
                # Where the loop itself is ending, they are giving back what they hold already.
                if not task.cancelling():
                    task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=1.0)
            await self._return_to_inbox(self._in_flight.withdraw())
            self._leases.stop()
            self._settler.close()
            self._handler_threads.close()
            self._inbox_threads.close()
            self._maintenance_threads.close()
            self._finished.set()
            self._engine.notices.emit(WorkerStopped(self._name, unfinished))
        if self._stuck:
            raise WorkerStuckError(self._concurrency)

    async def _finish(self) -> None:
        """Wait, until the deadline, for all that was begun."""
        while self._in_flight.begun and (left := self._deadline - time.monotonic()) > 0:
            self._begin_to_look()
            if self._in_flight.begun:
                await self._pause(left)

    @property
    def _is_late(self) -> bool:
        """Whether it should have stopped by now."""
        return self._stopping and time.monotonic() >= self._deadline

    async def _run_maintenance(self) -> None:
        await asyncio.sleep(FIRST_MAINTENANCE)
        while True:
            try:
                await self._maintenance_threads.call(self._engine.run_maintenance)
            except Exception as error:
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), MAINTENANCE_INTERVAL))
            await asyncio.sleep(MAINTENANCE_INTERVAL)

    # Taking

    async def _dispatch(self) -> None:
        retry = FIRST_RETRY
        while not self._stopping:
            self._take_turn()
            self._begin_to_look()
            self._has_unseen_event, self._is_looking = False, True
            try:
                pause = await self._take_what_is_due()
                self._is_looking = False
                retry = FIRST_RETRY
            except Exception as error:
                self._is_looking = False
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry))
                pause, retry = retry, min(2 * retry, MAX_RETRY)
            if not self._stopping:
                await self._pause(pause)

    def _take_turn(self) -> None:
        """Notice a loop or thread that did not run meanwhile: it would have taken a turn each second."""
        now = self._clock()
        if self._last_turn is not None and now - self._last_turn > FREEZE:
            self._was_frozen = True
        self._last_turn = now

    async def _take_what_is_due(self) -> float:
        """Claim as much as there is room for, begin it, and say how long to wait before looking again."""
        await self._return_to_inbox(self._in_flight.take_stale(SWEEP_INTERVAL))
        capacity = self._in_flight.capacity(max_settling=MAX_BATCH)
        if capacity <= 0:
            return SWEEP_INTERVAL
        looking = self._inbox_threads.submit(partial(self._look, capacity, self._in_flight.claims))
        found = asyncio.wrap_future(looking)
        is_taken = False
        try:
            # A database that does not answer must not keep the process from ending.
            while not found.done() and not self._is_late:
                await asyncio.wait([found], timeout=SWEEP_INTERVAL)
                self._take_turn()
            is_taken = found.done()
        finally:
            if not is_taken:
                # The thread may still be claiming, or have claimed just when this task was cancelled, and nobody would
                # work on what it takes.
                looking.add_done_callback(self._return_to_inbox_what_was_found)
                found.cancel()
        if found.cancelled():
            return 0.0
        claims, until_due = found.result()
        if self._was_frozen:
            self._was_frozen = False
            if claims:
                self._interrupted()
        if claims:
            await self._accept(claims)
            return 0.0
        if until_due is None:
            return SWEEP_INTERVAL
        # What is due and was not claimed is held back, or others take it.
        return min(until_due, SWEEP_INTERVAL) if until_due > 0 else FIRST_RETRY

    def _look(self, capacity: int, in_flight: Sequence[Claim]) -> tuple[list[Claim], float | None]:
        # Looking first: a claim takes SQLite's only write lock, and an idle worker must not.
        until_due = 0.0 if self._expects_more else self._engine.seconds_until_due()
        if until_due is None or until_due > 0:
            return [], until_due
        claims = self._engine.claim_next(capacity, in_flight)
        self._expects_more = len(claims) == capacity
        return claims, until_due

    async def _accept(self, claims: list[Claim]) -> None:
        suspect = any(map(self._engine.is_poison_suspect, self._in_flight.claims))
        together: list[Claim] = []
        apart: list[Claim] = []
        for claim in claims:
            (apart if suspect and self._engine.is_poison_suspect(claim) else together).append(claim)
            suspect = suspect or self._engine.is_poison_suspect(claim)
        self._leases.hold(*together)
        try:
            # First: what is begun may end the process, and that is no crash of those that only waited.
            await self._return_to_inbox(apart, retry_in=SWEEP_INTERVAL)
        finally:
            self._in_flight.accept(together)
            self._begin_what_waits()

    async def _return_to_inbox(self, claims: Sequence[Claim], *, retry_in: float = 0.0) -> None:
        if claims:
            giving = asyncio.wrap_future(
                self._inbox_threads.submit(partial(self._return_to_inbox_each, claims, retry_in=retry_in))
            )
            while not giving.done():
                await asyncio.wait([giving], timeout=SWEEP_INTERVAL)
                self._take_turn()
                if self._is_late:
                    return

    def _return_to_inbox_each(self, claims: Sequence[Claim], *, retry_in: float = 0.0) -> None:
        try:
            for claim in claims:
                self._engine.return_to_inbox(claim, claim.progress, retry_in=retry_in)
        except Exception as error:
            # Their leases run out, and that gives them back, too. They must not be renewed for ever.
            self._engine.notices.emit(WorkerFailed(self._name, describe(error), self._engine.lease))
        finally:
            for claim in claims:
                self._drop(claim)

    def _return_to_inbox_what_was_found(self, looking: Future[tuple[list[Claim], float | None]]) -> None:
        if not looking.cancelled() and looking.exception() is None:
            self._return_to_inbox_each(looking.result()[0])

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until it is woken."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()

    # Working

    def _begin_what_waits(self) -> None:
        while (claim := self._in_flight.begin()) is not None:
            try:
                self._begin(claim)
            except RuntimeError as error:
                # No thread can be started.
                self._attempt_broke_off(claim, error)
                return

    def _begin(self, claim: Claim) -> None:
        if self._engine.is_sync(claim):
            self._handler_threads.submit(partial(self._attempt_in_thread, claim))
        else:
            self._spawn(self._attempt(claim))

    def _attempt_in_thread(self, claim: Claim) -> None:
        """Make an attempt in the calling thread, and then whichever waits.

        From thread to loop and back would cost more than most handlers do.
        """
        following: Claim | None = claim
        while following is not None:
            # One event's handlers must not see what another's have left in the context.
            copy_context().run(self._attempt_here, following)
            following = self._in_flight.begin()
            if following is not None and not self._engine.is_sync(following):
                self._on_loop(partial(self._attempt, following), instead=partial(self._drop, following))
                return

    def _attempt_here(self, claim: Claim) -> None:
        try:
            worked = run(self._engine.work(claim, dict(claim.progress)), call=self._call_here)
        except BaseException as error:
            self._attempt_broke_off(claim, error)
        else:
            self._settle(claim, worked)

    def _call_here(self, step: Call) -> Any:
        if isinstance(step, CallHandler):
            with self._watched(step):
                return step.function()
        try:
            return step.function()
        except Exception as error:
            if self._loop is None or self._loop.is_closed():
                raise
            # Again and again: on the loop, which knows when to give up.
            trying = self._retry_within_lease(step.function, failed=error)
            return asyncio.run_coroutine_threadsafe(trying, self._loop).result()

    async def _attempt(self, claim: Claim) -> None:
        progress = dict(claim.progress)
        going_on: list[Future[Any]] = []

        async def offload(step: Call) -> Any:
            if not isinstance(step, CallHandler):
                return await self._retry_within_lease(step.function)
            handler = self._handler_threads.submit(partial(self._call_here, step))
            try:
                return await result_of(asyncio.wrap_future(handler))
            except asyncio.CancelledError:
                if not handler.cancel():
                    going_on.append(handler)
                raise

        try:
            worked = await arun(self._engine.work(claim, progress), offload=offload)
        except asyncio.CancelledError:
            if going_on:
                # A thread cannot be cut off: its handler goes on while this process lives, and its lease with it, so
                # that nobody else begins beside it.
                going_on[0].add_done_callback(lambda _: self._drop(claim))
            else:
                await self._return_to_inbox([replace(claim, progress=progress)])
            raise
        except Exception as error:
            self._attempt_broke_off(claim, error)
        else:
            self._settle(claim, worked)
        self._begin_what_waits()

    def _attempt_broke_off(self, claim: Claim, error: BaseException) -> None:
        # The lease runs out, and the event is taken up again.
        told = describe(error, private=private_texts(claim.event))
        self._engine.notices.emit(WorkerFailed(self._name, told, self._engine.lease))
        self._drop(claim)

    # Settling, in any thread

    def _settle(self, claim: Claim, worked: AttemptResult) -> None:
        """Settle what was worked on, together with others; whoever waits only for that needs no slot."""
        self._in_flight.release(claim)
        self._go_on()
        if worked.settlement is None or worked.is_settled:
            self._conclude(claim, worked, worked.is_settled)
        else:
            settling = self._settler.submit((claim, worked.settlement))
            settling.add_done_callback(partial(self._settled, claim, worked, worked.settlement))

    def _settled(self, claim: Claim, worked: AttemptResult, settlement: Settlement, settling: Future[bool]) -> None:
        error = settling.exception()
        if error is None:
            self._conclude(claim, worked, settling.result())
        else:
            self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry_in=0.0))
            alone = partial(self._engine.settle, claim, settlement)
            self._on_loop(partial(self._settle_alone, claim, worked, alone), instead=partial(self._drop, claim))

    async def _settle_alone(self, claim: Claim, worked: AttemptResult, settle: Callable[[], bool]) -> None:
        try:
            held = await self._retry_within_lease(settle)
        except Exception as error:
            self._attempt_broke_off(claim, error)
        else:
            self._conclude(claim, worked, held)

    def _conclude(self, claim: Claim, worked: AttemptResult, held: bool) -> None:
        if worked.settlement is not None and worked.settlement.status is Status.DEAD and self._engine.hooks.dead:
            # Somebody's functions are called, which may take their time.
            conclude = partial(self._conclude_on_loop, claim, worked, held)
            self._on_loop(conclude, instead=partial(self._drop, claim))
            return
        try:
            run(self._engine.conclude(claim, worked, held))
        finally:
            self._drop(claim)

    async def _conclude_on_loop(self, claim: Claim, worked: AttemptResult, held: bool) -> None:
        async def offload(step: Call) -> Any:
            return await self._handler_threads.call(step.function)

        try:
            await arun(self._engine.conclude(claim, worked, held), offload=offload)
        finally:
            self._drop(claim)

    def _drop(self, claim: Claim) -> None:
        self._leases.drop(claim)
        self._in_flight.end(claim)
        self._go_on()

    def _go_on(self) -> None:
        if self._stopping or self._in_flight.below_low_watermark:
            self.wake()

    # Between threads and loop

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # The reference matters: a task that nobody holds may be collected while it waits.
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_loop(self, make: Callable[[], Coroutine[Any, Any, None]], *, instead: Callable[[], None]) -> None:
        """Run a coroutine on the loop, from any thread; or do something else, where there is none any more."""
        if not self._call_soon(lambda: self._spawn(make())):
            instead()

    @contextmanager
    def _watched(self, step: CallHandler) -> Iterator[None]:
        """In a handler's thread: tell of it when it has passed its time limit."""
        if step.time_limit is None:
            yield
            return
        watched = _Watched(step)
        self._call_soon(self._set_alarm, watched)
        try:
            yield
        finally:
            watched.returned = True
            self._call_soon(self._overdue.discard, watched)

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call it on the loop, from any thread; false where there is none any more."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def _set_alarm(self, watched: _Watched) -> None:
        asyncio.get_running_loop().call_later(watched.step.time_limit or 0.0, self._report_overdue, watched)

    def _report_overdue(self, watched: _Watched) -> None:
        if watched.returned:
            return
        step = watched.step
        self._overdue.add(watched)
        self._engine.notices.emit(HandlerOverdue(step.event_id, step.event_type, step.handler, step.time_limit or 0.0))
        if self._ends_when_stuck and len(self._overdue) >= self._concurrency:
            self._stuck = True
            self.stop(0.0)

    async def _retry_within_lease(self, function: Callable[[], Any], failed: Exception | None = None) -> Any:
        """Call the inbox, again and again for as long as a lease lasts.

        A database that is away for a moment must not make handlers that have succeeded run again, nor count as a crash.

        Args:
            function: what to call, in the thread of the inbox.
            failed: how it has failed already.
        """
        retry = FIRST_RETRY
        deadline = time.monotonic() + self._engine.lease
        while True:
            try:
                if failed is not None:
                    raise failed
                return await self._inbox_threads.call(function)
            except Exception as error:
                if self._stopping or time.monotonic() + retry > deadline:
                    raise
                self._engine.notices.emit(WorkerFailed(self._name, describe(error), retry))
                await asyncio.sleep(retry)
                retry = min(2 * retry, MAX_RETRY)
                failed = None


@dataclass(slots=True, eq=False)
class _Watched:
    """A handler that has a time limit, and may have returned."""

    step: CallHandler
    returned: bool = False
