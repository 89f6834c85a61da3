"""The worker inside the application's own process: on its event loop where there is one, else on a thread.

It starts on first use and never at import: a thread started before a server forks is not there in its children.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable

from envoyou_core.forks import call_in_forked_children
from envoyou_core.observability.notices import WorkerInterrupted
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.worker import Worker

__all__ = ["MAX_INTERRUPTIONS", "InProcessHandoff"]

MAX_INTERRUPTIONS = 2
"""Workers in a row that were ended or frozen while events were due, until that is reported. Every process ends once,
and a computer may be suspended."""


class InProcessHandoff:
    """Keeps one worker alive in this process, whoever asks for it first, and wakes it.

    Args:
        engine: what an attempt consists of.
        name: of the `Webhooks` it works for.
        concurrency: how many events the worker has in hand at once.
        shutdown_timeout: seconds that a process which ends gives its worker to finish what was begun.
        on_loops: whether the worker may work on an event loop that is not its own.
        clock: epoch seconds, with which a worker notices that its host has frozen it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        concurrency: int,
        shutdown_timeout: float,
        on_loops: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._name = name
        self._concurrency = concurrency
        self._shutdown_timeout = shutdown_timeout
        self._on_loops = on_loops
        self._clock = clock
        self._interruptions = 0
        self._renew_lock()
        call_in_forked_children(self._renew_lock)
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._pid = os.getpid()

    def _renew_lock(self) -> None:
        # The thread that held it does not exist in a forked child.
        self._lock = threading.Lock()

    def start_on_loop(self) -> None:
        """See to a worker; a new one works on the running event loop, unless it may not.

        Raises:
            ConfigurationError: there is no handler: a worker would set every event aside as ignored.
        """
        if self._on_loops:
            self._start("event loop", self._run_on_this_loop)
        else:
            self.start_in_thread()

    def start_in_thread(self) -> None:
        """See to a worker; a new one works on an event loop in a thread of its own.

        Raises:
            ConfigurationError: there is no handler: a worker would set every event aside as ignored.
        """
        self._start("thread", self._run_in_thread)

    @property
    def alive(self) -> bool:
        """Whether a worker of this process works, or is about to begin."""
        return self._worker is not None and self._worker.alive and self._pid == os.getpid()

    def wake(self) -> None:
        """See to a worker and let it look into the inbox now."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.start_in_thread()
        else:
            self.start_on_loop()
        if self._worker is not None:
            self._worker.announce_event()

    def stop(self, timeout: float | None = None) -> None:
        """Stop the worker from another thread than its own, and wait for it.

        Args:
            timeout: seconds to finish what was begun; by default what the process gives its worker when it ends.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        worker = self._take_worker()
        if worker is not None:
            worker.stop(timeout)
            worker.join(timeout + 2)
            self._count_ending(worker)

    async def astop(self) -> None:
        """Stop the worker from an event loop, its own or another, and wait for it."""
        timeout = self._shutdown_timeout
        worker, task = self._take_worker(), self._task
        if worker is None:
            return
        worker.stop(timeout)
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task], timeout=timeout + 2)
        else:
            await asyncio.to_thread(worker.join, timeout + 2)
        self._count_ending(worker)

    def _start(self, kind: str, run: Callable[[Worker], None]) -> None:
        with self._lock:
            if self.alive:
                return
            self._engine.check_handlers()
            # A worker that was stopped is not kept: the event loop of this one has ended.
            ended = self._worker if self._pid == os.getpid() else None
            worker = Worker(
                self._engine,
                name=self._name,
                kind=kind,
                concurrency=self._concurrency,
                interrupted=self._count_interruption,
                clock=self._clock,
            )
            run(worker)
            # Only then: one that could not be started must not be taken for one that works.
            self._worker, self._pid = worker, os.getpid()
        # Without the lock: a listener may wake the worker.
        if ended is not None:
            self._count_ending(ended)

    def _run_on_this_loop(self, worker: Worker) -> None:
        # The reference matters: a task that nobody holds may be collected while it waits.
        self._task = worker.start_on_running_loop()

    def _run_in_thread(self, worker: Worker) -> None:
        self._task = None
        threading.Thread(
            target=lambda: asyncio.run(worker.run()), name=f"envoyou-worker-{self._name}", daemon=True
        ).start()
        atexit.unregister(self.stop)
        atexit.register(self.stop)

    def _count_ending(self, worker: Worker) -> None:
        if worker.left_work:
            self._count_interruption()
        elif self._interruptions < MAX_INTERRUPTIONS:
            # Only what happens again and again is due to the host.
            self._interruptions = 0

    def _count_interruption(self) -> None:
        self._interruptions += 1
        if self._interruptions == MAX_INTERRUPTIONS:
            self._engine.notices.emit(WorkerInterrupted(self._name, self._interruptions))

    def _take_worker(self) -> Worker | None:
        with self._lock:
            worker, self._worker = self._worker, None
            return worker if self._pid == os.getpid() else None
