"""`Webhooks` for Django: connections outside requests, signals, task queues, and when a process may start a worker."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.db import connections, router
from msgspec.structs import replace

from envoyou_core import ConfigurationError, Event, WebhookRequest, WebhookResponse, Webhooks
from envoyou_core.adapter import Handler, ThreadBoundFunction, time_limited, with_session_of_inbox
from envoyou_django.connections import fresh_connections
from envoyou_django.signals import SignalSender

if TYPE_CHECKING:
    from envoyou_django.inbox.inbox import OrmInbox

__all__ = ["DjangoWebhooks", "check_handler"]


class DjangoWebhooks(Webhooks):
    """`Webhooks` that closes old connections, sends signals, and starts no worker in a process that serves no requests.

    Args:
        hint: enqueues the task that handles events, if a task queue does.
        settings: the keyword arguments of `Webhooks`.
    """

    # Django has no lifespan in which a worker on its event loop could end, and its connections belong to threads.
    works_on_loops = False
    inbox: OrmInbox

    def __init__(self, *, inbox: OrmInbox, hint: Callable[[], object] | None = None, **settings: Any) -> None:
        super().__init__(inbox=inbox, **settings)
        self._task_queue = None
        if hint is not None:
            self._task_queue = self._make_announcer(lambda _: hint())
        self.add_context(fresh_connections)
        self.on_thread_exit(connections.close_all)
        self._signals = SignalSender(self.name, around=fresh_connections, on_thread_exit=connections.close_all)
        self.subscribe(self._signals)
        self.on_worker_stop(self._send_last_signals)

    def add_handler(self, handler: Handler) -> None:
        """Add a handler: a sync one is atomic unless it opts out, an async one runs on an event loop of its own.

        Raises:
            ConfigurationError: its name is taken, or Django does not support it.
        """
        check_handler(handler)
        handler = with_session_of_inbox(handler, self.inbox)
        super().add_handler(_as_sync(handler) if handler.is_async else _as_atomic(handler))

    def ensure_worker(self) -> None:
        """See `Webhooks.ensure_worker`. From then on, accepted events wake the worker or the task queue."""
        if self._worker_pid != os.getpid():
            self._enable_worker()
            self._report_missing_spool()
            self.wake()

    def delay_termination(self) -> None:
        """Under ASGI, let the worker finish before the server learns of SIGTERM. To be called in a request's thread."""
        if not self._open_lifespans and not self._termination.installed:
            # Signals belong to the main thread, where the server runs its event loop.
            self._run_async(self._install_termination)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """See `Webhooks.lifespan`. A worker that cannot start is reported only, as it is at a request."""
        self._open_lifespans += 1
        try:
            self._enable_worker()
            self._report_missing_spool()
            self.wake()
            yield
        finally:
            self._open_lifespans -= 1
            if not self._open_lifespans:
                await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """See `Webhooks.start`."""
        self._enable_worker()
        super().start()

    def run_worker(self, *, shutdown_timeout: float | None = None) -> None:
        """See `Webhooks.run_worker`. Connections that checks have opened in this thread are closed."""
        connections.close_all()
        super().run_worker(shutdown_timeout=shutdown_timeout)

    def stop(self, timeout: float | None = None) -> None:
        """See `Webhooks.stop`."""
        if self._task_queue is not None:
            self._task_queue.close()
        super().stop(timeout)
        self._signals.close(self._settings.shutdown_timeout if timeout is None else timeout)
        atexit.unregister(self._send_last_signals)

    def wake(self) -> None:
        """See `Webhooks.wake`. Does nothing in a process whose worker was not enabled, such as a test or a command.

        Inside a transaction, such as that of a requeue, the worker is woken after the commit. An accepted event is
        always committed by then: the inbox refuses to store one inside an open transaction, except in a `TestCase`,
        where no worker is enabled.
        """
        if self._worker_pid != os.getpid():
            return
        connection = connections[router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))]
        if connection.in_atomic_block:
            connection.on_commit(self._wake, robust=True)
        else:
            self._wake()

    def drain(self, *, until_idle: bool = False, within: float | None = None, raise_errors: bool = False) -> int:
        """See `Webhooks.drain`."""
        with self._signals.sending_here():
            return super().drain(until_idle=until_idle, within=within, raise_errors=raise_errors)

    async def adrain(self, *, until_idle: bool = False, within: float | None = None, raise_errors: bool = False) -> int:
        """See `Webhooks.adrain`. Runs in the thread in which Django keeps its connections."""
        drain = sync_to_async(self.drain)
        settled: int = await drain(until_idle=until_idle, within=within, raise_errors=raise_errors)
        return settled

    def receive(self, request: WebhookRequest, *, in_context: bool = False) -> WebhookResponse:
        """See `Webhooks.receive`."""
        with self._signals.sending_here(), fresh_connections() if in_context else nullcontext():
            return super().receive(request)

    def retry_rejected(self, key: int, *, use_signed_headers: bool = False) -> Event | None:
        """See `Webhooks.retry_rejected`."""
        with self._signals.sending_here():
            return super().retry_rejected(key, use_signed_headers=use_signed_headers)

    async def areceive(self, request: WebhookRequest) -> WebhookResponse:
        """See `Webhooks.areceive`.

        An event that does not share its commit with others is stored in the thread in which Django keeps its
        connections.
        """
        # The event loop's thread cannot see whether a test has a transaction open in that thread.
        if self.inbox.adds_together() and (not _tests_may_run() or await sync_to_async(self.inbox.adds_together)()):
            return await super().areceive(request)
        response: WebhookResponse = await sync_to_async(self.receive)(request, in_context=True)
        return response

    def _run_async(self, function: Callable[[], Awaitable[Any]]) -> Any:
        # In a thread of `sync_to_async`, this runs on the event loop of the request.
        return _run_in_thread(function)

    async def _install_termination(self) -> None:
        self._termination.install()

    def _enable_worker(self) -> None:
        self._worker_pid = os.getpid()
        self.inbox.shares_commits = True
        if self._task_queue is not None:
            self._task_queue.watch()
        # Registered before the worker registers its own function, so that this one is called after the worker's end.
        atexit.unregister(self._send_last_signals)
        atexit.register(self._send_last_signals)

    def _wake(self) -> None:
        super().wake()
        if self._task_queue is not None:
            self._task_queue.announce()
            self._task_queue.watch()

    def _may_tick(self) -> bool:
        # Nor must it find counts that such a thread has stored.
        return self._worker_pid == os.getpid() or self._own_worker is not None

    def _announce_due_events(self) -> None:
        # A test whose process accepts events must not find connections of another thread at its end.
        if self._worker_pid == os.getpid():
            super()._announce_due_events()

    def _send_last_signals(self) -> None:
        self._signals.close(self._settings.shutdown_timeout)


