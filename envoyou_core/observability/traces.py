"""Spans of OpenTelemetry: of acceptances, claims and the attempts of handlers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from envoyou_core.errors import RetryLater, describe
from envoyou_core.event import Event
from envoyou_core.inbox.records import Added
from envoyou_core.observability import messaging
from envoyou_core.observability.current import current_handler
from envoyou_core.observability.notice import Notice
from envoyou_core.observability.worker_notices import Claimed
from envoyou_core.worker.failures import failure_of

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["TracedEvent", "around_handler", "claim_listener", "trace_acceptance"]


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """The span of an acceptance; see `envoyou_core.reception.tracing`."""

    span: Span

    @property
    def traceparent(self) -> str | None:
        """The context of the span, as in W3C Trace Context."""
        context = self.span.get_span_context()
        if not context.is_valid:
            return None
        return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"

    def end(self, added: Added | None, error: BaseException | None) -> None:
        """End the span."""
        if added is not None:
            self.span.set_attribute(messaging.OUTCOME, "accepted" if added is Added.NEW else added.value)
        if error is not None:
            # Reported by the answer's log line. Here it has no stack: its frames are ours.
            self.span.set_attribute(messaging.ERROR_TYPE, type(error).__qualname__)
            self.span.set_status(Status(StatusCode.ERROR, describe(error)))
        self.span.end()


def trace_acceptance(webhooks: Webhooks, tracer: Tracer) -> Callable[[Event], TracedEvent]:
    """Return a function that starts the span of an acceptance, as a child of the request's span."""

    def begin(event: Event) -> TracedEvent:
        attributes = {**_common(webhooks, messaging.SEND), **_of_event(event)}
        return TracedEvent(
            tracer.start_span(f"{messaging.SEND} {webhooks.name}", kind=SpanKind.PRODUCER, attributes=attributes)
        )

    return begin


def claim_listener(tracer: Tracer) -> Callable[[Notice], None]:
    """Return a listener that makes a span of each claim that has found events."""

    def listen(notice: Notice) -> None:
        if not isinstance(notice, Claimed):
            return
        end = time.time_ns()
        span = tracer.start_span(
            f"{messaging.RECEIVE} {notice.name}",
            kind=SpanKind.CLIENT,
            start_time=end - int(notice.seconds * 1e9),
            attributes={
                messaging.SYSTEM: messaging.SYSTEM_NAME,
                messaging.OPERATION_NAME: messaging.RECEIVE,
                messaging.OPERATION_TYPE: messaging.RECEIVE,
                messaging.DESTINATION: notice.name,
                messaging.BATCH_COUNT: notice.number,
            },
        )
        span.end(end)

    return listen


def around_handler(webhooks: Webhooks, tracer: Tracer) -> Callable[[Event, str, int], Iterator[None]]:
    """Return a context for `Webhooks.around_handler` that makes a span of each attempt of a handler.

    The span begins a trace of its own, because the acceptance may be days older; a link leads to it, and another one to
    the span in which the attempt is made, if there is one, such as that of a task queue.
    """

    def attempt_of(event: Event, handler: str, attempt: int) -> Iterator[None]:
        call = current_handler()
        attributes: dict[str, Any] = {
            **_common(webhooks, messaging.PROCESS),
            **_of_event(event),
            messaging.HANDLER: handler,
            messaging.ATTEMPT: attempt,
        }
        if call is not None and call.tenant:
            attributes[messaging.TENANT] = call.tenant
        with tracer.start_as_current_span(
            f"{messaging.PROCESS} {webhooks.name}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[*_links(None if call is None else call.traceparent), *_around()],
            # The SDK would record the exception with its text as it is.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except RetryLater:
                span.set_attribute(messaging.OUTCOME, "postponed")
                raise
            except Exception as error:
                _record(span, event, handler, error)
                raise
            span.set_attribute(messaging.OUTCOME, "succeeded")

    return attempt_of


def _record(span: Span, event: Event, handler: str, error: Exception) -> None:
    failure, kind = failure_of(handler, error, event), type(error).__qualname__
    span.set_attribute(messaging.OUTCOME, "failed")
    span.set_attribute(messaging.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, failure.error))
    details = {
        "exception.type": kind,
        "exception.message": failure.error.partition(": ")[2],
        "exception.stacktrace": failure.traceback,
    }
    span.add_event("exception", details)


def _links(traceparent: str | None) -> list[Link]:
    if traceparent is None:
        return []
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())
    accepted = get_current_span(context).get_span_context()
    return [Link(accepted)] if accepted.is_valid else []


def _around() -> list[Link]:
    current = get_current_span().get_span_context()
    return [Link(current)] if current.is_valid else []


def _common(webhooks: Webhooks, operation: str) -> dict[str, Any]:
    return {
        messaging.SYSTEM: messaging.SYSTEM_NAME,
        messaging.OPERATION_NAME: operation,
        messaging.OPERATION_TYPE: operation,
        messaging.DESTINATION: webhooks.name,
    }


def _of_event(event: Event) -> dict[str, Any]:
    attributes = {
        messaging.MESSAGE_ID: event.id,
        messaging.EVENT_TYPE: event.type,
        messaging.BODY_SIZE: len(event.body),
    }
    return attributes if event.webhook_id is None else {**attributes, messaging.WEBHOOK_ID: event.webhook_id}
