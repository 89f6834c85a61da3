"""The worker inside the application's own process: on its event loop where there is one, else on a thread.

It starts on first use and never at import: a thread started before a server forks is not there in its children.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from contextvars import Context

from envoyou_core.forks import call_in_forked_children
from envoyou_core.worker.engine import Engine
from envoyou_core.worker.worker import Worker

__all__ = ["InProcessHandoff"]


class InProcessHandoff:
    """Keeps one worker alive in this process, whoever asks for it first, and wakes it.

    Args:
        engine: what an attempt consists of.
        name: of the `Webhooks` it works for.
        concurrency: how many events the worker has in hand at once.
        shutdown_timeout: seconds that a process which ends gives its worker to finish what was begun.
        on_loops: whether the worker may work on an event loop that is not its own.
    """

    def __init__(
        self, engine: Engine, *, name: str, concurrency: int, shutdown_timeout: float, on_loops: bool = True
    ) -> None:
        self._engine = engine
        self._name = name
        self._concurrency = concurrency
        self._shutdown_timeout = shutdown_timeout
        self._on_loops = on_loops
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
            self._worker.wake()

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

    def _start(self, kind: str, run: Callable[[Worker], None]) -> None:
        with self._lock:
            if self.alive:
                return
            self._engine.check_handlers()
            worker = Worker(self._engine, name=self._name, kind=kind, concurrency=self._concurrency)
            run(worker)
            # Only then: one that could not be started must not be taken for one that works.
            self._worker, self._pid = worker, os.getpid()

    def _run_on_this_loop(self, worker: Worker) -> None:
        # The reference matters: a task that nobody holds may be collected while it waits. The fresh context, too: the
        # request that happens to start a worker must not leave its own in every handler from then on.
        self._task = asyncio.create_task(worker.run(), name=f"envoyou worker {self._name}", context=Context())

    def _run_in_thread(self, worker: Worker) -> None:
        self._task = None
        threading.Thread(
            target=lambda: asyncio.run(worker.run()), name=f"envoyou-worker-{self._name}", daemon=True
        ).start()
        atexit.unregister(self.stop)
        atexit.register(self.stop)

    def _take_worker(self) -> Worker | None:
        with self._lock:
            worker, self._worker = self._worker, None
            return worker if self._pid == os.getpid() else None
