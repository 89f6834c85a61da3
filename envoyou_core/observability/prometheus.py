"""Metrics for Prometheus, by prometheus-client. Install the extra `prometheus`.

See the guide, "Monitoring and Analytics".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, make_asgi_app, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import start_wsgi_server
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from envoyou_core.observability.gauges import GAUGES, read_gauges
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

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["asgi_app", "instrument", "serve", "wsgi_app"]

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client shares the values of several processes in files."""


def instrument(webhooks: Webhooks, registry: CollectorRegistry | None = None) -> None:
    """Count deliveries and attempts of `webhooks` in this process. A second call changes nothing.

    Args:
        webhooks: what is measured.
        registry: where the metrics are registered; by default the one of prometheus-client.
    """
    registry = REGISTRY if registry is None else registry
    meter = _METERS.get(registry)
    if meter is None:
        _METERS[registry] = meter = _Meter(registry)
    # The stream, because Django's `webhooks` is a proxy of the object that has it.
    if webhooks.notice_stream not in meter.measured:
        meter.measured.add(webhooks.notice_stream)
        webhooks.subscribe(Measurements(webhooks, meter), kinds=MEASURED)


def wsgi_app(*webhooks: Webhooks, registry: CollectorRegistry | None = None) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application that answers with all metrics: those of the registry, and the inboxes' gauges.

    In the multiprocess mode of prometheus-client, the metrics are those of all processes. Gauges are read from the
    database at each request, so one target that Prometheus scrapes is enough.

    Args:
        webhooks: whose inboxes are read; none for a target without gauges.
        registry: the one given to `instrument`.
    """
    app: Callable[..., Iterable[bytes]] = make_wsgi_app(_exposed(webhooks, registry))
    return app


def asgi_app(*webhooks: Webhooks, registry: CollectorRegistry | None = None) -> Callable[..., Any]:
    """Return an ASGI application that answers like `wsgi_app`. The database is read in another thread."""
    import asyncio

    exposed = _exposed(webhooks, registry)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # The application of prometheus-client would collect on the event loop.
        families = await asyncio.to_thread(lambda: [*exposed.collect()])
        await make_asgi_app(_registry_of(_Collected(families)))(scope, receive, send)

    return app


@contextmanager
def serve(
    *webhooks: Webhooks, port: int, host: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> Iterator[int]:
    """Serve the metrics over HTTP in threads of this process, as `wsgi_app` answers them; yields the port.

    Args:
        webhooks: whose inboxes are read.
        port: the port; 0 for any free one.
        host: the address to listen on.
        registry: the one given to `instrument`.

    Raises:
        OSError: the port is in use, or the address is not one of this machine.
    """
    server, thread = start_wsgi_server(port, addr=host, registry=_exposed(webhooks, registry))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _exposed(webhooks: Iterable[Webhooks], registry: CollectorRegistry | None) -> CollectorRegistry:
    """Return a registry for answers only: multiprocess mode has no collectors of its own beside the values in files."""
    collectors: list[Collector] = [_InboxCollector(each) for each in webhooks]
    if MULTIPROCESS not in os.environ:
        return _registry_of(_Everything(REGISTRY if registry is None else registry), *collectors)
    exposed = _registry_of(*collectors)
    MultiProcessCollector(exposed)  # type: ignore[no-untyped-call]
    return exposed


def _registry_of(*collectors: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


class _Meter:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.measured: WeakSet[Notices] = WeakSet()
        self._metrics: dict[str, Any] = {
            **{it.name: Counter(it.name, it.description, it.labels, registry=registry) for it in COUNTERS},
            **{
                it.name: Histogram(
                    f"{it.name}_seconds", it.description, it.labels, buckets=it.buckets, registry=registry
                )
                for it in HISTOGRAMS
            },
        }

    def counter(self, metric: Metric, *labels: str) -> Count:
        """See `Meter.counter`."""
        count: Count = self._child(metric, labels).inc
        return count

    def histogram(self, metric: Metric, *labels: str) -> Observe:
        """See `Meter.histogram`."""
        observe = self._child(metric, labels).observe

        def add(value: float, traceparent: str | None) -> None:
            observe(value, None if traceparent is None else _exemplar(traceparent))

        return add

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        parent = self._metrics[metric.name]
        return parent.labels(*labels) if labels else parent


def _exemplar(traceparent: str) -> dict[str, str] | None:
    """Return the labels of an exemplar; `None` if the trace is not recorded."""
    _version, trace_id, span_id, flags = traceparent.split("-")[:4]
    return {"trace_id": trace_id, "span_id": span_id} if int(flags, 16) & 1 else None


_METERS: Final[WeakKeyDictionary[CollectorRegistry, _Meter]] = WeakKeyDictionary()


class _Everything(Collector):
    """What another registry collects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def describe(self) -> Iterable[MetricFamily]:
        """Return the metrics by whose names a request may select."""
        return self.collect()

    def collect(self) -> Iterable[MetricFamily]:
        return self._registry.collect()


class _Collected(Collector):
    """What has been collected already."""

    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self._families = families

    def describe(self) -> Iterable[MetricFamily]:
        """Return the metrics by whose names a request may select."""
        return self._families

    def collect(self) -> Iterable[MetricFamily]:
        return self._families


class _InboxCollector(Collector):
    """The gauges of one inbox."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def describe(self) -> Iterable[MetricFamily]:
        """Return the metrics by whose names a request may select, without reading them."""
        return _families().values()

    def collect(self) -> Iterable[MetricFamily]:
        families = _families()
        for reading in read_gauges(self._webhooks):
            families[reading.gauge.name].add_metric(reading.labels, reading.value)
        return [family for family in families.values() if family.samples]


def _families() -> dict[str, GaugeMetricFamily]:
    return {it.name: GaugeMetricFamily(it.name, it.description, labels=it.labels) for it in GAUGES}
