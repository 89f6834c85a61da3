"""The worker of a `Webhooks` object in this process: how it starts, learns of new events, and stops."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from envoyou_core import observability
from envoyou_core.errors import ConfigurationError, describe
from envoyou_core.forks import ForkSafeLock
from envoyou_core.inbox import WorkerInbox
from envoyou_core.monitoring import Monitoring
from envoyou_core.retention import RetentionReport
from envoyou_core.settings import WorkerSettings

if TYPE_CHECKING:
    from envoyou_core.spool.relay import SpoolRelay
    from envoyou_core.spool.spool import Spool
    from envoyou_core.worker.announcer import Announcer
    from envoyou_core.worker.engine import Engine
    from envoyou_core.worker.in_process import InProcessHandoff
    from envoyou_core.worker.invocation import HandlerContext
    from envoyou_core.worker.termination import TerminationSignal
    from envoyou_core.worker.worker import Worker

__all__ = ["Lifecycle"]


class Lifecycle(Monitoring):
    """Starts, wakes and stops what handles the events of an inbox in this process: a worker, a waker, a spool relay.

    Args:
        inbox: the inbox; its name is that of the `Webhooks` object.
        spool: where events are stored while the inbox is unavailable, if anywhere.
        settings: how events are handled.
        wants_spool: whether a missing spool is worth a warning.
    """

    works_on_loops = True
    """Whether a worker may run on the application's event loop. Adapters of sync frameworks set this to `False`."""

    def __init__(
        self, *, inbox: WorkerInbox, spool: Spool | None, settings: WorkerSettings, wants_spool: bool = True
    ) -> None:
        super().__init__(inbox, settings)
        self._contexts: list[HandlerContext] = []
        self._thread_exit_hooks: list[Callable[[], object]] = []
        self._lock = ForkSafeLock()
        self._in_process: InProcessHandoff | None = None
        self._own_worker: Worker | None = None
        self._worker_pid: int | None = None
        self._open_lifespans = 0
        self.lacks_spool = self._reports_missing_spool = wants_spool and spool is None and inbox.remote
        self._announcer = self._make_announcer(settings.handoff) if callable(settings.handoff) else None
        self._relay = None if spool is None else self._make_relay(spool)

    @property
    def spool(self) -> Spool | None:
        """The spool, for example for `webhooks.spool.stats()`; `None` if there is none."""
        return None if self._relay is None else self._relay.spool

    def add_context(self, context: HandlerContext) -> None:
        """Enter a context around every handler and hook, every inbox call of a worker, and a function as `handoff`.

        For adapters whose framework requires a context outside requests, such as Flask's application context.

        Args:
            context: a function that returns a new context manager.
        """
        self._contexts.append(context)

    def on_thread_exit(self, function: Callable[[], object]) -> None:
        """Call `function` at the end of each worker thread, and of the threads that serve a function as `handoff`.

        For adapters whose framework keeps resources per thread, such as database connections.
        """
        self._thread_exit_hooks.append(function)

    def wake(self) -> None:
        """Let this process's worker poll the inbox now; start the worker if it is not running. Never raises.

        Wake-ups only save waiting, because workers also poll by themselves. With a function as `handoff`, it is called
        within a second if an event is due. With `manual`, only the spool relay is started.
        """
        self._start_relay()
        self._announce_due_events()
        if self._works_in_process:
            try:
                self._handoff.wake()
            except Exception as error:
                self._notices.emit(observability.WorkerFailed(self.inbox.name, describe(error), retry_in=None))
            if not self._open_lifespans:
                self._termination.install()

    def ensure_worker(self) -> None:
        """Start the worker if this process has not started it yet; adapters call this on every request. See `wake`."""
        if self._worker_pid != os.getpid():
            self._worker_pid = os.getpid()
            self._report_missing_spool()
            self.wake()

    def start(self) -> None:
        """Start this process's worker in a thread if it is not running and `handoff` is `auto`. Safe after a fork.

        With a function as `handoff`, it is called when events are due.

        Raises:
            ConfigurationError: the inbox needs a migration by an operator, the spool cannot be opened, or a parameter
                of a handler is not provided.
        """
        self._open()
        self._announce_due_events()
        if self._works_in_process:
            self._handoff.start_in_thread()

    def stop(self, timeout: float | None = None) -> None:
        """Stop this process's worker, also one that `run_worker` runs in another thread.

        The worker claims no more events, finishes the attempts that it has begun, and returns the rest to the inbox.
        Events in the spool stay there.

        Args:
            timeout: seconds for the attempts to finish; `shutdown_timeout` by default.
        """
        timeout = self._settings.shutdown_timeout if timeout is None else timeout
        if self._relay is not None:
            self._relay.stop(timeout)
        if self._announcer is not None:
            self._announcer.close()
        if (worker := self._own_worker) is not None:
            worker.stop(timeout)
            worker.join(timeout + 2)
        self._handoff.stop(timeout)
        self._recorder.stop()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan of an ASGI application: starts a worker on its event loop, and stops it at the end.

        It may be entered several times; the worker stops with the last exit.

        Raises:
            ConfigurationError: the inbox needs a migration by an operator, the spool cannot be opened, or a parameter
                of a handler is not provided.
        """
        import asyncio

        await asyncio.to_thread(self._open)
        self._report_missing_spool()
        self._announce_due_events()
        if self._works_in_process:
            self._handoff.start_on_loop()
        self._open_lifespans += 1
        try:
            yield
        finally:
            self._open_lifespans -= 1
            if not self._open_lifespans:
                if self._announcer is not None:
                    self._announcer.close()
                if self._relay is not None:
                    await asyncio.to_thread(self._relay.stop, self._settings.shutdown_timeout)
                await self._handoff.astop()
                await asyncio.to_thread(self._recorder.stop)

    def check_providers(self) -> None:
        """Check that everything is provided that handlers ask for, as a worker does when it starts. For command lines.

        Raises:
            ConfigurationError: something is not.
        """
        self._engine.check_providers()

    def run_worker(self, *, shutdown_timeout: float | None = None) -> None:
        """Run a worker in this thread until SIGTERM or SIGINT, as `envoyou worker` does.

        Only the main thread of a process receives signals. In another thread, the worker runs until `stop` is called.

        An inbox or spool at a relative path must exist already: otherwise a worker in another working directory than
        the application's would create an empty one and wait there for events.

        Args:
            shutdown_timeout: seconds for the attempts to finish at the end; by default the setting of that name.

        Raises:
            ConfigurationError: no handler is registered, a parameter of one is not provided, the inbox needs a
                migration by an operator, the spool cannot be opened, or no file exists at a relative path.
            WorkerStuckError: sync handlers past their time limits hold all slots. The process should exit and be
                restarted by its supervisor.
        """
        from envoyou_core.inbox.files import refuse_creation
        from envoyou_core.worker.process import run_worker
        from envoyou_core.worker.worker import Worker

        for store in (self._inbox, self.spool):
            refuse_creation(store, at_absolute_path=False)
        self._open()
        self._engine.check_handlers()
        self._engine.check_providers()
        worker = Worker(
            self._engine,
            name=self.inbox.name,
            kind="process",
            concurrency=self._settings.concurrency,
            ends_when_stuck=True,
        )
        timeout = self._settings.shutdown_timeout if shutdown_timeout is None else shutdown_timeout
        self._own_worker = worker
        try:
            run_worker(
                worker,
                self._handlers.hooks,
                shutdown_timeout=timeout,
                in_context=self._engine.in_context,
                run_thread_exit_hooks=self._engine.run_thread_exit_hooks,
            )
        finally:
            self._own_worker = None
            if self._relay is not None:
                self._relay.stop(timeout)
            self._recorder.stop()

    def apply_retention(self, *, dry_run: bool = False) -> RetentionReport:
        """Delete what has been kept for long enough, and return the counts. For cron jobs if no worker is running.

        Dead and unfinished events are kept.

        Args:
            dry_run: only count what would be deleted.
        """
        return self._engine.preview_maintenance() if dry_run else self._engine.run_maintenance()

    def seconds_until_next_due(self) -> float | None:
        """Return the seconds until an event becomes due that is not due yet; `None` if none will. For task queues."""
        return self._engine.seconds_until_due(0.0)

    def report_wake_error(self, error: Exception) -> None:
        """Report that a wake-up could not be sent; the event waits in the inbox. For adapters."""
        self._notices.emit(observability.WakeFailed(self.inbox.name, describe(error)))

    @property
    def _works_in_process(self) -> bool:
        return self._settings.handoff == "auto"

    def _hand_over(self, event_id: str) -> None:
        """Wake whatever handles an event that has just been accepted."""
        self._report_missing_spool()
        if self._relay is not None and self._relay.inbox_is_down:
            # The event waits in the spool. But if no lifespan has started a worker, the first event must do so, in the
            # thread and on the event loop of its request: the relay's thread has the wrong event loop.
            if self._works_in_process and not self._handoff.alive:
                self.wake()
        elif self._announcer is None:
            self.wake()
        else:
            self._announcer.announce(event_id)
            self._announce_due_events()

    def _announce_due_events(self) -> None:
        if self._announcer is not None:
            self._announcer.watch()

    def _hand_over_moved(self, event_id: str) -> None:
        """Wake whatever handles an event that was moved from the spool to the inbox."""
        if self._announcer is not None:
            self._announcer.announce(event_id)
            self._announce_due_events()
        elif self._works_in_process and self._handoff.alive:
            self.wake()

    def _open(self) -> None:
        if self.spool is not None:
            self.spool.open()
        try:
            self.inbox.open()
        except ConfigurationError:
            raise
        except Exception as error:
            if self._relay is None:
                raise
            # A process that starts during an outage must be able to accept events.
            self._notices.emit(observability.WorkerFailed(self.inbox.name, describe(error), retry_in=None))
        self._start_relay()

    def _start_relay(self) -> None:
        if self._relay is not None:
            self._relay.start()

    def _report_missing_spool(self) -> None:
        # Only in a process that accepts events: a worker or a command loses nothing without a spool.
        if self._reports_missing_spool:
            self._reports_missing_spool = False
            self._notices.emit(observability.NoSpool(self.inbox.name))

    def _empty_spool(self) -> None:
        if self._relay is None:
            return
        try:
            self._relay.move_due()
        except Exception as error:
            # The events that are in the inbox must be handled nevertheless.
            self._notices.emit(observability.SpoolFailed(self.inbox.name, describe(error), retry_in=None))

    # The engine and the worker import asyncio and threading machinery that a process which only verifies does not need.

    @cached_property
    def _engine(self) -> Engine:
        from envoyou_core.worker.engine import Engine
        from envoyou_core.worker.known_handlers import KnownHandlers
        from envoyou_core.worker.late_leases import LateLeases
        from envoyou_core.worker.recovery import Recovery

        return Engine(
            inbox=self._inbox,
            handlers=self._handlers,
            retry=self._settings.retry,
            notices=self._notices,
            presence=self._presence,
            known_handlers=KnownHandlers(self._inbox, clock=self._settings.clock),
            recovery=Recovery(self._inbox, self._presence),
            late_leases=LateLeases(self._settings.lease, self._settings.clock),
            lease=self._settings.lease,
            contexts=self._contexts,
            hooks=self._handlers.hooks,
            thread_exit_hooks=self._thread_exit_hooks,
            handler_wait=self._settings.handler_wait,
            retention=self._settings.retention,
            clock=self._settings.clock,
        )

    @property
    def _handoff(self) -> InProcessHandoff:
        from envoyou_core.worker.in_process import InProcessHandoff

        with self._lock:
            if self._in_process is None:
                self._in_process = InProcessHandoff(
                    self._engine,
                    name=self.inbox.name,
                    concurrency=self._settings.concurrency,
                    shutdown_timeout=self._settings.shutdown_timeout,
                    on_loops=self.works_on_loops,
                )
            return self._in_process

    @cached_property
    def _termination(self) -> TerminationSignal:
        from envoyou_core.worker.termination import TerminationSignal

        return TerminationSignal(is_working=self._is_working, stop=self._stop_for_good)

    def _is_working(self) -> bool:
        # Without a lock: a signal handler calls this, and the main thread may be holding the lock.
        return self._in_process is not None and self._in_process.is_working

    def _stop_for_good(self) -> None:
        # An event that is accepted between the stop and the end of the process waits for another worker.
        self._handoff.retire()
        self.stop()

    def _make_announcer(self, function: Callable[[str], object]) -> Announcer:
        from envoyou_core.worker.announcer import Announcer

        engine = self._engine
        return Announcer(
            lambda event_id: engine.in_context(lambda: function(event_id)),
            seconds_until_due=engine.seconds_until_runnable,
            lease=engine.lease,
            recover=engine.recover,
            report_error=self.report_wake_error,
            on_thread_exit=engine.run_thread_exit_hooks,
        )

    def _make_relay(self, spool: Spool) -> SpoolRelay:
        from envoyou_core.spool.relay import SpoolRelay

        return SpoolRelay(
            spool,
            self._inbox,
            name=self.inbox.name,
            presence=self._presence,
            notices=self._notices,
            in_context=lambda function: self._engine.in_context(function),
            run_thread_exit_hooks=lambda: self._engine.run_thread_exit_hooks(),
            on_moved=self._hand_over_moved,
        )
