"""The project's `Webhooks`, made from the settings when it is first used, and anew when a test changes them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections, router

from envoyou_core import ConfigurationError, Handlers, WebhookRequest, WebhookResponse, Webhooks
from envoyou_core.adapter import Handler, time_limited
from envoyou_core.observability import Listener
from envoyou_django import conf
from envoyou_django.signals import SignalSender
from envoyou_django.waker import TaskQueueWaker

if TYPE_CHECKING:
    from envoyou_django.inbox.inbox import OrmInbox

__all__ = ["DjangoWebhooks", "ProjectWebhooks", "project_webhooks"]

Function = TypeVar("Function", bound=Callable[..., Any])


class DjangoWebhooks(Webhooks):
    """`Webhooks` as Django wants them: connections are looked after, and no test gets a thread it did not ask for.

    Args:
        hint: tells the project's task queue that there is work, where that does it.
        settings: the keywords of `Webhooks`.
    """

    # Django has no end of life in which a worker on its loop could end, and its connections belong to threads.
    works_on_loops = False
    inbox: OrmInbox

    def __init__(self, *, inbox: OrmInbox, hint: Callable[[], object] | None = None, **settings: Any) -> None:
        super().__init__(inbox=inbox, **settings)
        self._hints = None
        if hint is not None:
            self._hints = TaskQueueWaker(
                _looked_after(hint),
                report_error=self.report_wake_error,
                seconds_overdue=self._overdue,
                on_thread_exit=connections.close_all,
            )
        self.surround(without_old_connections)
        self.on_thread_exit(connections.close_all)
        self._signals = SignalSender(self.name, around=without_old_connections, on_thread_exit=connections.close_all)
        self.subscribe(self._signals)
        self.on_worker_stop(self._send_last_signals)

    def ensure_worker(self) -> None:
        """See `Webhooks.ensure_worker`. From then on, each event sees to it that the work is done, too."""
        if self._works_in != os.getpid():
            self._begin_to_work()
            self.wake()

    def start(self) -> None:
        """See `Webhooks.start`."""
        self._begin_to_work()
        super().start()

    def _begin_to_work(self) -> None:
        self._works_in = os.getpid()
        self.inbox.shares_commits = True
        if self._hints is not None:
            self._hints.start_sweeping()
        # Before the worker does so: at the end of the process it is then called after the worker has stopped.
        atexit.unregister(self._send_last_signals)
        atexit.register(self._send_last_signals)

    def stop(self, timeout: float | None = None) -> None:
        """See `Webhooks.stop`."""
        if self._hints is not None:
            self._hints.stop()
        super().stop(timeout)
        self._signals.close(self._shutdown_timeout if timeout is None else timeout)
        atexit.unregister(self._send_last_signals)

    def _send_last_signals(self) -> None:
        self._signals.close(self._shutdown_timeout)

    def wake(self) -> None:
        """See `Webhooks.wake`. Nothing happens in a process that was not told to work.

        An accepted event is always committed by then, for an inbox that is asked to store one inside an open
        transaction refuses. Only a `TestCase` is allowed to, whose process does not work. What was requeued in a
        transaction is committed before anyone is told of it.
        """
        if self._works_in != os.getpid():
            return
        connection = connections[router.db_for_write(apps.get_model("envoyou_django", "ProcessedEvent"))]
        if connection.in_atomic_block:
            connection.on_commit(self._wake, robust=True)
        else:
            self._wake()

    def drain(self, *, until_idle: bool = False, within: float | None = None) -> int:
        """See `Webhooks.drain`."""
        with self._signals.sending_here():
            return super().drain(until_idle=until_idle, within=within)

    def receive(self, request: WebhookRequest, *, in_context: bool = False) -> WebhookResponse:
        """See `Webhooks.receive`."""
        with self._signals.sending_here(), without_old_connections() if in_context else nullcontext():
            return super().receive(request)

    async def areceive(self, request: WebhookRequest) -> WebhookResponse:
        """See `Webhooks.areceive`.

        Where the event is not stored together with others, it is stored in the thread in which Django keeps its
        connections.
        """
        # On the loop nothing shows whether a test has a transaction open in that thread.
        if self.inbox.adds_together() and (not _tests_may_run() or await sync_to_async(self.inbox.adds_together)()):
            return await super().areceive(request)
        response: WebhookResponse = await sync_to_async(self.receive)(request, in_context=True)
        return response

    def _run_async(self, function: Callable[[], Awaitable[Any]]) -> Any:
        async def call() -> Any:
            return await function()

        # In a thread of `sync_to_async`, it runs on the event loop that the project is served on.
        return async_to_sync(call)()

    async def adrain(self, *, until_idle: bool = False, within: float | None = None) -> int:
        """See `Webhooks.adrain`: in the thread in which Django keeps its connections."""
        settled: int = await sync_to_async(self.drain)(until_idle=until_idle, within=within)
        return settled

    def _wake(self) -> None:
        super().wake()
        if self._hints is not None:
            self._hints.send()

    def _overdue(self) -> float:
        with without_old_connections():
            until_due = self.inbox.seconds_until_due()
        return 0.0 if until_due is None else -until_due


class ProjectWebhooks:
    """Stands for the project's `Webhooks`. Handlers and hooks can be registered before the settings are known.

    Those that are there outlive a change of the settings; those that a test registers while it overrides the
    settings end with the override.
    """

    def __init__(self) -> None:
        self._making = threading.RLock()
        self._made: DjangoWebhooks | None = None
        self._handlers = Handlers()
        self._hooks: list[tuple[str, Any]] = []
        self._outside: list[tuple[Handlers, list[tuple[str, Any]]]] = []

    def __getattr__(self, name: str) -> Any:
        # Who looks at a module's names, as Django and pytest do, asks for private ones; that must not make it.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.setup(), name)

    def on(
        self,
        *types: str,
        name: str | None = None,
        ordered: bool = False,
        stale: Literal["skip"] | None = None,
        time_limit: float | None = None,
        concurrency: int | None = None,
        atomic: bool | None = None,
    ) -> Callable[[Function], Function]:
        """See `Webhooks.on`. A sync handler is atomic unless it says `atomic=False`; an async one cannot be."""
        collected = Handlers()
        collect = collected.on(
            *types,
            name=name,
            ordered=ordered,
            stale=stale,
            time_limit=time_limit,
            concurrency=concurrency,
            atomic=atomic,
        )

        def register(function: Function) -> Function:
            collect(function)
            self.include(collected)
            return function

        return register

    def include(self, handlers: Handlers) -> None:
        """See `Webhooks.include`."""
        with self._making:
            for handler in handlers:
                if handler.wants_connection:
                    named = " and ".join(repr(name) for name in sorted(handler.wants & {"connection", "session"}))
                    raise ConfigurationError(
                        f"handler {handler.name!r} names {named}, and Django's inbox has none to give: use models"
                    )
                if handler.is_async and handler.atomic:
                    raise ConfigurationError(
                        f"handler {handler.name!r} is async and cannot be atomic: make it a plain function"
                    )
                self._handlers.add(handler)
                if self._made is not None:
                    self._made.include(_for_django([handler]))

    def on_worker_start(self, hook: Function) -> Function:
        """See `Webhooks.on_worker_start`."""
        self._collect("on_worker_start", hook)
        return hook

    def on_worker_stop(self, hook: Function) -> Function:
        """See `Webhooks.on_worker_stop`."""
        self._collect("on_worker_stop", hook)
        return hook

    def on_dead(self, hook: Function) -> Function:
        """See `Webhooks.on_dead`."""
        self._collect("on_dead", hook)
        return hook

    def subscribe(self, listener: Listener) -> None:
        """See `Webhooks.subscribe`."""
        self._collect("subscribe", listener)

    def _collect(self, turn: str, hook: Any) -> None:
        with self._making:
            self._hooks.append((turn, hook))
            if self._made is not None:
                getattr(self._made, turn)(hook)

    @property
    def registered(self) -> Sequence[Handler]:
        """The handlers there are, in their order."""
        return tuple(self._handlers)

    def setup(self) -> DjangoWebhooks:
        """What it stands for, made now at the latest.

        Raises:
            ConfigurationError: a setting cannot work as given, or there is no secret.
        """
        with self._making:
            if self._made is None:
                # Models can be imported only once the apps are loaded.
                from envoyou_django.inbox.inbox import OrmInbox

                keywords = conf.webhooks_keywords()
                inbox = OrmInbox(name=keywords.get("name", "default"), clock=conf.clock())
                made = DjangoWebhooks(**keywords, inbox=inbox, hint=_hint_of_the_project())
                made.include(_for_django(self._handlers))
                for turn, hook in self._hooks:
                    getattr(made, turn)(hook)
                self._made = made
            return self._made

    def forget(self, *, override_begins: bool) -> None:
        """Make it anew when it is next used: a test begins, or ends, to override the settings."""
        with self._making:
            made, self._made = self._made, None
            if override_begins:
                self._outside.append((self._handlers, self._hooks))
                self._handlers, self._hooks = _copied(self._handlers), list(self._hooks)
            elif self._outside:
                self._handlers, self._hooks = self._outside.pop()
        if made is not None:
            made.stop()
            made.inbox.close()


def _tests_may_run() -> bool:
    return "django.test.testcases" in sys.modules


@contextmanager
def without_old_connections() -> Iterator[None]:
    """Around work outside a request: what Django does at both ends of one."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def close_old_connections() -> None:
    """Close this thread's connections that are broken or past their age, but for one within a transaction.

    In a test's transaction, `django.db.close_old_connections` would close that connection and the transaction with it.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _hint_of_the_project() -> Callable[[], object] | None:
    if conf.task_queue() is None:
        return None
    # A task is made from the settings when its module is imported.
    from envoyou_django.tasks import enqueue

    return enqueue


def _looked_after(function: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        with without_old_connections():
            function()

    return call


def _copied(handlers: Handlers) -> Handlers:
    copy = Handlers()
    for handler in handlers:
        copy.add(handler)
    return copy


def _for_django(handlers: Iterable[Handler]) -> Handlers:
    """Sync handlers as atomic ones, unless they say that they are not; async ones as sync ones, each on its own loop.

    The ORM's async methods then run in the handler's thread and on its connection, which is looked after, rather than
    in a thread that all of them share and nobody looks after.
    """
    adapted = Handlers()
    for handler in handlers:
        adapted.add(_on_a_loop_of_its_own(handler) if handler.is_async else _atomic(handler))
    return adapted


def _on_a_loop_of_its_own(handler: Handler) -> Handler:
    # Its time limit goes with it: there it can be cancelled, as a sync handler cannot.
    function = async_to_sync(time_limited(handler.function, handler.time_limit))
    return replace(handler, function=function, is_async=False, time_limit=None)


def _atomic(handler: Handler) -> Handler:
    return replace(handler, atomic=handler.atomic is not False)


def _on_setting_changed(*, setting: str, enter: bool, **_: Any) -> None:
    if setting == conf.SETTING:
        project_webhooks.forget(override_begins=enter)


project_webhooks = ProjectWebhooks()

setting_changed.connect(_on_setting_changed, dispatch_uid="envoyou_django.project")
