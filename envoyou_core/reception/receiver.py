"""Receives a request: check its shape, authenticate, parse, check the nonce, store the event, respond."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from envoyou_core import observability
from envoyou_core.errors import (
    InvalidPayloadError,
    NonceReusedError,
    SignatureMismatchError,
    UnavailableError,
    WebhookError,
    WebhookVerificationError,
    describe,
)
from envoyou_core.event import Event
from envoyou_core.http import (
    ACCEPTED,
    DUPLICATE,
    RequestLimits,
    WebhookRequest,
    WebhookResponse,
)
from envoyou_core.inbox.protocol import WorkerInbox
from envoyou_core.inbox.records import Added, NewEvent
from envoyou_core.nonces import NONCE_LIFETIME, NonceStore, nonce_key
from envoyou_core.reception.bounded_thread import BoundedThread
from envoyou_core.reception.canonical import SMALL_BODY, pause_regularly
from envoyou_core.reception.endpoint_headers import NO_ENDPOINT_HEADERS, EndpointHeaders
from envoyou_core.reception.rejection import rejection_of, request_of, with_signed_headers
from envoyou_core.reception.secrets import Keys, KeySource
from envoyou_core.reception.tracing import AcceptanceTracer, trace
from envoyou_core.reception.verification import VerificationPolicy, header_text
from envoyou_core.steps import Call, Flow, Wait

if TYPE_CHECKING:
    from envoyou_core.inbox.processes import Presence
    from envoyou_core.inbox.rejected import RejectedDelivery
    from envoyou_core.observability import Notices
    from envoyou_core.reception.captures import CaptureDirectory
    from envoyou_core.spool.relay import SpoolRelay

__all__ = ["ANSWER_BUDGET", "AUTHENTICATION_BUDGET", "Receiver"]

ANSWER_BUDGET = 3.0
"""Seconds within which an event must be stored, connecting included; the response is 503 after that.

