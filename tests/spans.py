"""A provider of spans that keeps them for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

__all__ = ["recorded_spans"]


@contextmanager
def recorded_spans() -> Iterator[tuple[TracerProvider, Callable[[SpanKind], list[ReadableSpan]]]]:
    """Yield a provider, and a function that returns its ended spans of one kind."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, lambda kind: [span for span in exporter.get_finished_spans() if span.kind is kind]
    provider.shutdown()
