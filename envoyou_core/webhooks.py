"""`Webhooks`: the object that users hold. It only puts the rooms of the house together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from envoyou_core.errors import ConfigurationError, WebhookError, describe
from envoyou_core.event import Event
from envoyou_core.forks import call_in_forked_children
from envoyou_core.handlers import Handler, Handlers
from envoyou_core.hooks import Hooks
from envoyou_core.http import RequestLimits, WebhookRequest, WebhookResponse
from envoyou_core.inbox import AsyncTransactionalInbox, Inbox, TransactionalInbox, open_inbox
from envoyou_core.inbox.files import refuse_creation
from envoyou_core.nonces import NonceStore, open_nonces
from envoyou_core.observability import Listener, NoSpool, Notices, SpoolFailed, WakeFailed, WorkerFailed, log_notice
from envoyou_core.observability.redacted import RedactedLogger
from envoyou_core.reception.receiver import Receiver
from envoyou_core.reception.secrets import SecretSetting, key_source
from envoyou_core.reception.signature import SIGNED_CONTENT_FORMS, SignedContent
from envoyou_core.reception.verification import DEFAULT_REQUIRED_HEADERS, DEFAULT_TOLERANCE, VerificationPolicy
from envoyou_core.retention import Retention, RetentionReport
from envoyou_core.retry import RetryPolicy
from envoyou_core.settings import SECRET_NAMES, read_environment
from envoyou_core.steps import Call, arun, run, run_in_own_loop
from envoyou_core.worker.claim_plan import subject_of
from envoyou_core.worker.waker import Waker

if TYPE_CHECKING:
    from envoyou_core.spool.relay import SpoolRelay
    from envoyou_core.spool.spool import Spool
    from envoyou_core.worker.engine import Engine
    from envoyou_core.worker.in_process import InProcessHandoff
    from envoyou_core.worker.invocation import HandlerContext
    from envoyou_core.worker.worker import Worker

__all__ = ["DEFAULT_MAX_BODY_SIZE", "Webhooks"]

log = RedactedLogger("envoyou")

DEFAULT_MAX_BODY_SIZE = 1_048_576
"""Bytes."""

DEFAULT_CONCURRENCY = 8

DEFAULT_LEASE = 60.0
"""Seconds."""

DEFAULT_SHUTDOWN_TIMEOUT = 10.0
"""Seconds."""

DEFAULT_RETENTION = Retention()

MIN_LEASE = 1.0

Function = TypeVar("Function", bound=Callable[..., Any])


class Webhooks:
    """Receives EnvoyOU webhooks: verifies, stores, acknowledges, and has the handlers do their work.

    A 200 means that the event is on disk. See the guide, "Setting Up Webhooks" and "Best Practices".

    Args:
        secret: the signing secret; a list of several while one is rotated out, newest first; or, for endpoints with
            secrets of their own, a mapping or a callable, sync or async, from the webhook id to them. See `Tenant`.
        name: keeps several `Webhooks` on one database apart.
        inbox: a URL (`sqlite:///envoyou.db`, `postgresql+psycopg://...`, `memory:` for tests), or an inbox.
        spool: where events are kept while the inbox is away, and accepted all the same: `sqlite:///spool.db`, a file on
            this machine. They are moved to the inbox when it is back, in no order that was promised.
        nonces: where nonces are remembered: `redis://...`, a store of your own, or by default the memory of each
            process.
        handoff: who does the work. `auto`: this process, on its event loop or a thread. `manual`: whoever calls
            `drain`, or another process. A function: somebody else, to whom it hints at each accepted event by its id,
            perhaps through a broker; it is called after the commit, in a thread of its own, and a hint may be lost.
        tolerance: seconds that a timestamp may lie in the past or in the future.
        signed_content: accepted forms of what was signed; `("raw",)` is the strict setting.
        required_headers: headers required besides signature and timestamp.
        max_body_size: bytes; a larger body is answered 413 before it is read.
        max_canonical_size: bytes; of a larger body only the raw form is accepted. `None`, the default, for no limit of
            its own: large bodies that are not signed raw are checked one at a time, in a thread of the process.
        retry: when a failed event is tried again; the guide's policy by default.
        retention: how long finished events are kept, 30 days with their payloads and 90 without by default; `None` for
            ever. A worker sees to it, or whoever calls `apply_retention`.
        concurrency: how many events the worker of this process has in hand at once.
        lease: seconds after which the events of a worker that died are taken up again; a live worker renews its hold
            in time, however long a handler takes.
        shutdown_timeout: seconds that a process which ends gives its worker to finish what was begun; the server's own
            patience should be longer.
        clock: epoch seconds; for tests. An inbox that is given as an object has a clock of its own.

    Raises:
        ConfigurationError: a setting cannot work as given; there is no secret, or an empty one.
    """

    works_on_loops = True
    """Whether the worker of a process works on the event loop there; for adapters whose frameworks keep to threads."""

    def __init__(
        self,
        *,
        secret: SecretSetting,
        name: str = "default",
        inbox: str | Inbox = "sqlite:///envoyou.db",
        spool: str | None = None,
        nonces: str | NonceStore | None = None,
        handoff: Literal["auto", "manual"] | Callable[[str], object] = "auto",
        tolerance: float = DEFAULT_TOLERANCE,
        signed_content: Sequence[SignedContent] = SIGNED_CONTENT_FORMS,
        required_headers: Iterable[str] = DEFAULT_REQUIRED_HEADERS,
        max_body_size: int = DEFAULT_MAX_BODY_SIZE,
        max_canonical_size: int | None = None,
        retry: RetryPolicy | None = None,
        retention: Retention | None = DEFAULT_RETENTION,
        concurrency: int = DEFAULT_CONCURRENCY,
        lease: float = DEFAULT_LEASE,
        shutdown_timeout: float = DEFAULT_SHUTDOWN_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(handoff) and handoff not in {"auto", "manual"}:
            raise ConfigurationError(f"handoff is 'auto', 'manual' or a function, not {handoff!r}")
        if max_body_size < 1 or concurrency < 1:
            raise ConfigurationError("max_body_size and concurrency are one or more")
        if not MIN_LEASE <= lease < float("inf"):
            raise ConfigurationError(f"lease is a number of seconds, {MIN_LEASE:g} or more, not {lease!r}")
        if not 0 <= shutdown_timeout < float("inf"):
            raise ConfigurationError(f"shutdown_timeout is a number of seconds, zero or more, not {shutdown_timeout!r}")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigurationError(f"retry is a RetryPolicy or left out, not {type(retry).__name__}")
        if retention is not None and not isinstance(retention, Retention):
            raise ConfigurationError(f"retention is a Retention, or None for ever, not {type(retention).__name__}")
        self.name = name
        self.inbox: Inbox = _inbox(inbox, name, clock)
        self._handoff_setting = handoff
        self._waker = self._make_waker(handoff) if callable(handoff) else None
        self._concurrency = concurrency
        self._lease = lease
        self._shutdown_timeout = shutdown_timeout
        self._retry = retry or RetryPolicy()
        self._retention = retention
        self._clock = clock
        self._handlers = _HandlersOver(self.inbox)
        self._contexts: list[HandlerContext] = []
        self._hooks = Hooks()
        self._thread_exit_hooks: list[Callable[[], object]] = []
        self._notices = Notices()
        self._notices.subscribe(log_notice)
        self._renew_lock()
        call_in_forked_children(self._renew_lock)
        self._in_process: InProcessHandoff | None = None
        self._works_in: int | None = None
        self._own_worker: Worker | None = None
        self._lifespans = 0
        self._warned = False
        self._relay = self._make_relay(_spool(spool, name, self.inbox, clock)) if spool is not None else None
        self._reception = Receiver(
            policy=VerificationPolicy(
                tolerance=tolerance,
                signed_content=signed_content,
                required_headers=required_headers,
                max_canonical_size=max_canonical_size,
            ),
            key_source=key_source(secret, clock=clock),
            inbox=self.inbox,
            nonces=_nonces(nonces),
            clock=clock,
            notices=self._notices,
            wake=self._hand_over,
            limits=RequestLimits(max_body_size),
            relay=self._relay,
        )

    def _renew_lock(self) -> None:
        # The thread that held it does not exist in a forked child.
        self._lock = threading.Lock()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **settings: Any) -> Webhooks:
        """Make one from `ENVOYOU_WEBHOOK_SECRET`, `ENVOYOU_INBOX` and the like; keywords win over the environment.

        `ENVOYOU_WEBHOOK_SECRET` may hold several secrets, newest first, separated by commas. Instead of it,
        `ENVOYOU_WEBHOOK_SECRET_FILE` may name a file with one secret a line.

        Raises:
            ConfigurationError: as the constructor does, and for a variable that looks like a misspelt setting.
        """
        others = SECRET_NAMES if "secret" in settings else frozenset()
        return cls(**{"secret": None, **read_environment(environ, others=others), **settings})

    # Handlers

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
        """Register the decorated function, sync or async, for events of these types. See the guide, "Supported Events".

        It is called with the event, and with `attempt` (counted from one) and `delivery` where it names them; with
        `connection`, or `session`, where the inbox has one to give: what it does there is in the transaction that
        records it as done.

        Args:
            types: exact (`user.created`), by prefix (`user.*`), or all (`*`).
            name: by which its success is recorded; the function's qualified name by default.
            ordered: handle the events about one object, `data.object.id` or else its `user_id`, one after the other:
                what was created earlier first, and an event that waits for its retry holds up those behind it.
            stale: `skip` leaves out an event that was created before the newest one that was applied to its object, of
                whatever type; it is ordered, too.
            time_limit: seconds. An async handler is cancelled after them, and has failed; a sync one cannot be stopped,
                and is reported.
            concurrency: how many events that it handles each worker has in hand at once.
            atomic: whether it shares the transaction that records it as done. By default one does that names
                `connection` or `session`, and where the inbox is in the database of Django or Flask-SQLAlchemy every
                sync one.

        Raises:
            ConfigurationError: no type or a malformed one, a limit that makes no sense, a parameter that nothing is
                given for, or a name that is taken.
        """
        return self._handlers.on(
            *types,
            name=name,
            ordered=ordered,
            stale=stale,
            time_limit=time_limit,
            concurrency=concurrency,
            atomic=atomic,
        )

    def include(self, handlers: Handlers) -> None:
        """Add the handlers that a registry holds by now, in its order.

        Raises:
            ConfigurationError: a name is taken, or a handler names what this inbox cannot give.
        """
        for handler in handlers:
            self._handlers.add(handler)

    # Receiver

    def receive(self, request: WebhookRequest, *, in_context: bool = False) -> WebhookResponse:
        """Answer one request, in the calling thread. There is an answer for every input; it never raises.

        See the guide, "Response Time": the answer is given once the event is stored, the work is done afterwards.

        Args:
            request: what was sent.
            in_context: whether a secret callable, or a store of nonces, needs the same around it as a handler: where
                the framework has not seen the request.
        """
        flow = self._reception.receive(request)
        if not in_context:
            return run(flow, run_async=self._run_async)
        return run(
            flow,
            call=self._call_in_context,
            run_async=lambda function: self._engine.in_context(lambda: self._run_async(function)),
        )

    async def areceive(self, request: WebhookRequest) -> WebhookResponse:
        """Answer one request without blocking the running event loop. See `receive`."""
        return await arun(self._reception.receive(request), offload=self._offload_in_context)

    def _run_async(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return run_in_own_loop(function)

    def _call_in_context(self, step: Call) -> Any:
        return self._engine.in_context(step.function)

    async def _offload_in_context(self, step: Call) -> Any:
        # No framework knows of these threads.
        import asyncio

        return await asyncio.to_thread(self._call_in_context, step)

    def verify(self, request: WebhookRequest) -> Event:
        """Only the check, with this object's settings, in the calling thread: nothing is stored.

        Whoever takes this way answers for the event from here on, its redelivery included. See the guide, "Webhook
        Signature Verification".

        Raises:
            WebhookError: the request is not accepted; `refuse` has the answer.
        """
        return run(self._reception.verify(request), run_async=self._run_async)

    async def averify(self, request: WebhookRequest) -> Event:
        """Only the check, without blocking the running event loop. See `verify`."""
        return await arun(self._reception.verify(request), offload=self._offload_in_context)

    def check_shape(self, method: str, content_type: bytes | None, size: int) -> None:
        """What can be said before a body of `size` bytes is read: for adapters.

        Raises:
            WebhookError: 405, 413 or 415, to be answered with `refuse`.
        """
        self.request_limits.check(method, content_type, size)

    def refuse(self, error: WebhookError, request: WebhookRequest | None = None) -> WebhookResponse:
        """The answer that `error` stands for, reported as any other refusal: for adapters.

        Args:
            error: why the request is refused.
            request: the refused request, for the log; its body need not have been read.
        """
        return self._reception.refuse(error, request)

    @property
    def spool(self) -> Spool | None:
        """Where events wait while the inbox is away, to be looked at: `webhooks.spool.stats()`."""
        return None if self._relay is None else self._relay.spool

    @property
    def max_body_size(self) -> int:
        """The most bytes a body may have."""
        return self.request_limits.max_body_size

    @property
    def request_limits(self) -> RequestLimits:
        """The limits that a request is checked against before its body is read: for adapters."""
        return self._reception.limits

    @property
    def required_headers(self) -> tuple[str, ...]:
        """The headers without which a request is refused, signature and timestamp among them."""
        return self._reception.policy.required_headers

    # Processing

    def drain(self, *, until_idle: bool = False, within: float | None = None) -> int:
        """Do what is due now, in the calling thread, and return how many events were settled.

        What waits in a spool is moved to the inbox first; a spool that cannot be used is reported.

        Args:
            until_idle: also wait for retries, until nothing will happen by itself any more: what is paused stays.
            within: seconds after which nothing more is begun, for a task or a cron job that has to end, however much
                comes meanwhile; what was begun is finished.

        Raises:
            ConfigurationError: it is called inside a running event loop: `await webhooks.adrain()` there.
        """
        from envoyou_core.worker.drain import drain

        self._move_what_is_spooled()
        return drain(self._engine, until_idle=until_idle, within=within)

    async def adrain(self, *, until_idle: bool = False, within: float | None = None) -> int:
        """Do what is due now, on the running event loop, and return how many events were settled. See `drain`."""
        import asyncio

        from envoyou_core.worker.drain import adrain

        await asyncio.to_thread(self._move_what_is_spooled)
        return await adrain(self._engine, until_idle=until_idle, within=within)

    def _move_what_is_spooled(self) -> None:
        if self._relay is None:
            return
        try:
            self._relay.move_due()
        except Exception as error:
            # That must not keep from its work what the inbox holds.
            self._notices.emit(SpoolFailed(self.name, describe(error), retry_in=None))

    def pause(self, *, type: str | None = None, handler: str | None = None) -> None:
        """Leave events in the inbox, in all processes, until `resume`. They are accepted as ever, and wait.

        An event waits as a whole, with all its handlers, also where only one of them is paused. What is in hand is
        finished; other processes heed it within a second or so.

        Args:
            type: of the events: exact (`user.created`), by prefix (`user.*`), or all (`*`).
            handler: the name of a handler, in place of a type.

        Raises:
            ValueError: not exactly one of them was named.
            ConfigurationError: the type is malformed.
        """
        subject = subject_of(type=type, handler=handler)
        if handler is not None and handler not in {known.name for known in self._handlers}:
            log.warning("paused the handler %r, which is unknown here: another process may have it", handler)
        self.inbox.pause(subject)
        self._engine.pauses.forget()

    def resume(self, *, type: str | None = None, handler: str | None = None) -> None:
        """Undo the `pause` that named the same.

        Raises:
            ValueError: not exactly one of them was named.
            ConfigurationError: the type is malformed.
        """
        self.inbox.resume(subject_of(type=type, handler=handler))
        self._engine.pauses.forget()

    @property
    def paused(self) -> frozenset[str]:
        """What is paused, as `type:user.*` and `handler:welcome`."""
        return self.inbox.paused()

    def apply_retention(self) -> RetentionReport:
        """Delete now what was kept for long enough, and say how much it was: for cron, where no worker runs.

        Dead events, and those that wait, are kept until somebody sees to them.
        """
        return self._engine.run_maintenance()

    def wake(self) -> None:
        """Tell this process's worker that there may be work, and start it if there is none yet.

        Unless `handoff` is `auto`, nothing happens, but that a spool is looked into. It never raises: the inbox is the
        truth, this only saves waiting.
        """
        self._see_to_spool()
        if self._handoff_setting == "auto":
            try:
                self._handoff.wake()
            except Exception as error:
                self._notices.emit(WorkerFailed(self.name, describe(error), retry_in=None))

    def ensure_worker(self) -> None:
        """See to a worker in this process, once: for adapters, at every request, whatever it asks for. See `wake`."""
        if self._works_in != os.getpid():
            self._works_in = os.getpid()
            self.wake()

    def _hand_over(self, event_id: str) -> None:
        if self._relay is not None and self._relay.inbox_is_down:
            # It waits in the spool. But where no life cycle has started a worker, the first event does, from the thread
            # and on the event loop where it arrives: not the relay, whose thread it would not be right for.
            if self._handoff_setting == "auto" and not self._handoff.alive:
                self.wake()
        elif self._waker is None:
            self.wake()
        else:
            self._waker.send(event_id)

    def _hand_over_moved(self, event_id: str) -> None:
        if self._waker is not None:
            self._waker.send(event_id)
        elif self._handoff_setting == "auto" and self._handoff.alive:
            self.wake()

    def report_wake_error(self, error: Exception) -> None:
        """Report that whoever does the work could not be told of it; the event waits in the inbox: for adapters."""
        self._notices.emit(WakeFailed(self.name, describe(error)))

    def start(self) -> None:
        """Start this process's worker in a thread, unless it runs or `handoff` is not `auto`; idempotent, fork-safe.

        Raises:
            ConfigurationError: there is no handler, the inbox lacks what an operator must create, or the spool cannot
                be opened.
        """
        self._open()
        if self._handoff_setting == "auto":
            self._handoff.start_in_thread()

    def stop(self, timeout: float | None = None) -> None:
        """Stop this process's worker, also one that `run_worker` runs in another thread.

        It takes nothing more, finishes what was begun, and gives the rest back. What is in a spool stays there.

        Args:
            timeout: seconds to finish; `shutdown_timeout` by default.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        if self._relay is not None:
            self._relay.stop(timeout)
        if self._waker is not None:
            self._waker.close()
        if (worker := self._own_worker) is not None:
            worker.stop(timeout)
            worker.join(timeout + 2)
        self._handoff.stop(timeout)

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
            # A process that starts during an outage has to accept events all the same.
            self._notices.emit(WorkerFailed(self.name, describe(error), retry_in=None))
        self._see_to_spool()

    def _see_to_spool(self) -> None:
        if self._relay is not None:
            self._relay.start()
        elif self.inbox.remote and not self._warned:
            self._warned = True
            self._notices.emit(NoSpool(self.name))

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The life of an ASGI application: a worker on its event loop at the start, drained at the end.

        It may be entered several times; the worker stops with the last one.

        Raises:
            ConfigurationError: there is no handler, the inbox lacks what an operator must create, or the spool cannot
                be opened.
        """
        import asyncio

        await asyncio.to_thread(self._open)
        if self._handoff_setting == "auto":
            self._handoff.start_on_loop()
        self._lifespans += 1
        try:
            yield
        finally:
            self._lifespans -= 1
            if not self._lifespans:
                if self._relay is not None:
                    await asyncio.to_thread(self._relay.stop, self._shutdown_timeout)
                await self._handoff.astop()

    def run_worker(self, *, shutdown_timeout: float | None = None) -> None:
        """Be a worker process: work until SIGTERM or SIGINT. See `envoyou worker`.

        Signals are heard in a process's main thread only. In another one it works until `stop` is called.

        Args:
            shutdown_timeout: seconds to finish what was begun; by default those of the setting.

        An inbox or spool at a relative path must exist: in another working directory than the application's, the worker
        would wait for events at a file of its own.

        Raises:
            ConfigurationError: there is no handler, the inbox lacks what an operator must create, the spool cannot be
                opened, or no file exists at a relative path.
            WorkerStuckError: all its slots are held by sync handlers that have passed their time limits; the process
                has to end, and its supervisor to start another.
        """
        from envoyou_core.worker.process import run_worker
        from envoyou_core.worker.worker import Worker

        for store in (self.inbox, self.spool):
            refuse_creation(store, at_absolute_path=False)
        self._open()
        self._engine.check_handlers()
        worker = Worker(
            self._engine, name=self.name, kind="process", concurrency=self._concurrency, ends_when_stuck=True
        )
        timeout = self._shutdown_timeout if shutdown_timeout is None else shutdown_timeout
        self._own_worker = worker
        try:
            run_worker(
                worker,
                self._hooks,
                shutdown_timeout=timeout,
                in_context=self._engine.in_context,
                run_thread_exit_hooks=self._engine.run_thread_exit_hooks,
            )
        finally:
            self._own_worker = None
            if self._relay is not None:
                self._relay.stop(timeout)

    def on_worker_start(self, hook: Function) -> Function:
        """Call the decorated function, sync or async, before a worker process takes its first event.

        It is the place to open pools and clients that a web server's life cycle would have opened. An async one runs on
        the loop on which async handlers run.
        """
        self._hooks.worker_start.append(hook)
        return hook

    def on_worker_stop(self, hook: Function) -> Function:
        """Call the decorated function, sync or async, after a worker process has settled its last event."""
        self._hooks.worker_stop.append(hook)
        return hook

    def on_dead(self, hook: Function) -> Function:
        """Call the decorated function, sync or async, with each event that died and its last error (a line).

        Its own failure is logged and harms nothing. It is called at most once for each death; what must not be missed
        is to be looked for in the inbox. See the guide, "Handling Failures": the alert to developers.
        """
        self._hooks.dead.append(hook)
        return hook

    def surround(self, contexts: HandlerContext) -> None:
        """Enter a context around every handler, every call of the inbox that a worker makes, and a function as handoff.

        It is for adapters, whose frameworks need one outside a request.
        """
        self._contexts.append(contexts)

    def on_thread_exit(self, function: Callable[[], object]) -> None:
        """Call `function` in each of a worker's threads, and in that of a function as handoff, as it ends.

        It is for adapters, whose frameworks keep something open for each thread.
        """
        self._thread_exit_hooks.append(function)

    def subscribe(self, listener: Listener) -> None:
        """Let `listener` hear every lifecycle notice; it is called where the work is done, so it must be quick.

        See the guide, "Logging and Monitoring".
        """
        self._notices.subscribe(listener)

    # The engine and its worker bring asyncio and threads with them, which a process that only verifies, or that only
    # imports, does not need.

    @cached_property
    def _engine(self) -> Engine:
        from envoyou_core.worker.engine import Engine

        return Engine(
            inbox=self.inbox,
            handlers=self._handlers,
            retry=self._retry,
            notices=self._notices,
            lease=self._lease,
            contexts=self._contexts,
            hooks=self._hooks,
            thread_exit_hooks=self._thread_exit_hooks,
            retention=self._retention,
            clock=self._clock,
        )

    def _make_waker(self, handoff: Callable[[str], object]) -> Waker:
        return Waker(
            lambda event_id: self._engine.in_context(lambda: handoff(event_id)),
            self.report_wake_error,
            on_thread_exit=lambda: self._engine.run_thread_exit_hooks(),
        )

    def _make_relay(self, spool: Spool) -> SpoolRelay:
        from envoyou_core.spool.relay import SpoolRelay

        return SpoolRelay(
            spool,
            self.inbox,
            name=self.name,
            notices=self._notices,
            in_context=lambda function: self._engine.in_context(function),
            run_thread_exit_hooks=lambda: self._engine.run_thread_exit_hooks(),
            on_moved=self._hand_over_moved,
        )

    @property
    def _handoff(self) -> InProcessHandoff:
        from envoyou_core.worker.in_process import InProcessHandoff

        with self._lock:
            if self._in_process is None:
                self._in_process = InProcessHandoff(
                    self._engine,
                    name=self.name,
                    concurrency=self._concurrency,
                    shutdown_timeout=self._shutdown_timeout,
                    on_loops=self.works_on_loops,
                )
            return self._in_process


class _HandlersOver(Handlers):
    """Handlers whose inbox has the transactions that they share."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__()
        self._inbox = inbox

    def add(self, handler: Handler) -> None:
        if handler.shares_transaction:
            share = "names 'connection'" if "connection" in handler.wants else "names 'session'"
            if not handler.wants_connection:
                share = "is to be atomic"
            if handler.is_async and not isinstance(self._inbox, AsyncTransactionalInbox):
                raise ConfigurationError(
                    f"handler {handler.name!r} {share} and is async, as no transaction here is: those of an "
                    "AsyncSqlInbox are"
                )
            if not handler.is_async and "session" in handler.wants:
                raise ConfigurationError(f"handler {handler.name!r} names 'session', which async handlers may")
            if not handler.is_async and not isinstance(self._inbox, TransactionalInbox):
                raise ConfigurationError(f"handler {handler.name!r} {share}, and this inbox has none to give")
        super().add(handler)


