"""What logs, counts, metrics and traces cost: deliveries and drained events per second of CPU time, side by side.

All candidates run in this process, one after the other, over SQLite with synchronous=FULL. CPU time is that of all
threads of the process, so that other load on the machine affects it little.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from pythonjsonlogger.json import JsonFormatter

from benchmarks.acknowledgements import SECRET, deliveries
from benchmarks.measuring import Comparison, MeasurementError, Ratio, Round, Run
from envoyou_core import Webhooks
from envoyou_core.hooks import HookKind
from envoyou_core.observability import HandlerFilter, prometheus
from envoyou_core.observability.traces import around_handler, claim_listener, trace_acceptance
from envoyou_core.observability.worker_notices import Claimed

__all__ = ["comparisons"]

Switch = Callable[[Webhooks], object]

TARGET = 0.95
"""At most 5 % more CPU time."""

PLAIN = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def comparisons(run: Run) -> list[Comparison]:
    """Return the comparisons of this benchmark."""
    candidates: dict[str, tuple[logging.Formatter | None, Switch | None]] = {
        "bare": (None, lambda webhooks: None),
        "log lines": (PLAIN, lambda webhooks: None),
        "log lines as JSON, with fields": (JsonFormatter(), lambda webhooks: None),
        "counts for webhooks.analytics": (None, None),
        "metrics": (None, count),
        "traces": (None, trace),
    }
    ratios = [
        Ratio("log lines", "bare"),
        Ratio("log lines as JSON, with fields", "log lines"),
        Ratio("counts for webhooks.analytics", "bare", TARGET),
        Ratio("metrics", "bare", TARGET),
        Ratio("traces", "bare"),
    ]
    return [
        Comparison(
            f"{what} per second of CPU time, SQLite FULL",
            {
                name: partial(measure, run, formatter, switch, is_drain)
                for name, (formatter, switch) in candidates.items()
            },
            ratios,
        )
        for what, is_drain in (("deliveries", False), ("drained events", True))
    ]


def count(webhooks: Webhooks) -> None:
    """Switch metrics on."""
    prometheus.instrument(webhooks, CollectorRegistry())


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def trace(webhooks: Webhooks) -> None:
    """Switch traces on, without metrics."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    tracer = provider.get_tracer("benchmark")
    webhooks.add_hook(HookKind.ACCEPTANCE, trace_acceptance(webhooks, tracer))
    webhooks.subscribe(claim_listener(tracer), kinds=[Claimed])
    webhooks.around_handler(around_handler(webhooks, tracer))


@contextmanager
def logging_to(file: Path, formatter: logging.Formatter | None) -> Iterator[None]:
    """Write all log lines to `file`, if there is a formatter; none otherwise."""
    log = logging.getLogger("envoyou")
    level = log.level
    handler = logging.FileHandler(file)
    if formatter is not None:
        handler.setFormatter(formatter)
        handler.addFilter(HandlerFilter())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def measure(run: Run, formatter: logging.Formatter | None, switch: Switch | None, is_drain: bool) -> Round:
    """Receive `run.events` deliveries and drain them; measure one of both. Without a switch, they are counted."""
    requests = deliveries(run.events)
    with tempfile.TemporaryDirectory() as folder, logging_to(Path(folder, "log"), formatter):
        webhooks = Webhooks(
            secret=SECRET, inbox=f"sqlite:///{folder}/inbox.db", handoff="manual", analytics=switch is None
        )
        webhooks.on("*", name="nothing")(lambda event: None)
        if switch is not None:
            switch(webhooks)
        webhooks.inbox.open()
        began = cpu_seconds()
        with ThreadPoolExecutor(run.requests) as pool:
            responses = list(pool.map(webhooks.receive, requests))
        received = cpu_seconds()
        done = webhooks.drain()
        drained = cpu_seconds()
        webhooks.inbox.close()
    if {response.status for response in responses} != {200} or done != run.events:
        raise MeasurementError("not every delivery was acknowledged and handled")
    seconds = drained - received if is_drain else received - began
    return Round(done=done, rate=run.events / seconds)


def cpu_seconds() -> float:
    """The CPU time of this process so far, of all its threads."""

    return time.process_time()
