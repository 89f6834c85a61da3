"""From a request to an answer: shape, proof, parsing, nonce, inbox. The one place that decides what is answered."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from envoyou_core.errors import (
    NonceReusedError,
    PayloadTooLargeError,
    SignatureMismatchError,
    UnavailableError,
    WebhookError,
    describe,
)
from envoyou_core.event import Event
from envoyou_core.http import (
    ACCEPTED,
    DUPLICATE,
    WebhookRequest,
    WebhookResponse,
    check_content_type,
    check_method,
)
from envoyou_core.inbox.protocol import Inbox
from envoyou_core.inbox.records import Added, NewEvent
from envoyou_core.nonces import NONCE_LIFETIME, NonceStore, nonce_key
from envoyou_core.observability.notices import Accepted, NonceStoreFailed, Notices, Rejected, Spooled
from envoyou_core.reception.bounded_thread import BoundedThread
from envoyou_core.reception.canonical import SMALL_BODY, regular_rests
from envoyou_core.reception.secrets import Keys, KeySource
from envoyou_core.reception.verification import VerificationPolicy, header_text
from envoyou_core.steps import Call, Flow, Wait

if TYPE_CHECKING:
    from envoyou_core.spool.relay import SpoolRelay

__all__ = ["ANSWER_BUDGET", "PROOF_BUDGET", "Receiver"]

ANSWER_BUDGET = 3.0
"""Seconds in which an event must be stored, connecting included, before the sender is asked to try again.

