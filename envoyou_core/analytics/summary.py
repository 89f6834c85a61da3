"""The figures of a window, from its tallies. See the guide, "Monitoring and Analytics"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from envoyou_core.analytics.histogram import add_buckets, quantile
from envoyou_core.analytics.rollups import Measure, Tally

__all__ = [
    "AttemptCounts",
    "DeliveryCounts",
    "Durations",
    "EventCounts",
    "HandlerSummary",
    "Summary",
    "TypeSummary",
    "summarize",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long something took, in seconds; `None` if it did not happen. The percentiles are estimated from buckets.

    Attributes:
        number: how often it happened.
        mean: the average.
        p50: the median.
        p95: the 95th percentile.
        p99: the 99th percentile.
    """

    number: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCounts:
    """How deliveries were answered.

    Attributes:
        accepted: 200, and the event was new, or dead and is handled again.
        duplicates: 200, and the event was stored already.
        invalid: 400, although the delivery was genuine.
        unavailable: 503: it could not be stored in time.
        unauthorized: 401. Anyone can cause it, so it is in no rate.
        refused: 405, 413, 415, and 400 for a body that could not be read. In no rate either.
        spooled: those of the accepted ones that were stored in the spool first.
    """

    accepted: int = 0
    duplicates: int = 0
    invalid: int = 0
    unavailable: int = 0
    unauthorized: int = 0
    refused: int = 0
    spooled: int = 0

    @property
    def genuine(self) -> int:
        """The genuine deliveries: those with a valid signature, and those that could not be checked or stored."""
        return self.accepted + self.duplicates + self.invalid + self.unavailable

    @property
    def rate(self) -> float | None:
        """The delivery rate: the share of the genuine deliveries that was answered 200; `None` if there was none."""
        return _share(self.accepted + self.duplicates, self.genuine)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCounts:
    """How the calls of handlers ended.

    Attributes:
        succeeded: they returned.
        failed: they raised.
        postponed: they raised `RetryLater`.
        skipped: handlers that were not called, because the event was stale.
    """

    succeeded: int = 0
    failed: int = 0
    postponed: int = 0
    skipped: int = 0

    @property
    def number(self) -> int:
        """The number of calls."""
        return self.succeeded + self.failed + self.postponed

    @property
    def error_rate(self) -> float | None:
        """The share of the calls that failed; `None` if there was none."""
        return _share(self.failed, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """How the attempts at events ended.

    Attributes:
        processed: all handlers have succeeded.
        ignored: there was no handler.
        retried: the event is handled again later.
        dead: given up.
    """

    processed: int = 0
    ignored: int = 0
    retried: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSummary:
    """The figures of one type of event.

    Attributes:
        accepted: new events.
        duplicates: deliveries of events that were stored already.
        events: how the attempts at them ended.
    """

    accepted: int
    duplicates: int
    events: EventCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSummary:
    """The figures of one handler.

    Attributes:
        attempts: how its calls ended.
        durations: how long they took.
    """

    attempts: AttemptCounts
    durations: Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a window.

    Attributes:
        since: the start of the window, in UTC.
        until: its end.
        deliveries: how deliveries were answered.
        response: how long the answers to genuine deliveries took, in this library.
        attempts: how the calls of handlers ended.
        events: how the attempts at events ended.
        processing: how long it took from the acceptance of events until they were processed.
        types: the figures of each type of event.
        handlers: the figures of each handler.
    """

    since: datetime
    until: datetime
    deliveries: DeliveryCounts
    response: Durations
    attempts: AttemptCounts
    events: EventCounts
    processing: Durations
    types: Mapping[str, TypeSummary]
    handlers: Mapping[str, HandlerSummary]

    @property
    def events_per_hour(self) -> float:
        """The event volume: new events for each hour of the window."""
        hours = (self.until - self.since).total_seconds() / 3600
        return self.deliveries.accepted / hours if hours > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures as values of JSON. Rates are between 0 and 1, times in seconds."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "delivery_rate": self.deliveries.rate,
            "error_rate": self.attempts.error_rate,
            "events_per_hour": self.events_per_hour,
            "deliveries": {**_document(self.deliveries), "genuine": self.deliveries.genuine},
            "response_seconds": _document(self.response),
            "attempts": _document(self.attempts),
            "events": _document(self.events),
            "processing_seconds": _document(self.processing),
            "types": {
                name: {"accepted": of.accepted, "duplicates": of.duplicates, **_document(of.events)}
                for name, of in self.types.items()
            },
            "handlers": {
                name: {
                    **_document(of.attempts),
                    "error_rate": of.attempts.error_rate,
                    "seconds": _document(of.durations),
                }
                for name, of in self.handlers.items()
            },
        }


ANSWERED = (Measure.ACCEPTED, Measure.DUPLICATE, Measure.INVALID, Measure.UNAVAILABLE)
CALLED = (Measure.SUCCEEDED, Measure.FAILED, Measure.POSTPONED)


def summarize(tallies: Sequence[Tally], since: datetime, until: datetime) -> Summary:
    """Return the figures of a window. Measures that this release does not know are left out."""
    types = _names(tally.event_type for tally in tallies if not tally.handler)
    handlers = _names(tally.handler for tally in tallies)
    return Summary(
        since=since,
        until=until,
        deliveries=_deliveries(tallies),
        response=_durations(tallies, ANSWERED),
        attempts=_attempts(tallies),
        events=_events(tallies),
        processing=_durations(tallies, (Measure.PROCESSED,)),
        types={name: _type([tally for tally in tallies if tally.event_type == name]) for name in types},
        handlers={name: _handler([tally for tally in tallies if tally.handler == name]) for name in handlers},
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _names(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name})


def _number(tallies: Iterable[Tally], measure: Measure) -> int:
    return sum(tally.number for tally in tallies if tally.measure == measure)


def _durations(tallies: Iterable[Tally], measures: Sequence[Measure]) -> Durations:
    timed = [tally for tally in tallies if tally.measure in measures]
    buckets = add_buckets(tally.buckets for tally in timed)
    number = sum(buckets)
    if not number:
        return Durations()
    return Durations(
        number=number,
        mean=sum(tally.total for tally in timed) / number / 1_000_000,
        p50=quantile(buckets, 0.5),
        p95=quantile(buckets, 0.95),
        p99=quantile(buckets, 0.99),
    )


def _deliveries(tallies: Sequence[Tally]) -> DeliveryCounts:
    return DeliveryCounts(
        accepted=_number(tallies, Measure.ACCEPTED),
        duplicates=_number(tallies, Measure.DUPLICATE),
        invalid=_number(tallies, Measure.INVALID),
        unavailable=_number(tallies, Measure.UNAVAILABLE),
        unauthorized=_number(tallies, Measure.UNAUTHORIZED),
        refused=_number(tallies, Measure.REFUSED),
        spooled=_number(tallies, Measure.SPOOLED),
    )


def _attempts(tallies: Sequence[Tally]) -> AttemptCounts:
    return AttemptCounts(
        succeeded=_number(tallies, Measure.SUCCEEDED),
        failed=_number(tallies, Measure.FAILED),
        postponed=_number(tallies, Measure.POSTPONED),
        skipped=_number(tallies, Measure.SKIPPED),
    )


def _events(tallies: Sequence[Tally]) -> EventCounts:
    return EventCounts(
        processed=_number(tallies, Measure.PROCESSED),
        ignored=_number(tallies, Measure.IGNORED),
        retried=_number(tallies, Measure.RETRIED),
        dead=_number(tallies, Measure.DEAD),
    )


def _type(tallies: Sequence[Tally]) -> TypeSummary:
    return TypeSummary(
        accepted=_number(tallies, Measure.ACCEPTED),
        duplicates=_number(tallies, Measure.DUPLICATE),
        events=_events(tallies),
    )


def _handler(tallies: Sequence[Tally]) -> HandlerSummary:
    return HandlerSummary(attempts=_attempts(tallies), durations=_durations(tallies, CALLED))


def _document(figures: DeliveryCounts | AttemptCounts | EventCounts | Durations) -> dict[str, Any]:
    return {field.name: getattr(figures, field.name) for field in fields(figures)}
