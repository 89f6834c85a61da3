"""What is measured, under which names, and how notices become measurements. Prometheus and OpenTelemetry share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from envoyou_core.event import EVENT_TYPES
from envoyou_core.inbox.records import Added, Status
from envoyou_core.observability.attempt_notices import (
    DatabaseFailed,
    HandlerFailed,
    HandlerPostponed,
    HandlerSkipped,
    HandlerSucceeded,
    Settled,
)
from envoyou_core.observability.delivery_notices import Accepted, Rejected
from envoyou_core.observability.notice import Notice

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["COUNTERS", "HISTOGRAMS", "MEASURED", "OTHER", "Count", "Measurements", "Meter", "Metric", "Observe"]

OTHER: Final = "other"
"""The label of event types that are neither EnvoyOU's nor named by a handler, so that labels are bounded."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A counter or a histogram.

    Attributes:
        name: without the suffix that counters have, and without the unit.
        description: for people.
        labels: the names of its labels.
        buckets: the upper bounds of a histogram, in seconds; empty for a counter.
    """

    name: str
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_HANDLER: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)

PROCESSED: Final = Metric(
    "envoyou_webhook_processed", "Attempts that ended, by the state of the event.", ("event_type", "status")
)
DELIVERIES: Final = Metric("envoyou_webhook_deliveries", "Deliveries, by their answer.", ("outcome", "reason"))
ATTEMPTS: Final = Metric("envoyou_webhook_attempts", "Calls of handlers, by their outcome.", ("handler", "outcome"))
RETRIES: Final = Metric("envoyou_webhook_retries", "Attempts after which the event is tried again.", ("event_type",))
DEAD: Final = Metric("envoyou_webhook_dead", "Events that failed for good.", ("event_type",))
ACKNOWLEDGE: Final = Metric("envoyou_webhook_acknowledge", "From a request to its event being on disk.", buckets=_FAST)
RECEIVED_LAG: Final = Metric(
    "envoyou_webhook_received_lag", "From the creation of an event to its first acceptance.", buckets=_LAG
)
PROCESSED_LAG: Final = Metric(
    "envoyou_webhook_processed_lag", "From the creation of an event to the success of its handlers.", buckets=_LAG
)
HANDLER: Final = Metric("envoyou_webhook_handler", "How long a handler took.", ("handler", "outcome"), buckets=_HANDLER)

COUNTERS: Final = (PROCESSED, DELIVERIES, ATTEMPTS, RETRIES, DEAD)
HISTOGRAMS: Final = (ACKNOWLEDGE, RECEIVED_LAG, PROCESSED_LAG, HANDLER)

MEASURED: Final[tuple[type[Notice], ...]] = (
    Accepted,
    Rejected,
    HandlerSucceeded,
    HandlerFailed,
    HandlerPostponed,
    HandlerSkipped,
    DatabaseFailed,
    Settled,
)
"""The notices that are measured."""


Measure = TypeVar("Measure", bound=Callable[..., object])

Count = Callable[[], object]
"""Adds one to a counter."""

Observe = Callable[[float, str | None], object]
"""Adds a value, in seconds, to a histogram; and the trace context in which the event was accepted, if there is one."""


class Meter(Protocol):
    """Where measurements go. Its functions are kept: finding the metric of some labels costs more than counting."""

    def counter(self, metric: Metric, *labels: str) -> Count:
        """Return the function that adds one to a counter."""

    def histogram(self, metric: Metric, *labels: str) -> Observe:
        """Return the function that adds a value to a histogram."""


class Measurements:
    """A listener that measures notices.

    Args:
        webhooks: what emits the notices. Its handlers name the event types that are labels beside EnvoyOU's own.
        meter: receives the measurements.
    """

    def __init__(self, webhooks: Webhooks, meter: Meter) -> None:
        self._webhooks = webhooks
        self._types: dict[str, str] = {type_: type_ for type_ in EVENT_TYPES}
        self._deliveries = _ByLabels(partial(meter.counter, DELIVERIES))
        self._attempts = _ByLabels(partial(meter.counter, ATTEMPTS))
        self._handler = _ByLabels(partial(meter.histogram, HANDLER))
        self._processed = _ByLabels(partial(meter.counter, PROCESSED))
        self._retries = _ByLabels(partial(meter.counter, RETRIES))
        self._dead = _ByLabels(partial(meter.counter, DEAD))
        self._acknowledge = meter.histogram(ACKNOWLEDGE)
        self._received_lag = meter.histogram(RECEIVED_LAG)
        self._processed_lag = meter.histogram(PROCESSED_LAG)
        self._measure: dict[type[Notice], Callable[[Any], None]] = {
            Accepted: self._accepted,
            Rejected: self._rejected,
            HandlerSucceeded: self._called,
            HandlerFailed: self._called,
            HandlerPostponed: self._called,
            HandlerSkipped: self._skipped,
            DatabaseFailed: self._called,
            Settled: self._settled,
        }

    def __call__(self, notice: Notice) -> None:
        """Measure one notice of those in `MEASURED`."""
        self._measure[type(notice)](notice)

    def _accepted(self, notice: Accepted) -> None:
        self._deliveries[notice.outcome, ""]()
        if notice.seconds is not None:
            self._acknowledge(notice.seconds, notice.traceparent)
        # The lag of a redelivery says when it was redelivered.
        if notice.added is Added.NEW and notice.created is not None and notice.received_at is not None:
            self._received_lag(max(0.0, notice.received_at - notice.created), notice.traceparent)

    def _rejected(self, notice: Rejected) -> None:
        self._deliveries[notice.outcome, notice.reason]()

    def _called(self, notice: HandlerSucceeded | HandlerFailed | HandlerPostponed | DatabaseFailed) -> None:
        labels = notice.handler, notice.outcome
        self._attempts[labels]()
        if notice.seconds is not None:
            self._handler[labels](notice.seconds, notice.traceparent)

    def _skipped(self, notice: HandlerSkipped) -> None:
        self._attempts[notice.handler, notice.outcome]()

    def _settled(self, notice: Settled) -> None:
        type_ = self._types.get(notice.event_type) or self._bounded(notice.event_type)
        self._processed[type_, notice.outcome]()
        if notice.retry_in is not None:
            self._retries[(type_,)]()
        elif notice.status is Status.DEAD:
            self._dead[(type_,)]()
        elif notice.status is Status.PROCESSED and notice.created is not None and notice.settled_at is not None:
            self._processed_lag(max(0.0, notice.settled_at - notice.created), notice.traceparent)

    def _bounded(self, event_type: str) -> str:
        named = {pattern for handler in self._webhooks.registered for pattern in handler.patterns}
        return self._types.setdefault(event_type, event_type) if event_type in named else OTHER


class _ByLabels(dict[tuple[str, ...], Measure]):
    """The functions of one metric by its labels."""

    def __init__(self, make: Callable[..., Measure]) -> None:
        self._make = make

    def __missing__(self, labels: tuple[str, ...]) -> Measure:
        return self.setdefault(labels, self._make(*labels))