def check_handler(handler: Handler) -> None:
    """Check that Django supports a handler.

    Raises:
        ConfigurationError: it has a `connection` parameter, or it is async and atomic.
    """
    if "connection" in handler.wants:
        raise ConfigurationError(
            f"handler {handler.name!r} has a parameter 'connection', which Django's inbox does not provide; use models"
        )
    if handler.is_async and handler.atomic:
        raise ConfigurationError(f"handler {handler.name!r} is async and cannot be atomic; make it a sync function")


def _as_atomic(handler: Handler) -> Handler:
    return replace(handler, atomic=handler.atomic is not False)


def _as_sync(handler: Handler) -> Handler:
    # The ORM's async methods then run in the handler's thread and on its connection, which `fresh_connections` covers,
    # instead of in asgiref's shared thread, whose connections nothing closes. On its own event loop, the handler can be
    # cancelled at its time limit, as a sync handler cannot.
    function = ThreadBoundFunction(time_limited(handler.function, handler.time_limit), _run_in_thread)
    return replace(handler, function=function, is_async=False, time_limit=None)


def _run_in_thread(function: Callable[[], Awaitable[Any]]) -> Any:
    async def call() -> Any:
        return await function()

    return async_to_sync(call)()


def _tests_may_run() -> bool:
    return "django.test.testcases" in sys.modules
