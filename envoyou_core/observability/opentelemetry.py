"""Metrics and traces by OpenTelemetry. Install the extra `otel`, and an SDK that sends them somewhere.

See the guide, "Monitoring and Analytics".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.metrics import Meter as OtelMeter
from opentelemetry.trace import TracerProvider, get_tracer

from envoyou_core.hooks import HookKind
from envoyou_core.observability.gauges import GAUGES, Gauge, Reading, read_gauges
from envoyou_core.observability.measurements import (
    COUNTERS,
    HISTOGRAMS,
    MEASURED,
    Count,
    Measurements,
    Metric,
    Observe,
)
from envoyou_core.observability.notices import Notices
from envoyou_core.observability.traces import around_handler, claim_listener, trace_acceptance
from envoyou_core.observability.worker_notices import Claimed

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["instrument", "observe_inbox"]

SCOPE: Final = "envoyou_core"

KEPT_FOR: Final = 1.0
"""Seconds for which the readings of an inbox are kept: all gauges of one collection come from one reading."""

_instrumented: Final[WeakSet[Notices]] = WeakSet()
"""The streams, because Django's `webhooks` is a proxy of the object that has one."""


def instrument(
    webhooks: Webhooks, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Trace and count deliveries and attempts of `webhooks` in this process. A second call changes nothing.

    Args:
        webhooks: what is traced and measured.
        tracer_provider: receives the spans; by default the global one, which may be set later.
        meter_provider: receives the metrics; by default the global one, which may be set later.
    """
    if webhooks.notice_stream in _instrumented:
        return
    _instrumented.add(webhooks.notice_stream)
    meter = _Meter(get_meter(SCOPE, meter_provider=meter_provider))
    webhooks.subscribe(Measurements(webhooks, meter), kinds=MEASURED)
    tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
    webhooks.add_hook(HookKind.ACCEPTANCE, trace_acceptance(webhooks, tracer))
    webhooks.subscribe(claim_listener(tracer), kinds=[Claimed])
    webhooks.around_handler(around_handler(webhooks, tracer))


def observe_inbox(webhooks: Webhooks, *, meter_provider: MeterProvider | None = None) -> None:
    """Observe the gauges of the inbox, which are read from the database at each collection.

    Call it in one process only, such as the worker's: each process that calls it reads the same database.

    Args:
        webhooks: whose inbox is read.
        meter_provider: receives the metrics; by default the global one.
    """
    meter = get_meter(SCOPE, meter_provider=meter_provider)
    readings = _Readings(webhooks)
    for gauge in GAUGES:
        meter.create_observable_gauge(_dotted(gauge.name), [readings.callback(gauge)], description=gauge.description)


class _Meter:
    def __init__(self, meter: OtelMeter) -> None:
        self._counters = {it.name: meter.create_counter(_dotted(it.name), "", it.description) for it in COUNTERS}
        self._histograms = {
            it.name: meter.create_histogram(
                _dotted(it.name), "s", it.description, explicit_bucket_boundaries_advisory=it.buckets
            )
            for it in HISTOGRAMS
        }

    def counter(self, metric: Metric, *labels: str) -> Count:
        """See `Meter.counter`."""
        return partial(self._counters[metric.name].add, 1, dict(zip(metric.labels, labels, strict=True)))

    def histogram(self, metric: Metric, *labels: str) -> Observe:
        """See `Meter.histogram`."""
        record, attributes = self._histograms[metric.name].record, dict(zip(metric.labels, labels, strict=True))
        return lambda value, _traceparent: record(value, attributes)


class _Readings:
    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._lock = threading.Lock()
        self._read_at = -KEPT_FOR
        self._readings: list[Reading] = []

    def callback(self, gauge: Gauge) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return a function that observes one gauge."""

        def observe(options: Any) -> Iterable[Observation]:
            return [
                Observation(it.value, dict(zip(gauge.labels, it.labels, strict=True)))
                for it in self._current()
                if it.gauge is gauge
            ]

        return observe

    def _current(self) -> list[Reading]:
        with self._lock:
            if time.monotonic() - self._read_at >= KEPT_FOR:
                self._readings = [*read_gauges(self._webhooks)]
                self._read_at = time.monotonic()
            return self._readings


def _dotted(name: str) -> str:
    """Return a name as OpenTelemetry writes it. An exporter for Prometheus makes the same name of it."""
    return name.replace("_", ".", 2)
