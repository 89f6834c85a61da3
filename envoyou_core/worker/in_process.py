"""The worker inside the application's process: on its event loop if it has one, else in a thread.

It starts on first use and never at import, because a thread started before a server forks does not exist in its
children.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable

from envoyou_core.forks import ForkSafeLock
from envoyou_core.observability.worker_notices import WorkerInterrupted
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.worker import Worker

__all__ = ["MAX_INTERRUPTIONS", "InProcessHandoff"]

MAX_INTERRUPTIONS = 2
"""Workers ended or frozen in a row while events were due, after which that is reported. A single time means nothing:
every process ends once, and a computer may be suspended."""


class InProcessHandoff:
    """Keeps one worker alive in this process and wakes it.

    Args:
        engine: runs the attempts.
        name: the name of the `Webhooks`.
        concurrency: how many attempts the worker runs at once.
        shutdown_timeout: seconds in which the worker finishes running attempts when the process ends.
        on_loops: whether the worker may run on the application's event loop.
        clock: epoch seconds, from which a worker detects that its host has frozen it.
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
        self._lock = ForkSafeLock()
        self._worker: Worker | None = None
        self._stopped_worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._pid = os.getpid()
        self._retired_pid: int | None = None

    def start_on_loop(self) -> None:
        """Start the worker if it is not running: on the running event loop if `on_loops` allows that."""
        if self._on_loops:
            self._start("event loop", self._run_on_this_loop)
        else:
            self.start_in_thread()

    def start_in_thread(self) -> None:
        """Start the worker if it is not running: on an event loop in a thread of its own."""
        self._start("thread", self._run_in_thread)

    @property
    def alive(self) -> bool:
        """Whether a worker of this process runs or is about to start."""
        return self._worker is not None and self._worker.alive and self._pid == os.getpid()

    @property
    def is_working(self) -> bool:
        """Whether a worker of this process runs, or is being stopped. Takes no lock, so signal handlers may call it."""
        stopped = self._stopped_worker
        return self.alive or (stopped is not None and stopped.alive and self._pid == os.getpid())

    def wake(self) -> None:
        """Start the worker if it is not running, and let it poll the inbox now."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.start_in_thread()
        else:
            self.start_on_loop()
        if self._worker is not None:
            self._worker.announce_event()

    def retire(self) -> None:
        """Start no worker in this process from now on, because the process is about to end."""
        self._retired_pid = os.getpid()

    def stop(self, timeout: float | None = None) -> None:
        """Stop the worker and wait for it. Not to be called in the worker's own thread.

        Args:
            timeout: seconds in which to finish running attempts; by default the `shutdown_timeout`.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        worker = self._take_worker()
        if worker is not None:
            worker.stop(timeout)
            worker.join(timeout + 2)
            self._count_ending(worker)
        elif self.is_working and self._stopped_worker is not None:
            # Another thread is stopping it. The process must not end before that.
            self._stopped_worker.join(timeout + 2)

    async def astop(self) -> None:
        """Stop the worker and wait for it, on its own event loop or another one."""
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
            if self.alive or self._retired_pid == os.getpid():
                return
            self._engine.check_providers()
            # The worker was not stopped, or it would not be kept. So its event loop has ended.
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
            # Not earlier: a worker that could not be started must not count as alive.
            self._worker, self._pid = worker, os.getpid()
        # Without the lock, because a listener may wake the worker.
        if ended is not None:
            self._count_ending(ended)

    def _run_on_this_loop(self, worker: Worker) -> None:
        # A reference is needed: a task without one may be garbage collected while it waits.
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
            # Only interruptions in a row are caused by the host.
            self._interruptions = 0

    def _count_interruption(self) -> None:
        self._interruptions += 1
        if self._interruptions == MAX_INTERRUPTIONS:
            self._engine.notices.emit(WorkerInterrupted(self._name, self._interruptions))

    def _take_worker(self) -> Worker | None:
        with self._lock:
            worker = self._worker
            if worker is None:
                return None
            # In this order: `is_working` takes no lock.
            self._stopped_worker = worker
            self._worker = None
            return worker if self._pid == os.getpid() else None