def _inbox(inbox: str | Inbox, name: str, clock: Callable[[], float]) -> Inbox:
    if isinstance(inbox, str):
        return open_inbox(inbox, name=name, clock=clock)
    if not isinstance(inbox, Inbox):
        raise ConfigurationError(f"inbox must be a URL as text or an inbox, got {type(inbox).__name__}")
    if inbox.name != name:
        raise ConfigurationError(f"the inbox was made for the name {inbox.name!r}, not for {name!r}")
    return inbox


def _nonces(nonces: str | NonceStore | None) -> NonceStore:
    if isinstance(nonces, str | None):
        return open_nonces(nonces or "memory:")
    if not isinstance(nonces, NonceStore):
        raise ConfigurationError(f"nonces must be a URL or a nonce store, got {type(nonces).__name__}")
    return nonces


def _spool(url: str, name: str, inbox: Inbox, clock: Callable[[], float]) -> Spool:
    if not isinstance(url, str):
        raise ConfigurationError(f"spool must be a URL such as sqlite:///spool.db, got {type(url).__name__}")
    try:
        from envoyou_core.spool.spool import Spool
    except ImportError as error:
        raise ConfigurationError("the spool needs SQLAlchemy 2: pip install 'envoyou-webhooks[sql]'") from error
    return Spool(url, name=name, apart_from=getattr(inbox, "file", None), clock=clock)
