"""Reports to Sentry: what fails, with its handler, and each attempt as a transaction. Install the extra `sentry`.

See the guide, "Handling Failures".
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

import sentry_sdk
from sentry_sdk.utils import event_from_exception

from envoyou_core.errors import RetryLater
from envoyou_core.event import Event
from envoyou_core.inbox.records import Status
from envoyou_core.observability import messaging
from envoyou_core.observability.attempt_notices import AttemptNotice, HandlerFailed, LeaseLost, Settled
from envoyou_core.observability.current import HandlerCall, current_handler
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.scrubbing import clean_exceptions, install
from envoyou_core.redaction import MARK, one_line
from envoyou_core.worker.failures import private_texts

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["instrument"]

MAX_PENDING: Final = 1_000
"""Events whose failures wait for the end of their attempts. More are in no worker at once."""

_instrumented: Final[WeakSet[Notices]] = WeakSet()
"""The streams, because Django's `webhooks` is a proxy of the object that has one."""


def instrument(webhooks: Webhooks) -> None:
    """Report the failures and attempts of `webhooks` in this process. A second call changes nothing.

    Call `sentry_sdk.init` before or after it. Local variables, payloads and secrets are removed from all of Sentry's
    events that concern webhooks, also from those that other integrations make.
    """
    if webhooks.notice_stream in _instrumented:
        return
    _instrumented.add(webhooks.notice_stream)
    install()
    reports = _Reports(webhooks)
    webhooks.around_handler(reports.around_handler)
    webhooks.subscribe(reports.listen, kinds=[HandlerFailed, LeaseLost, Settled])


class _Reports:
    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._lock = threading.Lock()
        # What failed in an attempt, by event and handler: whether it is the last attempt turns out at its end.
        self._pending: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()

    def around_handler(self, event: Event, handler: str, attempt: int) -> Iterator[None]:
        """Run a handler in a scope and a transaction of its own."""
        call, postponed = current_handler(), None
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tags(_tags(event.id, event.type, handler, attempt, call))
            # Whatever runs around this call, such as a request that drains: the attempt is not a part of it.
            transaction = sentry_sdk.start_transaction(
                op="queue.process", name=handler, source="task", origin="auto.queue.envoyou"
            )
            with transaction:
                for name, value in self._data(event, attempt, call).items():
                    transaction.set_data(name, value)
                try:
                    yield
                except RetryLater as error:
                    transaction.set_status("aborted")
                    postponed = error
                except Exception as error:
                    report = _report(error)
                    clean_exceptions(report, private_texts(event))
                    report["contexts"] = {"trace": transaction.get_trace_context()}
                    self._keep(event.id, handler, report)
                    raise
                else:
                    transaction.set_status("ok")
        if postponed is not None:
            raise postponed

    def listen(self, notice: Notice) -> None:
        """Report a failure."""
        if isinstance(notice, HandlerFailed):
            # The last failure of an event that is dead by it is reported with that.
            if not notice.is_fatal:
                report = self._find(notice.event_id, notice.handler) or _outside(notice.error, notice.message)
                self._send({**report, "level": "warning"}, notice, notice.handler, notice.attempt)
        elif isinstance(notice, Settled):
            if notice.status is Status.DEAD:
                self._report_dead(notice)
            self._forget(notice.event_id)
        elif isinstance(notice, LeaseLost):
            self._forget(notice.event_id)

    def _report_dead(self, notice: Settled) -> None:
        report = self._find(notice.event_id, notice.handler or "")
        if report is None and notice.exception is not None:
            report = _outside(notice.exception, notice.error or "")
        if report is None:
            # Its process has died too often.
            report = {"message": one_line(f"event is dead: {notice.error}")}
        self._send({**report, "level": "error"}, notice, notice.handler, notice.attempt, status="dead")

    def _send(
        self, report: dict[str, Any], notice: Any, handler: str | None, attempt: int, status: str = "failed"
    ) -> None:
        tags = _tags(notice.event_id, notice.event_type, handler, attempt, notice)
        values = report.get("exception", {}).get("values") or [{}]
        kind = values[-1].get("type") or status
        report |= {
            "logger": "envoyou",
            "tags": {**tags, "envoyou.status": status},
            "fingerprint": ["envoyou", handler or notice.event_type, kind],
        }
        sentry_sdk.capture_event(cast(Any, report))

    def _data(self, event: Event, attempt: int, call: HandlerCall | None) -> dict[str, Any]:
        data = {
            messaging.SYSTEM: messaging.SYSTEM_NAME,
            messaging.DESTINATION: self._webhooks.name,
            messaging.MESSAGE_ID: event.id,
            messaging.BODY_SIZE: len(event.body),
            messaging.RETRY_COUNT: attempt - 1,
        }
        if call is not None:
            waited = (datetime.now(UTC) - call.received_at).total_seconds()
            # Milliseconds, as Sentry shows them.
            data[messaging.LATENCY] = max(0.0, waited * 1000)
        return data

    def _keep(self, event_id: str, handler: str, report: dict[str, Any]) -> None:
        with self._lock:
            self._pending[event_id, handler] = report
            while len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)

    def _find(self, event_id: str, handler: str) -> dict[str, Any] | None:
        with self._lock:
            return self._pending.get((event_id, handler))

    def _forget(self, event_id: str) -> None:
        with self._lock:
            for key in [key for key in self._pending if key[0] == event_id]:
                del self._pending[key]


def _report(error: BaseException) -> dict[str, Any]:
    """Return an event of Sentry's for an exception, without local variables."""
    options = {**sentry_sdk.get_client().options, "include_local_variables": False}
    event, _ = event_from_exception(error, client_options=options, mechanism={"type": "envoyou", "handled": True})
    return dict(event)


def _outside(error: BaseException, message: str) -> dict[str, Any]:
    """Return an event for an exception from around the handler, whose text alone is known to be redacted."""
    report = _report(error)
    clean_exceptions(report, ())
    for value in report["exception"]["values"]:
        value["value"] = MARK
    report["exception"]["values"][-1]["value"] = message
    return report


def _tags(
    event_id: str, event_type: str, handler: str | None, attempt: int, origin: HandlerCall | AttemptNotice | None
) -> dict[str, str]:
    tags = {
        "envoyou.event_id": one_line(event_id),
        messaging.EVENT_TYPE: one_line(event_type),
        messaging.ATTEMPT: str(attempt),
    }
    if handler is not None:
        tags[messaging.HANDLER] = one_line(handler)
    if origin is not None and origin.webhook_id is not None:
        tags[messaging.WEBHOOK_ID] = one_line(origin.webhook_id)
    if origin is not None and origin.tenant:
        tags[messaging.TENANT] = one_line(origin.tenant)
    return tags
