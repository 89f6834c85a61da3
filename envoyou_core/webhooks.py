"""`Webhooks`, the object that applications hold: it wires reception, inbox, handlers and worker together."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from envoyou_core.alerts.config import Alerts
from envoyou_core.errors import ConfigurationError, WebhookError
from envoyou_core.event import Event
from envoyou_core.handler import Handler, check_transaction_support, with_session_of_inbox
from envoyou_core.handlers import Registration
from envoyou_core.hooks import Hook, HookKind
from envoyou_core.http import RequestLimits, WebhookRequest, WebhookResponse
from envoyou_core.inbox import WorkerInbox
from envoyou_core.isolation import Isolation
from envoyou_core.nonces import NonceStore
from envoyou_core.observability.instruments import instrument as instrument_webhooks
from envoyou_core.observability.notices import Subscription
from envoyou_core.reception.endpoint_headers import EndpointHeaders, HeaderValues
from envoyou_core.reception.receiver import Receiver
from envoyou_core.reception.secrets import SecretSetting, key_source, secrets_of_endpoint, written_secrets
from envoyou_core.reception.signature import SIGNED_CONTENT_FORMS, Secret, SignedContent
from envoyou_core.reception.verification import DEFAULT_REQUIRED_HEADERS, DEFAULT_TOLERANCE, VerificationPolicy
from envoyou_core.retention import Retention
from envoyou_core.retry import RetryPolicy
from envoyou_core.settings import (
    DEFAULT_MAX_BODY_SIZE,
    MISSING_SECRET,
    SECRET_NAMES,
    Handoff,
    WorkerSettings,
    read_environment,
)
from envoyou_core.steps import Call, arun, run, run_in_own_loop
from envoyou_core.stores import as_inbox, as_nonce_store, as_spool

__all__ = ["Webhooks"]

DEFAULTS: Final = WorkerSettings()


class Webhooks(Registration, Isolation):
    """Receives EnvoyOU webhooks: verifies each, stores it, acknowledges it, and calls its handlers.

    A 200 means that the event is on disk. See the guide, "Setting Up Webhooks" and "Best Practices".

    Args:
        secret: the signing secret; a list of several during a rotation, newest first; or, if endpoints have secrets of
            their own, a mapping or a callable, sync or async, from the webhook id to them. See `Tenant`.
        name: separates several `Webhooks` objects that share a database.
        inbox: a URL (`sqlite:///envoyou.db`, `postgresql+psycopg://...`, `memory:` for tests), or an inbox.
        spool: `sqlite:///spool.db`, a local file that stores events while the inbox is unavailable, so that they are
            accepted all the same. They are moved to the inbox once it is available, in no guaranteed order. `False` for
            no spool on purpose: without one, a process that accepts events into a remote inbox logs a warning.
        nonces: where nonces are remembered: `redis://...`, a nonce store, or by default the memory of each process.
        handoff: how accepted events reach a worker. `auto`: a worker in this process, on its event loop or in a thread.
            `manual`: call `drain`, or run another process. `celery`: a task of the project's Celery app. A function: it
            is called with each accepted event's id after the commit, and with an empty text when other events have
            become due, such as retries; in a background thread, for example to notify a broker; best effort.
        tolerance: seconds by which a timestamp may differ from now, in the past or the future.
        signed_content: the accepted forms of the signed content; `("raw",)` is the strict setting.
        required_headers: headers required besides signature and timestamp.
        endpoint_headers: custom headers of the endpoint that are required after the signature, with their values, which
            are secret. A list of several values accepts each of them. See the guide, "Configure Webhook Settings".
        kept_headers: names of request headers to keep with the event, for handlers that take `delivery`. Nothing else
            of the request is stored. They are deleted with the payload.
        max_body_size: bytes; a larger body is refused with 413 before it is read into memory.
        max_canonical_size: bytes; a larger body is accepted only if its raw form is signed. `None`, the default, for no
            separate limit: large bodies that are not signed raw are verified one at a time, in a thread of the process.
        retry: when a failed event is retried; by default, as in the guide.
        retention: how long finished events are kept: by default 30 days with payload and 90 days without; `None` for
            ever. A worker applies it, or `apply_retention`.
        concurrency: how many events the worker of this process handles at once.
        lease: seconds after which another worker may take over the events of a worker that died. A live worker renews
            its leases, however long a handler takes.
        shutdown_timeout: seconds for the worker to finish its attempts when the process ends; the server's own timeout
            should be longer.
        handler_wait: seconds for which an event waits for a process that knows a handler, if it is unfinished and this
            process does not know it, as during a rolling deploy. After that the event is dead.
        analytics: whether deliveries, attempts and events are counted, for `webhooks.analytics`, `envoyou stats
            --window` and alerts.
        alerts: which alerts fire, and where they are sent besides the log and `on_alert`; `None` for no alerts. They
            need `analytics`.
        capture_rejected: a directory to which requests that are refused with 400 or 401 are written, for `envoyou
            verify`: at most 100 files, the newest. They contain bodies, and no secrets; off by default.
        instrument: which libraries measure, trace and report what happens: `prometheus`, `opentelemetry`, `sentry`. The
            same as to call `instrument(webhooks)` of these modules of `envoyou_core.observability`.
        clock: returns epoch seconds; for tests. An inbox that is given as an object has its own clock.

    Raises:
        ConfigurationError: a setting is invalid, or the secret is missing or empty.
    """

    def __init__(
        self,
        *,
        secret: SecretSetting,
        name: str = "default",
        inbox: str | WorkerInbox = "sqlite:///envoyou.db",
        spool: str | Literal[False] | None = None,
        nonces: str | NonceStore | None = None,
        handoff: Handoff = "auto",
        tolerance: float = DEFAULT_TOLERANCE,
        signed_content: Sequence[SignedContent] = SIGNED_CONTENT_FORMS,
        required_headers: Iterable[str] = DEFAULT_REQUIRED_HEADERS,
        endpoint_headers: HeaderValues | None = None,
        kept_headers: Iterable[str] = (),
        max_body_size: int = DEFAULT_MAX_BODY_SIZE,
        max_canonical_size: int | None = None,
        retry: RetryPolicy | None = None,
        retention: Retention | None = DEFAULTS.retention,
        concurrency: int = DEFAULTS.concurrency,
        lease: float = DEFAULTS.lease,
        shutdown_timeout: float = DEFAULTS.shutdown_timeout,
        handler_wait: float = DEFAULTS.handler_wait,
        analytics: bool = DEFAULTS.analytics,
        alerts: Alerts | None = DEFAULTS.alerts,
        capture_rejected: str | os.PathLike[str] | None = None,
        instrument: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if handoff == "celery":
            from envoyou_core.worker.celery import celery_handoff

            handoff = celery_handoff(self, name)
        settings = WorkerSettings(
            handoff=handoff,
            retry=DEFAULTS.retry if retry is None else retry,
            retention=retention,
            concurrency=concurrency,
            lease=lease,
            shutdown_timeout=shutdown_timeout,
            handler_wait=handler_wait,
            analytics=analytics,
            alerts=alerts,
            clock=clock,
        )
        self.name = name
        self._secret = secret
        self._has_inbox_of_its_own = isinstance(inbox, str)
        self.request_limits = RequestLimits(max_body_size)
        store = as_inbox(inbox, name=name, clock=clock)
        spool_store = as_spool(spool, name=name, inbox=store, clock=clock)
        super().__init__(inbox=store, spool=spool_store, settings=settings, wants_spool=spool is not False)
        captures = None
        if capture_rejected is not None:
            from envoyou_core.reception.captures import capture_directory

            captures = capture_directory(capture_rejected, endpoint_headers)
        self._reception = Receiver(
            policy=VerificationPolicy(
                tolerance=tolerance,
                signed_content=signed_content,
                required_headers=required_headers,
                max_canonical_size=max_canonical_size,
            ),
            key_source=key_source(secret, clock=clock),
            inbox=store,
            nonces=as_nonce_store(nonces),
            clock=clock,
            notices=self._notices,
            wake=self._hand_over,
            limits=self.request_limits,
            relay=self._relay,
            presence=self._presence,
            endpoint_headers=EndpointHeaders.of(endpoint_headers, kept_headers),
            captures=captures,
            tracers=self._handlers.hooks.acceptance,
        )
        instrument_webhooks(self, instrument)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **settings: Any) -> Webhooks:
        """Make a `Webhooks` from `ENVOYOU_WEBHOOK_SECRET`, `ENVOYOU_INBOX` and so on; keyword arguments win.

        `ENVOYOU_WEBHOOK_SECRET` may hold several secrets, newest first, separated by commas. Instead of it,
        `ENVOYOU_WEBHOOK_SECRET_FILE` may name a file with one secret per line.

        Raises:
            ConfigurationError: as the constructor does, and for a variable that looks like a misspelt setting. If the
                secret is missing, the error names the variable to set.
        """
        others = SECRET_NAMES if "secret" in settings else frozenset()
        keywords = {"secret": None, **read_environment(environ, others=others), **settings}
        if not keywords["secret"] and "secret" not in settings:
            raise ConfigurationError(MISSING_SECRET)
        return cls(**keywords)

    # Registration

    def add_handler(self, handler: Handler) -> None:
        """Add a handler. The handlers of an event run in the order in which they were added.

        Raises:
            ConfigurationError: its name is taken, or it shares a transaction and this inbox has none.
        """
        handler = with_session_of_inbox(handler, self._inbox)
        check_transaction_support(handler, self._inbox)
        self._handlers.add_handler(handler)

    def add_hook(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook. Hooks of one kind are called in the order in which they were added."""
        if kind is HookKind.NOTICE:
            given = hook if isinstance(hook, Subscription) else Subscription(hook)
            self._notices.subscribe(given.listener, given.kinds)
        else:
            self._handlers.add_hook(kind, hook)

    @property
    def registered(self) -> Sequence[Handler]:
        """The registered handlers, in the order of registration."""
        return tuple(self._handlers)

    # Reception

    def receive(self, request: WebhookRequest, *, in_context: bool = False) -> WebhookResponse:
        """Answer one request, in the calling thread. There is an answer to every input; it never raises.

        The answer is returned as soon as the event is stored, before it is handled. See the guide, "Response Time".

        Args:
            request: the request.
            in_context: whether to call a secret callable and the nonce store in the context that handlers run in. For
                adapters that answer before the framework has entered a context of its own.
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

    def verify(self, request: WebhookRequest) -> Event:
        """Verify one request with this object's settings, in the calling thread. Nothing is stored.

        The caller is responsible for the event from then on, including its redeliveries. See the guide, "Webhook
        Signature Verification".

        Raises:
            WebhookError: the request is refused; `refuse` returns the answer.
        """
        return run(self._reception.verify(request), run_async=self._run_async)

    async def averify(self, request: WebhookRequest) -> Event:
        """Verify one request without blocking the running event loop. See `verify`."""
        return await arun(self._reception.verify(request), offload=self._offload_in_context)

    def check_shape(self, method: str, content_type: bytes | None, size: int) -> None:
        """Check a request before its body of `size` bytes is read. For adapters; see `RequestLimits.check`.

        Raises:
            WebhookError: 405, 413 or 415, to be answered with `refuse`.
        """
        self.request_limits.check(method, content_type, size)

    def refuse(self, error: WebhookError, request: WebhookRequest | None = None) -> WebhookResponse:
        """Return the answer for `error`, and report the refusal. For adapters.

        Args:
            error: why the request is refused.
            request: the refused request, for the log; its body may be unread.
        """
        return self._reception.refuse(error, request)

    @property
    def max_body_size(self) -> int:
        """The largest accepted body, in bytes."""
        return self.request_limits.max_body_size

    def newest_secret(self, webhook_id: str) -> Secret:
        """Return the newest secret of an endpoint, with which a sample delivery is signed. For command lines.

        Raises:
            ConfigurationError: the endpoint has no secret.
        """
        return self.secrets_of(webhook_id)[0]

    def secrets_of(self, webhook_id: str) -> tuple[Secret, ...]:
        """Return the secrets of an endpoint, newest first. For command lines.

        Raises:
            ConfigurationError: the endpoint has no secret.
        """
        return secrets_of_endpoint(self._secret, webhook_id)

    @property
    def written_secrets(self) -> tuple[Secret, ...]:
        """The secrets that the settings contain; none if a callable looks them up. For command lines."""
        return written_secrets(self._secret)

    @property
    def nonces(self) -> NonceStore:
        """Where nonces are remembered. For command lines."""
        return self._reception.nonces

    @property
    def verification_policy(self) -> VerificationPolicy:
        """How requests are verified. For command lines."""
        return self._reception.policy

    @property
    def required_headers(self) -> tuple[str, ...]:
        """The headers without which a request is refused, including signature, timestamp and `endpoint_headers`."""
        custom = (name for name, _ in self._reception.endpoint_headers.required)
        return (*self._reception.policy.required_headers, *custom)

    def _run_async(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return run_in_own_loop(function)

    def _call_in_context(self, step: Call) -> Any:
        return self._engine.in_context(step.function)

    async def _offload_in_context(self, step: Call) -> Any:
        # A framework enters no context in the threads of asyncio.
        import asyncio

        return await asyncio.to_thread(self._call_in_context, step)

    # Rejected deliveries

    def retry_rejected(self, key: int, *, use_signed_headers: bool = False) -> Event | None:
        """Verify a rejected delivery anew and accept its event, if this release and these settings accept it.

        It is verified as of the time at which it was received, with today's secrets. An accepted delivery is deleted
        from `inbox.list_rejected`; its event keeps the time at which it was received, and workers find it at their next
        poll, like a requeued one. If the event is stored already, it is not stored again.

        Args:
            key: the `key` of the `RejectedDelivery`.
            use_signed_headers: use the event type and the webhook id of the signed body instead of those of the
                headers, which a proxy may have changed or removed.

        Returns:
            The event; `None` if no such delivery is kept, for example because another process has retried it.

        Raises:
            WebhookError: the delivery is still rejected, and kept.
        """
        rejected = self.inbox.get_rejected(key)
        if rejected is None:
            return None
        flow = self._reception.retry(rejected, use_signed_headers=use_signed_headers)
        return run(flow, run_async=self._run_async)

    # Processing

    def drain(self, *, until_idle: bool = False, within: float | None = None, raise_errors: bool = False) -> int:
        """Handle the events that are due now, in the calling thread, and return how many were settled.

        Events in the spool are moved to the inbox first; a failure of the spool is reported, not raised. If no handler
        is registered, nothing is handled or set aside as ignored, and that is reported.

        Args:
            until_idle: also wait for retries, until only paused events are left.
            within: seconds after which no further event is begun, for a task or a cron job that must end. Attempts that
                have begun are finished.
            raise_errors: for tests: raise what a handler has raised, once the event's attempt is settled, instead of
                only reporting it. No further event is begun then. Exceptions of several handlers are raised as an
                `ExceptionGroup`. `RetryLater` is raised only if no attempt is left.

        Raises:
            ConfigurationError: it is called on a running event loop, where `await webhooks.adrain()` is used; or a
                parameter of a handler is not provided.
        """
        from envoyou_core.worker.drain import drain

        self._empty_spool()
        try:
            return drain(self._engine, until_idle=until_idle, within=within, raise_errors=raise_errors)
        finally:
            self._recorder.flush_if_due()

    async def adrain(self, *, until_idle: bool = False, within: float | None = None, raise_errors: bool = False) -> int:
        """Handle the events that are due now, on the running event loop. See `drain`."""
        import asyncio

        from envoyou_core.worker.drain import adrain

        await asyncio.to_thread(self._empty_spool)
        try:
            return await adrain(self._engine, until_idle=until_idle, within=within, raise_errors=raise_errors)
        finally:
            await asyncio.to_thread(self._recorder.flush_if_due)