Where there is a spool, half of them is the inbox's and half of them the spool's, whichever is asked first.
"""

PROOF_BUDGET = 3.0
"""Seconds that a large body may wait for its canonical form, before the sender is asked to try again."""

CANONICAL_THREAD = BoundedThread("envoyou-canonical-form", max_calls=16, max_size=4 * 1_048_576)
"""Computes the canonical forms of large bodies, for all of this process: they cost the most of what can be asked for
without a signature, and what is refused must not hold up what is not. A genuine sender that gets a 503 tries again."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Steps 1 to 7 of an event's way: `receive` is the flow, its steps are done by `run` or `arun`.

    Attributes:
        policy: what is accepted as genuine.
        key_source: which secrets a request is checked against.
        inbox: where events are stored.
        nonces: nonces seen lately.
        clock: epoch seconds.
        notices: who is told.
        hand_over: hints at an accepted event to whoever does the work; never needed for correctness.
        max_body_size: bytes.
        relay: has the spool, where events are stored while the inbox is away.
        canonical_thread: computes the canonical form of a large body.
    """

    policy: VerificationPolicy
    key_source: KeySource
    inbox: Inbox
    nonces: NonceStore
    clock: Callable[[], float]
    notices: Notices
    hand_over: Callable[[str], None]
    max_body_size: int
    relay: SpoolRelay | None = None
    canonical_thread: BoundedThread = CANONICAL_THREAD

    def refuse(self, error: WebhookError, request: WebhookRequest | None = None) -> WebhookResponse:
        """The answer to a request that goes no further."""
        if request is None:
            rejected = Rejected(error.status, error.reason, error.detail)
        else:
            webhook_id = None if request.webhook_id is None else request.webhook_id.decode("utf-8", "replace")
            rejected = Rejected(error.status, error.reason, error.detail, webhook_id, request.path, request.peer)
        self.notices.emit(rejected)
        return WebhookResponse.of_error(error)

    def check_shape(self, method: str, content_type: bytes | None, size: int) -> None:
        """Step 1, for which the body need not be read. `size` is in bytes.

        Raises:
            WebhookError: 405, 413 or 415.
        """
        check_method(method)
        check_content_type(content_type)
        if size > self.max_body_size:
            raise PayloadTooLargeError(f"the body is larger than {self.max_body_size} bytes")

    def receive(self, request: WebhookRequest) -> Flow[WebhookResponse]:
        """Answer `request`. Whatever it holds, and whatever fails, there is an answer."""
        try:
            event, tenant = yield from self._prove(request)
            added = yield from self._store(event, tenant, request)
        except WebhookError as error:
            return self.refuse(error, request)
        except Exception as error:
            return self.refuse(UnavailableError(describe(error)), request)
        self.notices.emit(Accepted(event.id, event.type, added, tenant))
        if not added.is_runnable:
            return DUPLICATE
        self.hand_over(event.id)
        return ACCEPTED if added is Added.NEW else DUPLICATE

    def verify(self, request: WebhookRequest) -> Flow[Event]:
        """Steps 1 to 3 alone: the event of a request that they let through. Nothing is stored, and no nonce asked for.

        Raises:
            WebhookError: 400, 401, 405, 413 or 415; 503 if the secret callable fails, or too many large bodies wait to
                be proven.
        """
        event, _ = yield from self._prove(request)
        return event

    def _prove(self, request: WebhookRequest) -> Flow[tuple[Event, str]]:
        """The event and its tenant."""
        self.check_shape(request.method, request.content_type, len(request.body))
        self.policy.check_headers(request, now=self.clock())
        keys = yield from self.key_source.find(header_text(request.webhook_id))
        if not self.policy.is_signed_raw(request, keys.keys):
            yield from self._check_canonical(request, keys)
        return self.policy.read_event(request), keys.tenant

    def _check_canonical(self, request: WebhookRequest, keys: Keys) -> Flow[None]:
        """The one step that is dear without a signature: of a large body it is done by a thread that has bounds."""
        if not self.policy.tries_canonical(request):
            raise SignatureMismatchError
        size = len(request.body)
        if size <= SMALL_BODY:
            self.policy.check_canonical(request, keys.keys)
            return
        try:
            check = self.canonical_thread.submit(
                lambda: self.policy.check_canonical(request, keys.keys, pause=regular_rests()), size=size
            )
            yield Wait(check, time.monotonic() + PROOF_BUDGET)
        except WebhookError:
            raise
        except queue.Full:
            raise UnavailableError("too many large bodies wait for their canonical forms") from None
        except Exception as error:
            raise UnavailableError(f"the canonical form was not computed: {describe(error)}") from error

    def _store(self, event: Event, tenant: str, request: WebhookRequest) -> Flow[Added]:
        deadline = time.monotonic() + ANSWER_BUDGET
        key = nonce_key(self.inbox.name, tenant, request.nonce) if request.nonce else None
        if key is not None and (yield from self._bound_event(key)) not in {None, event.id}:
            raise NonceReusedError
        entry = NewEvent(event, tenant, event.webhook_id or header_text(request.webhook_id))
        if self.relay is None:
            added = yield from _add(self.inbox, "inbox", entry, deadline)
        else:
            added = yield from self._add_to_either(self.relay, entry, deadline)
        if key is not None:
            # After the commit: a nonce that was burnt for an event that is not stored would turn the sender's retry
            # into a loss.
            yield from self._bind(key, event.id)
        return added

    def _add_to_either(self, relay: SpoolRelay, entry: NewEvent, deadline: float) -> Flow[Added]:
        """In the inbox, or where that fails, in the spool. While the inbox is away, nobody waits for it in vain.

        Even then it is asked, where the spool fails: that must not be what keeps events from an inbox that is back.
        """
        relay.start()
        # Of one time in both, for the inbox may commit it when nobody waits any more.
        entry = replace(entry, received_at=datetime.fromtimestamp(self.clock(), UTC))
        first, second = self._add_to_inbox, self._add_to_spool
        if relay.inbox_is_down:
            first, second = second, first
        try:
            return (yield from first(relay, entry, deadline - ANSWER_BUDGET / 2))
        except Exception as error:
            reason = describe(error)
        try:
            # An inbox that stores in the calling thread cannot be called away from, and may have used up all the time.
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
        added = yield from _add(relay.spool, "spool", entry, deadline)
        self.notices.emit(Spooled(entry.event.id, entry.event.type))
        relay.event_spooled()
        return added

    def _bound_event(self, key: str) -> Flow[str | None]:
        try:
            if not self.nonces.blocking:
                return self.nonces.lookup(key)
            bound: str | None = yield Call(lambda: self.nonces.lookup(key))
        except Exception as error:
            self.notices.emit(NonceStoreFailed(describe(error)))
            return None
        return bound

    def _bind(self, key: str, event_id: str) -> Flow[None]:
        try:
            if not self.nonces.blocking:
                return self.nonces.bind(key, event_id, NONCE_LIFETIME)
            yield Call(lambda: self.nonces.bind(key, event_id, NONCE_LIFETIME))
        except Exception as error:
            self.notices.emit(NonceStoreFailed(describe(error)))


def _add(inbox: Inbox, called: str, entry: NewEvent, deadline: float) -> Flow[Added]:
    began = time.monotonic()
    try:
        added: Added = yield Wait(inbox.add(entry), deadline)
    except TimeoutError as error:
        raise TimeoutError(f"the {called} did not answer within {time.monotonic() - began:.1f} s") from error
    return added