With a spool, the inbox and the spool get half of it each.
"""

AUTHENTICATION_BUDGET = 3.0
"""Seconds that a large body may wait for its canonical form; the response is 503 after that."""

CANONICAL_THREAD = BoundedThread("envoyou-canonical-form", max_calls=16, max_size=4 * 1_048_576)
"""Computes the canonical forms of large bodies, for the whole process. It is the most expensive work that an unsigned
request can cause, and must not delay genuine requests. A genuine sender that gets a 503 retries."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Verifies requests and stores their events. Its flows are executed by `run` or `arun`, see `envoyou_core.steps`.

    Attributes:
        policy: how requests are verified.
        key_source: finds the keys that a request is checked against.
        inbox: where events are stored.
        nonces: the recently used nonces.
        clock: returns epoch seconds.
        notices: the stream that rejections and acceptances are reported to.
        wake: called with the id of each event that is to be processed; best effort, because workers also poll.
        limits: what a request must satisfy before its body is read.
        relay: holds the spool, where events are stored while the inbox is unavailable.
        presence: describes this process to the inbox; `None` to list nothing.
        endpoint_headers: the custom headers that are required, and those that are kept.
        canonical_thread: computes the canonical forms of large bodies.
        captures: where refused requests are written; `None` for nowhere.
        tracers: the last of them traces each acceptance.
    """

    policy: VerificationPolicy
    key_source: KeySource
    inbox: WorkerInbox
    nonces: NonceStore
    clock: Callable[[], float]
    notices: Notices
    wake: Callable[[str], None]
    limits: RequestLimits
    relay: SpoolRelay | None = None
    presence: Presence | None = None
    endpoint_headers: EndpointHeaders = NO_ENDPOINT_HEADERS
    canonical_thread: BoundedThread = CANONICAL_THREAD
    captures: CaptureDirectory | None = None
    tracers: Sequence[AcceptanceTracer] = ()

    def refuse(
        self,
        error: WebhookError,
        request: WebhookRequest | None = None,
        *,
        kept: bool = False,
        began: float | None = None,
    ) -> WebhookResponse:
        """Report a refused request and return its response.

        Args:
            error: why it is refused.
            request: the request, if there is one; its body may be unread.
            kept: whether the inbox keeps the delivery.
            began: when it came, in seconds of `time.monotonic`, if its body was read.
        """
        if request is None:
            rejected = observability.Rejected(error.status, error.reason, error.detail)
        else:
            webhook_id = None if request.webhook_id is None else request.webhook_id.decode("utf-8", "replace")
            rejected = observability.Rejected(
                error.status,
                error.reason,
                error.detail,
                webhook_id,
                request.path,
                request.peer,
                kept,
                body_size=None if began is None else len(request.body),
                seconds=None if began is None else time.monotonic() - began,
            )
        self.notices.emit(rejected)
        return WebhookResponse.of_error(error)

    def receive(self, request: WebhookRequest) -> Flow[WebhookResponse]:
        """Verify `request`, store its event and return the response. Errors are responses too; none is raised."""
        began, kept = time.monotonic(), False
        try:
            self._check_limits(request)
            now = self.clock()
            tenant = yield from self._authenticate(request, now)
            self.endpoint_headers.check(request)
            try:
                event = self.policy.read_event(request)
            except InvalidPayloadError as error:
                kept = yield from self._keep(request, tenant, now, error)
                raise
            traceparent = None
            if self.tracers:
                store = partial(self._store, event, tenant, request)
                added, traceparent = yield from trace(self.tracers[-1], event, store)
            else:
                added = yield from self._store(event, tenant, request)
        except WebhookError as error:
            yield from self._capture(request, error)
            return self.refuse(error, request, kept=kept, began=began)
        except Exception as error:
            return self.refuse(UnavailableError(describe(error)), request, began=began)
        self._report_accepted(event, tenant, added, now, time.monotonic() - began, traceparent)
        if not added.is_runnable:
            return DUPLICATE
        self.wake(event.id)
        return ACCEPTED if added is Added.NEW else DUPLICATE

    def verify(self, request: WebhookRequest) -> Flow[Event]:
        """Verify `request` and return its event. Nothing is stored, and the nonce is not checked.

        Raises:
            WebhookError: 400, 401, 405, 413 or 415; 503 if the secret callable fails, or too many large bodies wait to
                be authenticated.
        """
        self._check_limits(request)
        yield from self._authenticate(request, self.clock())
        self.endpoint_headers.check(request)
        return self.policy.read_event(request)

    def retry(self, rejected: RejectedDelivery, *, use_signed_headers: bool = False) -> Flow[Event]:
        """Verify a rejected delivery as of the time at which it came, store its event and return it.

        The nonce is not checked: it was not bound then, and the key of the event decides whether it is a duplicate.
        Custom headers were checked before the delivery was kept, and are not kept with it.

        Args:
            rejected: the delivery; it is deleted with the commit.
            use_signed_headers: replace the unsigned headers by what the signed body says.

        Raises:
            WebhookError: the delivery is still rejected; it stays as it is.
        """
        request = request_of(rejected)
        if use_signed_headers:
            request = with_signed_headers(request)
        tenant = yield from self._authenticate(request, rejected.received_at.timestamp())
        event = self.policy.read_event(request)
        entry = replace(self._entry(event, tenant, request), received_at=rejected.received_at)
        added: Added = yield Call(lambda: self.inbox.accept_rejected(rejected.key, entry))
        # Workers find the event at their next poll. A wake-up would start one in the process of a command.
        self._report_accepted(event, tenant, added, rejected.received_at.timestamp(), None)
        return event

    def _report_accepted(
        self,
        event: Event,
        tenant: str,
        added: Added,
        received_at: float,
        seconds: float | None,
        traceparent: str | None = None,
    ) -> None:
        self.notices.emit(
            observability.Accepted(
                event.id,
                event.type,
                added,
                tenant,
                webhook_id=event.webhook_id,
                created=event.created,
                received_at=received_at,
                body_size=len(event.body),
                seconds=seconds,
                traceparent=traceparent,
            )
        )

    def _entry(self, event: Event, tenant: str, request: WebhookRequest, traceparent: str | None = None) -> NewEvent:
        webhook_id = event.webhook_id or header_text(request.webhook_id)
        process = None if self.presence is None else self.presence.process
        return NewEvent(
            event,
            tenant,
            webhook_id,
            handlers=None if process is None else process.handlers,
            process=process,
            headers=self.endpoint_headers.keep(request),
            traceparent=traceparent,
        )

    def _check_limits(self, request: WebhookRequest) -> None:
        # Adapters have checked this before they read the body. It is checked again because users build requests
        # themselves, and a mark "already checked" could be forged, or copied to another body.
        self.limits.check(request.method, request.content_type, len(request.body))

    def _authenticate(self, request: WebhookRequest, now: float) -> Flow[str]:
        """Check that `request` is genuine and return its tenant. Nothing that fails this check may enter a store."""
        self.policy.check_headers(request, now=now)
        found = self.key_source.find(header_text(request.webhook_id))
        keys = found if isinstance(found, Keys) else (yield from found)
        if not self.policy.is_signed_raw(request, keys.keys):
            if not request.body:
                raise SignatureMismatchError("The body is empty: middleware may have read it.")
            yield from self._check_canonical(request, keys)
        return keys.tenant

    def _keep(self, request: WebhookRequest, tenant: str, now: float, error: InvalidPayloadError) -> Flow[bool]:
        """Keep a genuine delivery that is rejected; returns whether the inbox or the spool has it.

        The answer does not change.
        """
        stores: list[WorkerInbox] = [self.inbox]
        if self.relay is not None:
            self.relay.start()
            stores = [self.relay.spool, self.inbox] if self.relay.inbox_is_down else [self.inbox, self.relay.spool]
        failures = []
        for store in stores:
            try:
                rejection = rejection_of(request, tenant, now, error)
                deadline = time.monotonic() + ANSWER_BUDGET / len(stores)
                pruned: int = yield Wait(store.keep_rejected(rejection), deadline)
            except Exception as failure:
                failures.append(describe(failure))
            else:
                if pruned:
                    self.notices.emit(observability.RejectedPruned(self.inbox.name, pruned))
                return True
        self.notices.emit(observability.RejectedNotKept(self.inbox.name, "; ".join(failures)))
        return False

    def _capture(self, request: WebhookRequest, error: WebhookError) -> Flow[None]:
        """Write a refused request to a file, if that is configured. The answer does not change."""
        captures = self.captures
        if captures is None or not isinstance(error, WebhookVerificationError | InvalidPayloadError):
            return
        try:
            yield Call(lambda: captures.write(request, error, now=self.clock()))
        except Exception as failure:
            self.notices.emit(observability.CaptureFailed(describe(failure)))

    def _check_canonical(self, request: WebhookRequest, keys: Keys) -> Flow[None]:
        """Check the canonical form. That of a large body is computed in a thread with a bounded queue."""
        if not self.policy.accepts_canonical(request):
            raise SignatureMismatchError
        size = len(request.body)
        if size <= SMALL_BODY:
            self.policy.check_canonical(request, keys.keys)
            return
        try:
            check = self.canonical_thread.submit(
                lambda: self.policy.check_canonical(request, keys.keys, pause=pause_regularly()), size=size
            )
            yield Wait(check, time.monotonic() + AUTHENTICATION_BUDGET)
        except WebhookError:
            raise
        except queue.Full:
            raise UnavailableError("too many large bodies wait for their canonical forms") from None
        except Exception as error:
            raise UnavailableError(f"the canonical form was not computed: {describe(error)}") from error

    def _store(self, event: Event, tenant: str, request: WebhookRequest, traceparent: str | None = None) -> Flow[Added]:
        deadline = time.monotonic() + ANSWER_BUDGET
        nonces = self.nonces
        key = nonce_key(self.inbox.name, tenant, request.nonce) if request.nonce else None
        if key is not None:
            lookup = partial(nonces.lookup, key)
            bound = (yield from self._wait_for_nonces(lookup)) if nonces.blocking else self._ask_nonces(lookup)
            if bound not in {None, event.id}:
                raise NonceReusedError
        entry = self._entry(event, tenant, request, traceparent)
        if self.relay is None:
            added: Added = yield from _add(self.inbox, "inbox", entry, deadline)
        else:
            added = yield from self._add_to_inbox_or_spool(self.relay, entry, deadline)
        if key is not None:
            # After the commit: if the nonce were bound and the event then not stored, the sender's retry would be lost.
            bind = partial(nonces.bind, key, event.id, NONCE_LIFETIME)
            if nonces.blocking:
                yield from self._wait_for_nonces(bind)
            else:
                self._ask_nonces(bind)
        return added

    def _ask_nonces(self, call: Callable[[], str | None]) -> str | None:
        """Call the nonce store. If that fails, the unique key alone finds duplicates."""
        try:
            return call()
        except Exception as error:
            self.notices.emit(observability.NonceStoreFailed(describe(error)))
            return None

    def _wait_for_nonces(self, call: Callable[[], str | None]) -> Flow[str | None]:
        """Call a nonce store that blocks. See `_ask_nonces`."""
        try:
            answer: str | None = yield Call(call)
        except Exception as error:
            self.notices.emit(observability.NonceStoreFailed(describe(error)))
            return None
        return answer

    def _add_to_inbox_or_spool(self, relay: SpoolRelay, entry: NewEvent, deadline: float) -> Flow[Added]:
        """Add the event to the inbox, or to the spool if that fails. The order is reversed while the inbox is down.

        The inbox is tried second then, because it may be back although the spool fails.
        """
        relay.start()
        # The same time in both, because the inbox may commit the event after the request has stopped waiting for it.
        entry = replace(entry, received_at=datetime.fromtimestamp(self.clock(), UTC))
        first, second = self._add_to_inbox, self._add_to_spool
        if relay.inbox_is_down:
            first, second = second, first
        try:
            return (yield from first(relay, entry, deadline - ANSWER_BUDGET / 2))
        except Exception as error:
            reason = describe(error)
        try:
            # An inbox that stores in the calling thread cannot be interrupted, and may have used up the whole budget.
            return (yield from second(relay, entry, max(deadline, time.monotonic() + ANSWER_BUDGET / 2)))
        except Exception as error:
            raise UnavailableError(f"{reason}; {describe(error)}") from error

    def _add_to_inbox(self, relay: SpoolRelay, entry: NewEvent, deadline: float) -> Flow[Added]:
        try:
            added = yield from _add(self.inbox, "inbox", entry, deadline)
        except Exception as error:
            relay.inbox_failed(error)
            raise
        relay.inbox_answered()
        return added

    def _add_to_spool(self, relay: SpoolRelay, entry: NewEvent, deadline: float) -> Flow[Added]:
        added = yield from _add(relay.spool, "spool", replace(entry, process=None), deadline)
        self.notices.emit(observability.Spooled(entry.event.id, entry.event.type))
        relay.event_spooled()
        return added


def _add(inbox: WorkerInbox, label: str, entry: NewEvent, deadline: float) -> Flow[Added]:
    began = time.monotonic()
    try:
        added: Added = yield Wait(inbox.add(entry), deadline)
    except TimeoutError as error:
        seconds = time.monotonic() - began
        shortage = inbox.connection_shortage()
        raise TimeoutError(
            f"the {label} did not answer within {seconds:.1f} s{f', because {shortage}' if shortage else ''}"
        ) from error
    return added
